"""Datasets of (source, target) pairs. An item depends on nothing but (seed, epoch, index), so that a
resumed run sees what an uninterrupted one would have seen.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate

from gan_core.faces import FaceLayout
from gan_core.image import PictureError, open_picture, to_tensor
from gan_core.lineart import SIZE, draw_like_a_hand

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
LAYOUTS = "layouts.json"
OUTLINES = "outlines.json"
MOST_IN_A_ROW = 8  # pictures that cannot be read, before it is the folder that is at fault

Key = tuple[int, int]  # epoch, index


class DataError(ValueError):
    """The data folder cannot be used; the message says what was expected where."""


def list_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted. Raises DataError if there are none."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder. Give the folder that holds the pictures; `python -m train.prepare` makes "
            "it, from photos or from a data set on the Hub."
        )
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not files:
        raise DataError(f"{folder} holds no pictures ({', '.join(sorted(PICTURES))}).")
    return files


def read_picture(path: Path) -> Image.Image:
    """As `open_picture`; the error says in which folder."""
    try:
        return open_picture(path)
    except PictureError as error:
        raise PictureError(f"{path.parent}: {error}") from error


def evenly(count: int, most: int) -> list[int]:
    """Indices of `most` of `count` things, the first, the last and evenly between; of all if there are no more."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


class FacePhotos(Dataset):
    """Framed face photos; the drawing is made on the fly and is another one in each epoch.

    folder: SIZE x SIZE photos, as `train.prepare faces` writes them; `layouts.json` or `outlines.json`
        (train/landmarks.py) beside them, if it is there, adds the symbols that people draw; both may be.
    zoom: the smallest share of the photo's side that random crops keep, but for a small stretch; 1 for no crops.
    Items: source `(1, SIZE, SIZE)` and target `(3, SIZE, SIZE)`, in [-1, 1].
    """

    def __init__(self, folder: str | Path, seed: int = 0, zoom: float = 0.72):
        self.folder, self.seed, self.zoom = Path(folder), seed, zoom
        self.files = list_pictures(self.folder)
        layouts, outlines = (
            json.loads((self.folder / name).read_text()) if (self.folder / name).is_file() else {}
            for name in (LAYOUTS, OUTLINES)
        )
        self.layouts = {name: FaceLayout(*map(tuple, points)) for name, points in layouts.items()}
        self.layouts |= {name: FaceLayout.of_outlines(lines) for name, lines in outlines.items()}

    def __len__(self) -> int:
        return len(self.files)

    def photo(self, index: int) -> np.ndarray:
        picture = read_picture(self.files[index])
        if picture.size != (SIZE, SIZE):
            raise DataError(
                f"{self.files[index]} is {picture.width}x{picture.height}, not {SIZE}x{SIZE}. "
                "Run `python -m train.prepare faces` on the folder first."
            )
        return np.asarray(picture)

    def layout(self, index: int) -> FaceLayout | None:
        return self.layouts.get(self.files[index].name)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        photo, layout = augment(self.photo(index), self.layout(index), rng, self.zoom)
        return to_tensor(draw_like_a_hand(photo, rng, layout))[0], to_tensor(photo)[0]


class StandIns(Dataset):
    """A dataset in which the next picture stands in for one that cannot be read.

    Items: that of the dataset, and a list of what was wrong; or None, and a DataError at the end of the list.
    Errors are handed on, not raised, because a worker process would bury them in a traceback.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[tuple | None, list]:
        epoch, index, *_ = key
        troubles = []
        try:
            while len(troubles) < MOST_IN_A_ROW:
                try:
                    return self.dataset[key], troubles
                except PictureError as error:
                    troubles.append(str(error))
                    key = epoch, (index + len(troubles)) % len(self)
        except DataError as error:
            return None, [error]
        return None, [DataError(f"{len(troubles)} pictures in a row cannot be read. The last: {troubles[-1]}")]


def collate(items: list[tuple[tuple | None, list]]) -> tuple[list[Tensor], list]:
    """Items of `StandIns` -> a batch, and what was wrong with it."""
    troubles = [trouble for _, found in items for trouble in found]
    whole = [item for item, _ in items if item is not None]
    return default_collate(whole) if len(whole) == len(items) else [], troubles


def augment(
    photo: np.ndarray, layout: FaceLayout | None, rng: np.random.Generator, zoom: float
) -> tuple[np.ndarray, FaceLayout | None]:
    """Mirrors half of the photos; zooms into half of them, with a small turn and stretch. The layout moves along."""
    if rng.random() < 0.5:
        photo = np.ascontiguousarray(photo[:, ::-1])
        layout = layout and layout.moved(np.array([[-1.0, 0.0, SIZE - 1], [0.0, 1.0, 0.0]]))
    if rng.random() < 0.5 and zoom < 1:
        stretch, angle = np.exp(rng.uniform(-0.08, 0.08)), rng.normal(0, 4)
        scale = max(1 / rng.uniform(zoom, 1), 1 / stretch)  # nothing beyond the photo but what a turn shows
        centre = SIZE / 2 + (SIZE - SIZE / scale) * rng.uniform(-0.25, 0.25, 2)
        matrix = cv2.getRotationMatrix2D(centre.tolist(), angle, scale)
        matrix[:, 2] += SIZE / 2 - centre
        matrix[0] = matrix[0] * stretch + (0, 0, (1 - stretch) * SIZE / 2)
        photo = cv2.warpAffine(photo, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        layout = layout and layout.moved(matrix)
    return photo, layout


class PairFolder(Dataset):
    """Pairs on disk: `source/NAME.*` and `target/NAME.*`, both of one size.

    gray_source: read the source as one channel, as line drawings are. zoom: the smallest share of each side that
    random crops keep; 1 for none. scale: bring all pairs to SIZE x SIZE. The source is scaled without new colours, as
    label maps need it, unless gray.
    """

    def __init__(
        self, folder: str | Path, gray_source: bool = False, seed: int = 0, zoom: float = 1.0, scale: bool = False
    ):
        folder = Path(folder)
        self.gray_source, self.seed, self.zoom, self.scale = gray_source, seed, zoom, scale
        targets = {path.stem: path for path in list_pictures(folder / "target")}
        sources = {path.stem: path for path in list_pictures(folder / "source")}
        odd = sorted(targets.keys() ^ sources.keys())
        if odd:
            raise DataError(
                f"{folder}: {len(odd)} picture(s) without a partner in source/ or target/, such as {odd[0]}."
            )
        self.files = [(sources[name], targets[name]) for name in sorted(targets)]

    def __len__(self) -> int:
        return len(self.files)

    def pair(self, index: int) -> tuple[Image.Image, Image.Image]:
        """Source ("L" or RGB) and target (RGB), as they are on disk unless they are to be scaled."""
        source, target = (read_picture(path) for path in self.files[index])
        if source.size != target.size:
            raise DataError(
                f"{self.files[index][0]} is {source.width}x{source.height}, its target {target.width}x{target.height}. "
                "Scale both to one size."
            )
        source = source.convert("L") if self.gray_source else source
        return scale_pair(source, target, self.gray_source) if self.scale else (source, target)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        source, target = augment_pair(*map(np.asarray, self.pair(index)), rng, self.zoom, smooth=self.gray_source)
        return to_tensor(source)[0], to_tensor(target)[0]


def scale_pair(source: Image.Image, target: Image.Image, smooth: bool) -> tuple[Image.Image, Image.Image]:
    """Both at SIZE x SIZE. smooth: see `augment_pair`."""
    size = (SIZE, SIZE)
    method = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return source.resize(size, method), target.resize(size, Image.Resampling.LANCZOS)


def augment_pair(
    source: np.ndarray, target: np.ndarray, rng: np.random.Generator, zoom: float, smooth: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors half of the pairs; if zoom is below 1, crops all of them at random. Both pictures move alike.

    smooth: the source may get new colours when it is scaled; a label map must not.
    """
    height, width = target.shape[:2]
    if rng.random() < 0.5:
        source, target = source[:, ::-1], target[:, ::-1]
    if zoom < 1:
        shares = rng.uniform(zoom, 1) * np.exp(rng.uniform(-1, 1) * (1 - zoom) / 4 * np.array([1, -1]))
        w, h = (np.array([width, height]) * shares.clip(zoom, 1)).round().astype(int)
        x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
        source, target = (
            cv2.resize(np.ascontiguousarray(picture[y : y + h, x : x + w]), (width, height), interpolation=method)
            for picture, method in (
                (source, cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST_EXACT),
                (target, cv2.INTER_CUBIC),
            )
        )
    return source, target


class EpochBatches(Sampler):
    """Batches of (epoch, index) from `step` on, for ever: a new permutation in each epoch.

    An epoch has len(dataset) // batch_size batches; what is left over waits for another permutation.
    part: which part of each batch, and of how many, if several processes share one: (rank, processes).
    """

    def __init__(self, length: int, batch_size: int, seed: int = 0, step: int = 0, part: tuple[int, int] = (0, 1)):
        if batch_size < 1:
            raise DataError(f"a batch of {batch_size} pictures trains nothing. Give a --batch-size of 1 or more.")
        if length < batch_size:
            raise DataError(
                f"there are {length} pictures, fewer than one batch of {batch_size}. Add some, or lower --batch-size."
            )
        self.length, self.batch_size, self.seed, self.step = length, batch_size, seed, step
        self.steps_per_epoch = length // batch_size
        rank, processes = part
        self.part = slice(rank * batch_size // processes, (rank + 1) * batch_size // processes)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, batch = divmod(self.step, self.steps_per_epoch)
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
            for first in range(batch * self.batch_size, self.steps_per_epoch * self.batch_size, self.batch_size):
                yield [(epoch, int(index)) for index in order[first : first + self.batch_size][self.part]]
            epoch, batch = epoch + 1, 0
