"""The one place where pictures become tensors and back, and where hostile uploads stop.

Pictures are `PIL.Image`. Tensors are float32 `(N, C, H, W)` in [-1, 1]. Two others convert between the two: the
VAE-GAN's views, for networks that want [0, 1] (train/pictures.py), and exported graphs, within themselves (export.py).
"""

import base64
import binascii
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

MAX_PIXELS = 50_000_000  # a 50-megapixel photo; more is a mistake or an attack
MAX_CANVAS_PIXELS = 2048 * 2048
MAX_DATA_URL = 4_000_000  # characters; a 1024x1024 canvas of noise stays below

ORIENTATION = 0x0112  # in EXIF: how a photo must be turned; 1 is upright
DATA_URL = re.compile(r"data:image/(png|jpeg|webp);base64,", re.ASCII)
PHOTO_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


class PictureError(ValueError):
    """The picture cannot be used; the message is meant for the person who brought it."""


def open_picture(file, max_pixels: int = MAX_PIXELS, draft: int | None = 2048) -> Image.Image:
    """Opens an uploaded picture, upright and in RGB; of an animation the first picture.

    file: a path, the bytes of a file, or a file object. draft: pixels a side that are enough; a JPEG of more than
    twice as many is decoded at a fraction of its size. None: all of it.
    Raises PictureError, with a remedy, if it is no picture, is broken, or has more than max_pixels.
    """
    if isinstance(file, (bytes, bytearray)):
        file = io.BytesIO(file)
    name = f"{Path(file).name!r}" if isinstance(file, (str, Path)) else "This file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=PHOTO_FORMATS)
            check_size(picture, max_pixels)
            if draft is not None:
                picture.draft("RGB", (draft, draft))
            picture.load()
            picture = to_rgb(picture)
            picture.info.clear()  # the turn has been made; place and camera are nobody's business, nor is broken EXIF
            return picture
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise PictureError(f"{name} does not exist. Check the path.") from error
    except PermissionError as error:
        raise PictureError(f"{name} may not be read. Change its permissions, or use a copy.") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} is too large. Scale it down to at most 50 megapixels.") from error
    except Image.UnidentifiedImageError as error:
        raise PictureError(
            f"{name} is not a picture that can be read, whatever its name says. "
            "Save it as PNG, JPEG or WebP and try again."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise PictureError(f"{name} is damaged or cut short. Save it once more and try again.") from error


def check_size(picture: Image.Image, max_pixels: int = MAX_PIXELS) -> None:
    """Raises PictureError if the picture has no pixels or more than max_pixels."""
    width, height = picture.size
    if width < 1 or height < 1:
        raise PictureError(f"The picture is {width}x{height}: it has no pixels.")
    if width * height > max_pixels:
        raise PictureError(
            f"The picture is {width}x{height}. Scale it down to at most {max_pixels / 1e6:.0f} megapixels."
        )


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any PIL picture as upright RGB: EXIF rotation applied, transparency on white, 16 bits scaled to 8."""
    check_size(picture)
    # A picture fresh from a file becomes a plain one, without the file; what is plain and upright needs no copy.
    if type(picture) is not Image.Image or picture.getexif().get(ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        full = 65535.0 if values.max(initial=0) > 255 else 255.0
        return Image.fromarray((values.clip(0, full) * (255.0 / full)).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture).convert("RGB")
    return picture.convert("RGB")


def to_gray(picture: Image.Image) -> Image.Image:
    """Any PIL picture as upright "L", transparency on white: strokes on paper."""
    return to_rgb(picture).convert("L")


def read_data_url(text: str) -> Image.Image:
    """Decodes what a canvas sends, a `data:image/...;base64,` text, into an RGB picture on white.

    Raises PictureError if it is empty, too long, not base64 or not a picture.
    """
    if not isinstance(text, str) or not text:
        raise PictureError("The canvas sent no drawing. Draw a line, or reload the page.")
    if len(text) > MAX_DATA_URL:
        raise PictureError(
            f"The canvas sent {len(text) / 1e6:.1f} million characters; at most {MAX_DATA_URL / 1e6:.0f} "
            "million are read. Clear the canvas and draw again."
        )
    head = DATA_URL.match(text)
    if not head:
        raise PictureError("The canvas sent something other than a picture. Reload the page.")
    try:
        data = base64.b64decode(text[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureError("The drawing was damaged on its way here. Draw on to send it again.") from error
    return open_picture(data, MAX_CANVAS_PIXELS)


def to_data_url(picture: Image.Image, format: str = "JPEG", **options) -> str:
    """Encodes a picture as a `data:` URL. options: Pillow's, such as quality=90."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scales to (width, height); of a large picture no more is read than that needs."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def shrink(picture: Image.Image, longest: int) -> Image.Image:
    """Scales down, if need be, so that no side has more pixels than `longest`, by averaging blocks first."""
    scale = min(1.0, longest / max(picture.size))
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.0)


def fit(picture: Image.Image, size: int, paper: str | int = "white") -> Image.Image:
    """Scales to fit a square of `size` pixels, centred; the margins get the colour of paper."""
    if picture.size == (size, size):
        return picture
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = Image.new(picture.mode, (size, size), paper)
    square.paste(picture.resize((width, height), Image.Resampling.LANCZOS), ((size - width) // 2, (size - height) // 2))
    return square


def crop_square(picture: Image.Image, size: int) -> Image.Image:
    """The largest centred square of a picture, scaled to `size` pixels."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    if (picture.width, picture.height) == (size, size):
        return picture
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.LANCZOS, box)


def to_tensor(array: np.ndarray | Image.Image) -> Tensor:
    """uint8 `(H, W)` or `(H, W, C)`, or such a picture -> float32 `(1, C, H, W)` in [-1, 1]."""
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[:, :, None]
    # NumPy, not torch: threads that wait for each other would take longer than one that does it, on a busy machine.
    values = np.array(array.transpose(2, 0, 1), dtype=np.float32, order="C")
    values /= 127.5
    values -= 1
    return torch.from_numpy(values).unsqueeze_(0)


def to_array(tensor: Tensor) -> np.ndarray:
    """float `(N, C, H, W)` in [-1, 1] -> uint8 `(N, H, W, C)`; values outside are clipped."""
    values = tensor.detach().float().cpu().numpy() + 1
    values *= 127.5
    np.rint(values, out=values).clip(0, 255, out=values)
    return np.ascontiguousarray(values.astype(np.uint8).transpose(0, 2, 3, 1))


def to_pictures(tensor: Tensor) -> list[Image.Image]:
    """float `(N, 1 or 3, H, W)` in [-1, 1] -> N pictures, "L" or RGB."""
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in to_array(tensor)]


def tile(pictures: list[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """A contact sheet of pictures of one size, row by row."""
    if not pictures:
        raise ValueError("there is no picture to tile")
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, ((i % columns) * (width + gap), (i // columns) * (height + gap)))
    return sheet


def side_by_side(*sides: Sequence[Image.Image], columns: int = 8) -> Image.Image:
    """A contact sheet of pictures that belong together, such as source, generated and real, one below the other."""
    columns = min(columns, len(sides[0]))
    pictures = []
    for first in range(0, len(sides[0]), columns):
        for side in sides:
            row = list(side[first : first + columns])
            pictures += row + [Image.new("RGB", row[0].size, "white")] * (columns - len(row))
    return tile(pictures, columns)
