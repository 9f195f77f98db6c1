"""Small pictures, all of them in memory: 9,000 of 96x96 are 250 MB, and reading them once takes seconds."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_core.image import PictureError
from train.data import MOST_IN_A_ROW, DataError, Key, list_pictures, read_picture


class PicturesInMemory(Dataset):
    """Pictures of one size; half of them mirrored, and turned a little, another way in each epoch.

    rotation: the largest angle in degrees. rotation_chance: the share that is turned. reflect: what comes into the
    picture at its corners is its own reflection; else black.
    Items: one picture `(3, size, size)` in [0, 1], alone in a tuple. As in `train.data`, an item depends on nothing
    but (seed, epoch, index). stand_ins: for a picture that cannot be read, which is named, stands the next one.

    Raises DataError if a picture has another size, PictureError if one cannot be read.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int,
        seed: int = 0,
        rotation: float = 0.0,
        rotation_chance: float = 1.0,
        reflect: bool = True,
        stand_ins: bool = False,
    ):
        self.seed, self.rotation, self.rotation_chance, self.reflect = seed, rotation, rotation_chance, reflect
        files = list_pictures(Path(folder))
        self.pictures = np.empty((len(files), size, size, 3), dtype=np.uint8)
        readable: list[int] = []
        for i, path in enumerate(files):
            try:
                picture = read_picture(path)
            except PictureError as error:
                if not stand_ins:
                    raise
                print(f"warning: {error} Another picture stands in for it.")
                if i - (readable[-1] if readable else -1) == MOST_IN_A_ROW:
                    raise DataError(f"{MOST_IN_A_ROW} pictures in a row cannot be read. The last: {error}") from error
                continue
            if picture.size != (size, size):
                raise DataError(
                    f"{path} is {picture.width}x{picture.height}, not {size}x{size}. "
                    "Run `python -m train.prepare anime` on the folder first."
                )
            self.pictures[i] = np.asarray(picture)
            readable.append(i)
        if not readable:
            raise DataError(f"none of the {len(files)} pictures in {folder} can be read.")
        # The number of pictures stays what it was, and with it their order, if one is damaged while a run pauses.
        following = np.searchsorted(readable, np.arange(len(files))) % len(readable)
        self.pictures = self.pictures[np.array(readable)[following]] if len(readable) < len(files) else self.pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def plain(self, indices: np.ndarray | slice) -> Tensor:
        """Some pictures as they are: `(N, 3, size, size)` in [0, 1]."""
        return as_unit(self.pictures[indices])

    def __getitem__(self, key: Key) -> tuple[Tensor]:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        picture = self.pictures[index]
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        if self.rotation and rng.random() < self.rotation_chance:
            picture = rotate(np.ascontiguousarray(picture), rng.uniform(-self.rotation, self.rotation), self.reflect)
        return (as_unit(picture[None])[0],)


def as_unit(pixels: np.ndarray) -> Tensor:
    """uint8 `(N, H, W, 3)` -> float32 `(N, 3, H, W)` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


def rotate(picture: np.ndarray, degrees: float, reflect: bool) -> np.ndarray:
    """Turns a picture `(H, W, 3)` about its middle. Lanczos keeps the lines sharp: linear would take a quarter of
    their gradient energy, and a generator would learn to draw what is left."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    border = cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=border)
