"""Label maps of buildings: how they are read, and how they are composed by rule."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from gan_core.image import shrink, to_rgb
from gan_core.palette import FACADES, LEAST_NEAR

SIZE = 256
BACKGROUND, WALL, WINDOW, DOOR, HEAD, SILL, BALCONY, SHUTTER, ORNAMENT, CORNICE, COLUMN, SHOP = range(len(FACADES))


def read_label_map(picture: Image.Image) -> Image.Image:
    """Any label map in the colours of FACADES -> RGB, SIZE x SIZE, in exactly these colours.

    A map that is not square is centred on background. Raises PictureError if it is no label map.
    """
    labels = FACADES.read_map(to_rgb(picture))
    height, width = labels.shape
    if (height, width) != (SIZE, SIZE):
        scale = SIZE / max(width, height)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        scaled = np.asarray(Image.fromarray(labels).resize((w, h), Image.Resampling.NEAREST))
        labels = np.full((SIZE, SIZE), BACKGROUND, dtype=np.uint8)
        y, x = (SIZE - h) // 2, (SIZE - w) // 2
        labels[y : y + h, x : x + w] = scaled
    return FACADES.to_picture(labels)


def read_pair(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """A label map, and the photo beside it if the picture is a pair of equal halves, in either order; to look at.

    Raises PictureError as `read_label_map`.
    """
    picture = to_rgb(picture)
    width, height = picture.size
    if 1.9 < width / height < 2.1:
        halves = [picture.crop((0, 0, width // 2, height)), picture.crop((width - width // 2, 0, width, height))]
        shares = [FACADES.near_share(half) for half in halves]
        if min(shares) < LEAST_NEAR <= max(shares):
            photo, label_map = (halves[i] for i in np.argsort(shares))
            return read_label_map(label_map), shrink(photo, 2 * SIZE)
    return read_label_map(picture), None


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; right and bottom are outside of it."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2

    def columns(self, count: int) -> list["Box"]:
        """Divides it into equal columns."""
        step = self.width / count
        return [replace(self, left=self.left + i * step, right=self.left + (i + 1) * step) for i in range(count)]

    def inner(self, width: float, top: float, bottom: float) -> "Box":
        """A box in its middle; all numbers are shares of its own sides."""
        half = self.width * width / 2
        return Box(
            self.middle - half, self.top + self.height * top, self.middle + half, self.top + self.height * bottom
        )


def paint(labels: np.ndarray, box: Box, number: int) -> None:
    """Fills a box, cut at the edges of the map."""
    left, top, right, bottom = (max(0, round(side)) for side in (box.left, box.top, box.right, box.bottom))
    labels[top:bottom, left:right] = number


def random_facade(seed: int) -> Image.Image:
    """A plausible facade: storeys, axes of windows and a ground floor, all by rule. The same for the same seed."""
    rng = np.random.default_rng(seed)
    labels = np.full((SIZE, SIZE), BACKGROUND, dtype=np.uint8)
    margin = rng.choice([0, rng.uniform(6, 30)], p=[0.3, 0.7])
    roof, street = rng.uniform(8, 50), SIZE - rng.uniform(6, 20)
    building = Box(margin, roof, SIZE - rng.choice([0, margin]), street)
    paint(labels, building, WALL)

    storeys, axes = int(rng.integers(2, 6)), int(rng.integers(3, 7))
    cornice = rng.uniform(6, 16)
    paint(labels, replace(building, bottom=roof + cornice), CORNICE)
    ground = building.height * rng.uniform(0.2, 0.3)
    floors = replace(building, top=roof + cornice, bottom=street - ground)
    step = floors.height / storeys
    style = Storey.random(rng)
    noble = int(rng.integers(0, storeys)) if rng.random() < 0.6 else None  # the storey with the balconies
    for i in range(storeys):
        storey = replace(floors, top=floors.top + i * step, bottom=floors.top + (i + 1) * step)
        balconies = {axes // 2, (axes - 1) // 2} if i == noble and rng.random() < 0.7 else set(range(axes))
        for axis, cell in enumerate(storey.columns(axes)):
            style.paint(labels, cell, balcony=i == noble and axis in balconies)
        if style.band and i + 1 < storeys:
            paint(labels, replace(storey, top=storey.bottom - step * 0.06), CORNICE)
    paint(labels, Box(building.left, floors.bottom - 3, building.right, floors.bottom + rng.uniform(2, 6)), CORNICE)
    if rng.random() < 0.3:
        for cell in replace(floors, bottom=floors.bottom - 4).columns(axes)[1:]:
            paint(labels, Box(cell.left - 3, cell.top, cell.left + 3, cell.bottom), COLUMN)
    paint_ground_floor(labels, replace(building, top=floors.bottom + 6), axes, rng)
    return FACADES.to_picture(labels)


@dataclass(frozen=True)
class Storey:
    """What all windows of a building have in common; lengths are shares of the window's cell."""

    width: float
    top: float
    bottom: float
    head: bool
    sill: bool
    shutters: bool
    twin: bool
    band: bool

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Storey":
        head, sill, shutters, twin, band = (rng.random(5) < (0.5, 0.6, 0.3, 0.2, 0.4)).tolist()
        return cls(
            rng.uniform(0.34, 0.52), rng.uniform(0.2, 0.28), rng.uniform(0.74, 0.84), head, sill, shutters, twin, band
        )

    def paint(self, labels: np.ndarray, cell: Box, balcony: bool) -> None:
        window = cell.inner(self.width, self.top, self.bottom)
        if self.twin:
            left, right = window.columns(2)
            paint(labels, left.inner(0.84, 0, 1), WINDOW)
            paint(labels, right.inner(0.84, 0, 1), WINDOW)
        else:
            paint(labels, window, WINDOW)
        if self.shutters:
            leaf = max(2, cell.width * 0.1)
            paint(labels, replace(window, left=window.left - leaf, right=window.left), SHUTTER)
            paint(labels, replace(window, left=window.right, right=window.right + leaf), SHUTTER)
        if self.head:
            paint(labels, cell.inner(self.width * 1.35, self.top - 0.1, self.top), HEAD)
        if balcony:
            paint(labels, cell.inner(0.8, self.bottom - 0.16, self.bottom + 0.08), BALCONY)
        elif self.sill:
            paint(labels, cell.inner(self.width * 1.25, self.bottom, self.bottom + 0.08), SILL)


def paint_ground_floor(labels: np.ndarray, floor: Box, axes: int, rng: np.random.Generator) -> None:
    """Shops or windows, and one door."""
    cells = floor.columns(axes)
    entrance = int(rng.choice([axes // 2, 0, axes - 1], p=[0.7, 0.15, 0.15]))
    shops = rng.random() < 0.5
    for axis, cell in enumerate(cells):
        if axis == entrance:
            paint(labels, cell.inner(0.5, 0.15, 1), DOOR)
            if rng.random() < 0.5:
                paint(labels, cell.inner(0.8, 0, 0.15), ORNAMENT)
        elif shops:
            paint(labels, cell.inner(0.84, 0.15, 0.98), SHOP)
        else:
            paint(labels, cell.inner(0.5, 0.2, 0.72), WINDOW)
