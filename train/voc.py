"""Photos and class maps: found in whatever form people have them, prepared, and read for training.

    python -m train.prepare voc SOURCE OUT

SOURCE is VOCdevkit as it is given out; a folder of photos and masks, `images/` and `masks/` or one name a pair; or a
data set with two image columns, on the Hugging Face Hub or in a folder of its files. What is written, and trained on:

    OUT/{train,val}/photos/NAME.jpg     shorter side at most 256
    OUT/{train,val}/labels/NAME.png     of the same size; palette PNG of class numbers, 255 = void

Everingham et al.: The Pascal Visual Object Classes Challenge (IJCV 2010); Hariharan et al.: Semantic Contours from
Inverse Detectors (ICCV 2011), whose maps are what `trainaug.txt` adds to `train.txt`.
"""

import io
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.image import MAX_PIXELS, PictureError, check_size, fit, open_picture, side_by_side, to_tensor
from gan_core.palette import LEAST_NEAR, VOC, Palette
from gan_core.segmentation import VOID
from train.data import PICTURES, DataError, Key, evenly, list_pictures, read_picture
from train.lock import locked
from train.prepare import (
    ASPECT,
    TEST_NAMES,
    choose_split,
    open_hub,
    read_cell,
    report,
    split_of_row,
    work_through,
    write_picture,
)

SHORT_SIDE = 256
LISTS = "ImageSets/Segmentation"
MASK_NAMES = {"masks", "mask", "labels", "label", "annotations", "annotation", "segmentation", "SegmentationClass"}
WITH_VOID = Palette((*VOC.names, "void"), (*VOC.colors, VOC.void))
CACHED = 8_000  # pictures that are kept decoded in memory, at about 0.3 MB each

Job = tuple[str, str, object, object]  # split, name, file of the photo, file of the mask


# --- Finding the pairs -------------------------------------------------------------------------------


def find_pairs(source: str, train_list: str, val_share: float, seed: int) -> dict[str, Job]:
    """The pairs in a source of any of the three forms. Raises DataError if it has none."""
    folder = Path(source)
    for above in ("", "*/", "*/*/"):  # VOC2012 itself, VOCdevkit, or the folder the archive was unpacked in
        for file in sorted(folder.glob(f"{above}{LISTS}/val.txt")):
            return find_voc(file.parents[2], train_list)
    if folder.is_dir() and any(path.suffix.lower() in PICTURES for path in folder.rglob("*")):
        return find_folder(folder, val_share, seed)
    return find_hub(source, val_share, seed)


def find_voc(root: Path, train_list: str = "") -> dict[str, Job]:
    """The official layout. train_list: "trainaug", "train"; by default the longer one that is there.

    The lists are read here: torchvision's VOCSegmentation knows no trainaug. What is in val.txt never gets into
    training, whatever another list says.
    """
    val = read_list(root / LISTS / "val.txt")
    names = [train_list] if train_list else ["trainaug", "train"]
    file = next((root / LISTS / f"{name}.txt" for name in names if (root / LISTS / f"{name}.txt").is_file()), None)
    if file is None:
        raise DataError(f"{root / LISTS} has no {' or '.join(f'{name}.txt' for name in names)}.")
    held_out = set(val)
    train = [name for name in read_list(file) if name not in held_out]
    jobs = {}
    for split, stems in (("train", train), ("val", val)):
        for stem in stems:
            # SBD's maps are given out in a folder of their own, or mixed into VOC's.
            masks = [root / folder / f"{stem}.png" for folder in ("SegmentationClass", "SegmentationClassAug")]
            mask = next((path for path in masks if path.is_file()), masks[0])
            jobs[stem] = (split, stem, root / "JPEGImages" / f"{stem}.jpg", mask)
    return jobs


def read_list(file: Path) -> list[str]:
    """The stems in a list of names; or of paths, as some lists of trainaug have it."""
    return [Path(line.split()[0]).stem for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def find_folder(folder: Path, val_share: float, seed: int) -> dict[str, Job]:
    """Photos and masks of one name, in folders called train and val, if they are split."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in list_pictures(folder):
        parts = path.relative_to(folder).parts[:-1]
        split = "val" if TEST_NAMES & set(parts) else "train" if "train" in parts else ""
        groups.setdefault((split, path.stem), []).append(path)
    jobs = {}
    for (split, stem), files in groups.items():
        if len(files) != 2:
            raise DataError(f"{files[0]} is one of {len(files)} files called {stem}; each photo needs just one mask.")
        photo, mask = sorted(files, key=partial(looks_like_a_mask, source=folder))
        if looks_like_a_mask(photo, folder) == looks_like_a_mask(mask, folder):
            raise DataError(
                f"which is the mask, {photo} or {mask}? Put the photos into images/ and the masks into masks/."
            )
        jobs[str(photo.relative_to(folder))] = (split or choose_split(stem, val_share, seed), stem, photo, mask)
    return jobs


def looks_like_a_mask(path: Path, source: Path) -> bool:
    """By the name of its folder in the source, or as a palette PNG."""
    if MASK_NAMES & set(path.relative_to(source).parts[-3:-1]):
        return True
    try:
        with Image.open(path) as picture:
            return picture.format == "PNG" and picture.mode == "P"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def find_hub(source: str, val_share: float, seed: int) -> dict[str, Job]:
    """The rows of a data set; the mask is the image column that is called so, or the second one."""
    found = open_hub(source)
    jobs = {}
    for split, table in found.items():
        photo, mask = sorted(table.column_names, key=lambda name: name.lower() in MASK_NAMES)
        for i in range(len(table)):
            name = f"{split}_{i:05d}"
            chosen = split_of_row(split, found, name, val_share, seed)
            jobs[name] = (chosen, name, (table, i, photo), (table, i, mask))
    return jobs


# --- Preparing them ----------------------------------------------------------------------------------


def read_mask(file) -> np.ndarray:
    """Classes `(H, W)` of a mask, 255 where void: an index PNG as it is, an RGB one by the nearest colour.

    file: a path or the bytes of a file. Raises PictureError if it is no mask.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
            check_size(picture, MAX_PIXELS)
            if picture.mode in ("P", "L"):
                numbers = np.array(ImageOps.exif_transpose(picture), dtype=np.uint8)
                wrong = numbers[(numbers >= len(VOC)) & (numbers != VOID)]
                if wrong.size:
                    raise PictureError(f"its mask has class {wrong[0]}; use only 0 to {len(VOC) - 1}, and 255")
                return numbers
    except PictureError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"its mask cannot be read ({error}); save it once more as palette PNG") from error
    picture = open_picture(file)
    if WITH_VOID.near_share(picture) < LEAST_NEAR:
        raise PictureError("its mask is in colours of no class; paint it in VOC's colours, or save it as palette PNG")
    labels = WITH_VOID.to_labels(picture)
    labels[labels == len(VOC)] = VOID
    return labels


def prepare_pair(job: Job, out: Path) -> dict:
    """One photo and its mask -> files to train on; what became of them as a record."""
    cv2.setNumThreads(1)
    split, name, photo_file, mask_file = job
    try:
        photo, labels = open_picture(read_cell(photo_file)), read_mask(read_cell(mask_file))
        width, height = photo.size
        if abs(width * labels.shape[0] / (height * labels.shape[1]) - 1) > ASPECT:
            raise PictureError(
                f"it is {width}x{height} and its mask {labels.shape[1]}x{labels.shape[0]}; scale both alike"
            )
    except PictureError as error:
        return {"skipped": str(error)}
    scale = min(1.0, SHORT_SIDE / min(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != photo.size:
        photo = photo.resize(size, Image.Resampling.LANCZOS)
    if size != labels.shape[::-1]:
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    write_picture(out / split / "labels" / f"{name}.png", VOC.to_indexed(labels), optimize=True)
    write_picture(out / split / "photos" / f"{name}.jpg", photo, quality=95, subsampling=0)
    return {"split": split, "name": name}


def prepare_voc(
    source: str, out: Path, train_list: str = "", val_share: float = 0.2, seed: int = 0, workers: int | None = None
) -> None:
    """See the module. Raises DataError if nothing in source can be used."""
    jobs = find_pairs(source, train_list, val_share, seed)
    with locked(out):
        kept = work_through(jobs, partial(prepare_pair, out=out), out, workers)
        if not kept:
            reason = (out / "skipped.txt").read_text(encoding="utf-8").splitlines()[0]
            raise DataError(f"none of the {len(jobs)} pairs in {source} can be used. The first: {reason}.")
        chosen = [kept[i] for i in evenly(len(kept), 24)]
        photos = [open_picture(out / record["split"] / "photos" / f"{record['name']}.jpg") for record in chosen]
        masks = [open_picture(out / record["split"] / "labels" / f"{record['name']}.png") for record in chosen]
        sheet = side_by_side(*([fit(picture, 192) for picture in side] for side in (photos, masks)))
        write_picture(out / "contact_sheet.png", sheet)
        report(out, kept, "photos")


# --- Reading them for training -----------------------------------------------------------------------


@dataclass(frozen=True)
class Views:
    """How a picture is looked at, another time differently.

    size: side of the square views; from epoch grow_epoch on, grown_size.
    least, most: the photo's shorter side becomes this many times the size, before the view is cut out.
    turn: degrees, either way. colour: strength of changes of light, contrast and colour; 0 for none.
    paste: share of the views onto which the objects of another picture are pasted (Ghiasi et al.: Simple
        Copy-Paste, arXiv 2012.07177); rare classes are drawn more often than they are met. That picture's shorter
        side becomes paste_least times the size or more: things are small in the distance.
    """

    size: int = 128
    grown_size: int = 224
    grow_epoch: int = 0
    least: float = 0.75
    most: float = 1.75
    turn: float = 10.0
    colour: float = 1.0
    paste: float = 0.5
    paste_least: float = 0.375

    def size_in(self, epoch: int) -> int:
        return self.grown_size if epoch >= self.grow_epoch else self.size


class LabelledPhotos(Dataset):
    """What `train.prepare voc` has written: DIR/photos and DIR/labels.

    views: None for the picture as it is, size x size: squeezed into it if `square`, else cut out of its middle.
    Items: photo `(3, S, S)` in [-1, 1] and classes `(S, S)`, int64, 255 where void.
    """

    def __init__(
        self, folder: str | Path, size: int = 224, square: bool = False, views: Views | None = None, seed: int = 0
    ):
        folder = Path(folder)
        self.size, self.square, self.views, self.seed = size, square, views, seed
        photos = {path.stem: path for path in list_pictures(folder / "photos")}
        labels = {path.stem: path for path in list_pictures(folder / "labels")}
        odd = sorted(photos.keys() ^ labels.keys())
        if odd:
            raise DataError(
                f"{folder}: {len(odd)} picture(s) without a partner in photos/ or labels/, such as {odd[0]}. "
                "Run `python -m train.prepare voc` again."
            )
        self.files = [(photos[name], labels[name]) for name in sorted(photos)]
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.files)

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Photo `(H, W, 3)` and classes `(H, W)`, uint8, as they are on disk."""
        if index in self._cache:
            return self._cache[index]
        photo_file, labels_file = self.files[index]
        photo, labels = np.asarray(read_picture(photo_file)), self.labels(index)
        if photo.shape[:2] != labels.shape:
            raise DataError(
                f"{photo_file} is {photo.shape[1]}x{photo.shape[0]}, {labels_file} {labels.shape[1]}x{labels.shape[0]}."
                " Run `python -m train.prepare voc` again, into a new folder."
            )
        if len(self) <= CACHED:
            self._cache[index] = photo, labels
        return photo, labels

    def labels(self, index: int) -> np.ndarray:
        try:
            return read_mask(self.files[index][1])
        except PictureError as error:
            raise PictureError(f"{self.files[index][1]}: {error}. Run `python -m train.prepare voc` again.") from error

    def check(self) -> None:
        """Reads all pictures. Raises PictureError or DataError for the first one that cannot be used."""
        for i in range(len(self)):
            self.pair(i)

    @cached_property
    def counts(self) -> np.ndarray:
        """Pixels of each class in each picture, `(pictures, 21)`; void is not counted, nor what cannot be read."""
        counts = np.zeros((len(self), len(VOC)), dtype=np.int64)
        for i, row in enumerate(counts):
            with suppress(PictureError):  # it is named when its turn comes
                row[:] = np.bincount(self.labels(i).ravel(), minlength=256)[: len(VOC)]
        return counts

    @cached_property
    def _holders(self) -> list[np.ndarray]:
        """For each class but the background that is there: the pictures that hold it."""
        return [np.flatnonzero(held) for held in (self.counts[:, 1:] > 0).T if held.any()]

    def partner(self, rng: np.random.Generator) -> int:
        """A picture with something to paste: first a class is drawn, by the root of its pictures, then one of them."""
        odds = np.sqrt([len(pictures) for pictures in self._holders])
        return int(rng.choice(self._holders[rng.choice(len(odds), p=odds / odds.sum())]))

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        epoch, index = key
        if self.views is None:
            photo, labels = still_view(*self.pair(index), self.size, self.square)
        else:
            rng = np.random.default_rng((self.seed, epoch, index))
            size = self.views.size_in(epoch)
            photo, labels = random_view(*self.pair(index), size, self.views, rng)
            if rng.random() < self.views.paste and self._holders:
                smaller = replace(self.views, least=self.views.paste_least)
                paste(photo, labels, *random_view(*self.pair(self.partner(rng)), size, smaller, rng))
            photo = vary_colours(photo, self.views.colour, rng)
        return to_tensor(photo)[0], torch.from_numpy(labels.astype(np.int64))


def still_view(photo: np.ndarray, labels: np.ndarray, size: int, square: bool) -> tuple[np.ndarray, np.ndarray]:
    """The whole picture squeezed into size x size, or the middle of it; labels by nearest neighbour."""
    height, width = labels.shape
    if not square:
        side = min(height, width)
        y, x = (height - side) // 2, (width - side) // 2
        photo, labels = photo[y : y + side, x : x + side], labels[y : y + side, x : x + side]
    smaller = size < min(photo.shape[:2])
    photo = cv2.resize(photo, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return photo, cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def random_view(
    photo: np.ndarray, labels: np.ndarray, size: int, views: Views, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A square of the picture, scaled, turned, stretched a little and mirrored; both move alike.

    What lies beyond the picture is its mirror image, and void in the labels.
    """
    height, width = labels.shape
    scale = size / min(height, width) * math.exp(rng.uniform(math.log(views.least), math.log(views.most)))
    angle = math.radians(rng.uniform(-views.turn, views.turn))
    stretch, mirror = math.exp(rng.uniform(-0.1, 0.1)), rng.choice([-1, 1])
    half = size / 2 / scale
    centre = [rng.uniform(*sorted((half, side - half))) for side in (width, height)]
    parts = 2 ** math.ceil(math.log2(2 / 3 / scale)) if scale < 2 / 3 else 1
    if parts > 1:  # else pixels would be left out, and fine texture would flicker
        shape = max(1, width // parts), max(1, height // parts)
        ratio = shape[0] / width, shape[1] / height
        photo = cv2.resize(photo, shape, interpolation=cv2.INTER_AREA)
    else:
        ratio = 1.0, 1.0
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = scale * turn @ np.diag([stretch * mirror, 1 / stretch])
    pictures = []
    for picture, shares, method, border in (
        (photo, ratio, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101),
        (labels, (1.0, 1.0), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT),
    ):
        matrix = linear @ np.diag([1 / share for share in shares])  # from pixels of this picture
        # Coordinates are those of the corners of pixels; OpenCV's are those of their centres.
        shift = size / 2 - linear @ np.array(centre) + matrix @ [0.5, 0.5] - 0.5
        matrix = np.column_stack([matrix, shift])  # (2, 3)
        view = cv2.warpAffine(picture, matrix, (size, size), flags=method, borderMode=border, borderValue=VOID)
        pictures.append(view)
    return tuple(pictures)


def paste(photo: np.ndarray, labels: np.ndarray, other_photo: np.ndarray, other_labels: np.ndarray) -> None:
    """Puts what is no background in the other picture onto this one, void borders included."""
    things = (other_labels != 0) & (other_labels != VOID)
    if not things.any():
        return
    # Void around a thing is its border; void elsewhere is the margin of the view, and no thing.
    around = cv2.dilate(things.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    things |= around & (other_labels == VOID)
    photo[things] = other_photo[things]
    labels[things] = other_labels[things]


def vary_colours(photo: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Other light, contrast, tint and saturation; one in ten becomes gray. uint8 `(H, W, 3)` in and out."""
    if not strength:
        return photo
    contrast, saturation = np.exp(strength * rng.uniform(-0.35, 0.35, 2))
    light, tint = strength * rng.uniform(-35, 35), np.exp(strength * rng.uniform(-0.12, 0.12, 3))
    if rng.random() < 0.1 * strength:
        saturation = 0.0
    # One matrix does it all: towards or away from gray, then gain and offset.
    matrix = saturation * np.eye(3) + (1 - saturation) * np.array([0.299, 0.587, 0.114])
    matrix = contrast * tint[:, None] * matrix
    offset = np.full((3, 1), 128 * (1 - contrast) + light)
    return cv2.transform(photo, np.hstack([matrix, offset]))
