"""Named class colours; a picture of flat colours <-> a map of class numbers.

FACADES: the twelve classes of the CMP facade base (Tylecek and Sara, GCPR 2013) in the colours in which
pix2pix's authors gave the set out. Its own names, where ours are plainer: window head "cornice", shutter
"blind", ornament "deco", cornice "molding", column "pillar".

VOC: the classes of Pascal VOC 2012; the colours come from the bits of the class number, as in the
devkit's VOClabelcolormap.m. What is 255 there, "void", is no class: see `Palette.void`.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from PIL import Image

from gan_core.image import PictureError, to_rgb

EXACT = 2  # levels from a class colour, up to which a pixel was painted in it, not smeared into it
NEAR = 40  # levels from a class colour, up to which a pixel is surely of that class
SMEARED = 90  # levels, up to which it may well be
LEAST_NEAR = 0.25  # of the pixels of a label map, however smeared; of a photo hardly any are
LABEL_SIDE = 1024  # larger maps are looked at in this size: their flat areas lose nothing
RGB_SPACE = np.eye(3, dtype=np.float32)
# RGB -> brightness and two hues, as in JPEG, which keeps brightness sharp and smears hue: hence the larger weight.
JPEG_SPACE = np.array(
    [[0.299 * 2.2, 0.587 * 2.2, 0.114 * 2.2], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], dtype=np.float32
)

Color = tuple[int, int, int]


def pixels_of(picture: Image.Image) -> np.ndarray:
    """RGB `(H, W, 3)`; of a picture larger than LABEL_SIDE some pixels only, and no new colours between them."""
    picture = to_rgb(picture)
    scale = min(1.0, LABEL_SIDE / max(picture.size))
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return np.asarray(picture if size == picture.size else picture.resize(size, Image.Resampling.NEAREST))


@dataclass(frozen=True)
class Palette:
    """Class `i` is called `names[i]` and painted in `colors[i]`. void: colour of what belongs to no class."""

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    void: Color | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _table(self) -> np.ndarray:
        return np.array(self.colors, dtype=np.uint8)  # (classes, 3)

    def to_labels(self, picture: Image.Image) -> np.ndarray:
        """The class of the nearest colour: RGB picture -> uint8 `(H, W)`."""
        return self._distances(np.asarray(to_rgb(picture))).argmin(axis=-1).astype(np.uint8)

    def read_map(self, picture: Image.Image) -> np.ndarray:
        """As `to_labels`, for a map that was smeared by JPEG or by scaling.

        Between two flat areas a smear runs through the colours of other classes. So a pixel can only be of a
        class that shows itself clearly within three pixels of it, or has just its colour.
        Raises PictureError if the picture is no map in these colours.
        """
        pixels = pixels_of(picture)
        labels = self._painted(pixels)
        if (labels < len(self)).all():
            return labels
        distances = self._distances(pixels)
        far = distances.min(axis=-1) > NEAR**2
        if far.mean() > 1 - LEAST_NEAR:
            stranger = self._commonest(pixels[far])
            raise PictureError(
                f"{far.mean():.0%} of this picture is in colours of no class, such as #{bytes(stranger).hex()}, so "
                "it is no label map. Paint it in the class colours; if it is a photo, give its label map instead."
            )
        if not far.any():
            return distances.argmin(axis=-1).astype(np.uint8)
        distances = self._distances(pixels, JPEG_SPACE)
        labels, nearest = distances.argmin(axis=-1), distances.min(axis=-1)
        for number in range(len(self)):
            seen = ((labels == number) & (nearest <= SMEARED**2)).astype(np.uint8)
            seen = cv2.morphologyEx(seen, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))  # a smear is thinner
            around = cv2.dilate(seen, np.ones((7, 7), np.uint8)).astype(bool)
            exact = (labels == number) & (nearest <= EXACT**2)
            distances[~(around | exact), number] += 1e6
        return distances.argmin(axis=-1).astype(np.uint8)

    def near_share(self, picture: Image.Image) -> float:
        """Share of the pixels that are close to a class colour: high for a label map, low for a photo."""
        return float((self._distances(pixels_of(picture)).min(axis=-1) <= NEAR**2).mean())

    def to_picture(self, labels: np.ndarray) -> Image.Image:
        """Class numbers `(H, W)` -> RGB picture. 255 becomes void, where the palette has one."""
        labels = np.asarray(labels)
        table = np.zeros((256, 3), dtype=np.uint8)
        table[: len(self)] = self._table
        known = (labels >= 0) & (labels < len(self))
        if self.void is not None:
            table[255] = self.void
            known |= labels == 255
        if not known.all():
            raise ValueError(f"class {labels[~known].flat[0]} is not one of the {len(self)} classes")
        return Image.fromarray(table[labels])

    def to_indexed(self, labels: np.ndarray) -> Image.Image:
        """Class numbers `(H, W)` -> "P" picture: the numbers themselves, with the colours to look at, as VOC's PNGs."""
        picture = Image.fromarray(np.asarray(labels, dtype=np.uint8))
        table = np.zeros((256, 3), dtype=np.uint8)
        table[: len(self)] = self._table
        if self.void is not None:
            table[255] = self.void
        picture.putpalette(table.tobytes())
        return picture

    def _painted(self, pixels: np.ndarray) -> np.ndarray:
        """The class whose very colour a pixel has, uint8 `(H, W)`; 255 where it is another one.

        A tenth of the time that distances take, on a map that is being painted with each movement of a pointer.
        """
        codes, own = (
            np.asarray(Image.fromarray(colors).convert("RGBX")).view(np.uint32)[..., 0]
            for colors in (pixels, self._table[None])
        )
        labels = np.full(codes.shape, 255, dtype=np.uint8)
        for number, code in enumerate(own[0]):
            labels[codes == code] = number
        return labels

    def _distances(self, pixels: np.ndarray, space: np.ndarray = RGB_SPACE) -> np.ndarray:
        """uint8 `(H, W, 3)` -> squared distance to the colour of each class, float32 `(H, W, classes)`."""
        table = self._table.astype(np.float32) @ space.T
        flat = pixels.reshape(-1, 3).astype(np.float32) @ space.T
        # |p - c|^2 = |p|^2 - 2 p c + |c|^2
        distances = flat @ (-2 * table.T) + (table**2).sum(axis=1) + (flat**2).sum(axis=1, keepdims=True)
        return distances.reshape(*pixels.shape[:2], len(self))

    @staticmethod
    def _commonest(pixels: np.ndarray) -> np.ndarray:
        codes = pixels.reshape(-1, 3).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
        colors, counts = np.unique(codes, return_counts=True)  # of rows it would take ten times as long
        code = int(colors[counts.argmax()])
        return np.array([code >> 16, code >> 8 & 255, code & 255], dtype=np.uint8)


def voc_colors(count: int) -> tuple[Color, ...]:
    """Bit k of the class number's octal digits goes to bit 7 - k of red, green and blue."""
    colors = np.zeros((count, 3), dtype=int)
    numbers = np.arange(count)
    for level in range(8):
        for channel in range(3):
            colors[:, channel] |= ((numbers >> (3 * level + channel)) & 1) << (7 - level)
    return tuple(tuple(color) for color in colors.tolist())


FACADES = Palette(
    names=(
        "background",
        "wall",
        "window",
        "door",
        "window head",
        "sill",
        "balcony",
        "shutter",
        "ornament",
        "cornice",
        "column",
        "shop",
    ),
    colors=(
        (0, 0, 222),
        (0, 48, 255),
        (0, 128, 255),
        (0, 208, 255),
        (32, 255, 224),
        (112, 255, 144),
        (192, 255, 64),
        (255, 240, 0),
        (255, 160, 0),
        (255, 80, 0),
        (255, 0, 0),
        (176, 0, 0),
    ),
)

VOC = Palette(
    names=(
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "dining table",
        "dog",
        "horse",
        "motorbike",
        "person",
        "potted plant",
        "sheep",
        "sofa",
        "train",
        "tv monitor",
    ),
    colors=voc_colors(21),
    void=voc_colors(256)[255],
)
