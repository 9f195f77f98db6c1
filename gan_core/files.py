"""What commands read and write: pictures in files, in folders and in pipes, where `-` is stdin or stdout."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from gan_core.image import PictureError, open_picture

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")  # of the pictures in a folder
PIPE = "-"


class UsageError(ValueError):
    """What was asked for cannot be done, whatever the pictures show."""


def list_sources(paths: Sequence[str]) -> tuple[list[str], bool]:
    """Files as they are, of a folder the pictures in it, by name, or itself if there are none; and whether that is
    more than one file, or a folder, so that the answers need a folder too."""
    sources, many = [], len(paths) > 1
    for path in paths:
        if path == PIPE or not Path(path).is_dir():
            sources.append(path)
        else:
            files = [file for file in Path(path).iterdir() if file.suffix.lower() in ENDINGS and file.name[0] != "."]
            sources += sorted(map(str, files)) or [path]
            many = True
    return sources, many


def open_source(source: str, draft: int | None = 2048) -> Image.Image:
    """The picture in a file or on stdin, upright RGB. draft: see `open_picture`. Raises PictureError."""
    if source == PIPE:
        return open_picture(sys.stdin.buffer.read(), draft=draft)
    if Path(source).is_dir():
        raise PictureError(f"This folder holds no pictures ({', '.join(ENDINGS)}). Choose another.")
    return open_picture(source, draft=draft)


def name_targets(sources: Sequence[str], out: str, many: bool, numbers: Sequence[int] = ()) -> list[list[str]]:
    """For each source where its answers go: to the file `out`, or into the folder `out`, called like the source.

    many: whether out has to be a folder. numbers: one answer for each, NAME_1.png and so on; else it is one, NAME.png.
    Raises UsageError if out is neither, or stdout and there is more than one answer.
    """
    if out == PIPE:
        if many or numbers:
            raise UsageError("stdout takes one picture; give a file or a folder for several")
        if sys.stdout.isatty():
            raise UsageError("a picture would be written to the terminal; send it to a file or to another command")
        return [[PIPE]]
    named, place = out.lower().endswith(".png"), Path(out)
    if many and (place.is_file() or (named and not place.is_dir())):
        raise UsageError(f"there may be several answers: {out} must be a folder")
    if many or place.is_dir() or out.endswith(("/", os.sep)):
        files = [place / f"{'stdin' if source == PIPE else Path(source).stem}.png" for source in sources]
    elif named:
        files = [place]
    else:
        raise UsageError(f"pictures are written as PNG: {out} must end in .png, or in / if it is a folder")
    return [[str(file.with_stem(f"{file.stem}_{n}")) for n in numbers] or [str(file)] for file in files]


def check_targets(sources: Sequence[str], targets: Sequence[list[str]]) -> None:
    """Raises UsageError if an answer would replace an input or another answer."""
    taken = {Path(source).resolve() for source in sources if source != PIPE}
    for target in (file for files in targets for file in files):
        place = target if target == PIPE else Path(target).resolve()
        if place in taken:
            raise UsageError(f"{target} would be lost: it is an input, or another answer. Choose another name")
        taken.add(place)


def save(picture: Image.Image, target: str, **options) -> None:
    """As PNG, whole or not at all; folders are made. Raises PictureError; BrokenPipeError if nobody reads stdout.

    options: Pillow's.
    """
    data = io.BytesIO()
    picture.save(data, "PNG", **options)
    try:
        if target == PIPE:
            sys.stdout.buffer.write(data.getbuffer())
            sys.stdout.buffer.flush()
        else:
            write(Path(target), data.getvalue())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PictureError(f"{target} cannot be written ({error.strerror}). Choose another place.") from error


def write(path: Path, data: bytes, sync: bool = False) -> None:
    """The file appears whole or not at all. sync: see `whole`; a folder of pictures would take longer to flush than to
    make."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path, sync=sync) as partial:
        partial.write_bytes(data)


@contextmanager
def whole(path: Path, keep: Path | None = None, sync: bool = True) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place at the end, or vanishes if there is an error.

    Whoever is killed, and whenever: at `path` is what was there before or all that is new. keep: a name for what was
    there before, under which alone it stands for a moment. sync: wait until the disk has it, so that no power failure
    takes it back.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        if sync:
            flush_to_disk(partial)
        if keep and path.exists():
            os.replace(path, keep)
        os.replace(partial, path)
        if sync and os.name != "nt":  # Windows has no such thing for folders
            flush_to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Returns when the disk has a file, or the names in a folder."""
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)
