"""Pictures as people have them -> data to train on, which one can open and look at.

    python -m train.prepare faces PHOTOS OUT

finds the face in each photo, frames it and writes OUT/train and OUT/val with 256x256 photos, a
`layouts.json` (eyes and mouth of each face) and a contact sheet. Photos without a face are listed in
OUT/skipped.txt. A run that was interrupted goes on where it stopped.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import astuple
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from gan_core.faces import crop_face, find_layout
from gan_core.image import PictureError, open_picture, tile
from gan_core.lineart import SIZE, draw_like_a_hand, draw_lines
from train.data import LAYOUTS, DataError, list_pictures

DONE = "prepared.jsonl"


def write_picture(path: Path, picture: Image.Image, **options) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}.partial")
    picture.save(partial_path, format={".jpg": "JPEG", ".png": "PNG"}[path.suffix], **options)
    os.replace(partial_path, path)


def split_of(path: Path, photos: Path, val_share: float) -> str:
    """The folder the photo already stands in, train or val; else a stable choice by its name."""
    parts = path.relative_to(photos).parts
    if len(parts) > 1 and parts[0] in ("train", "val"):
        return parts[0]
    return "val" if crc32("/".join(parts).encode()) % 10_000 < 10_000 * val_share else "train"


def name_of(path: Path, photos: Path) -> str:
    """A flat file name that is unique below the folder of photos."""
    parts = path.relative_to(photos).with_suffix("").parts
    return "__".join(parts[1:] if len(parts) > 1 and parts[0] in ("train", "val") else parts)


def prepare_face(path: Path, photos: Path, out: Path, val_share: float, pairs: int) -> dict:
    """One photo -> one framed face (and its pairs); what became of it as a record."""
    cv2.setNumThreads(1)
    record = {"photo": str(path.relative_to(photos))}
    try:
        photo = open_picture(path)
        # A photo of just this size has been framed by someone already.
        face = photo if photo.size == (SIZE, SIZE) else crop_face(photo, SIZE)
    except PictureError as error:
        return record | {"skipped": str(error)}
    layout = find_layout(face)
    split, name = split_of(path, photos, val_share), name_of(path, photos)
    write_picture(out / split / f"{name}.jpg", face, quality=95, subsampling=0)
    for number in range(pairs):
        rng = np.random.default_rng((crc32(name.encode()), number))
        drawing = draw_like_a_hand(np.asarray(face), rng, layout) if number else np.asarray(draw_lines(face))
        write_picture(out / "pairs" / split / "source" / f"{name}_{number}.png", Image.fromarray(drawing))
        write_picture(out / "pairs" / split / "target" / f"{name}_{number}.jpg", face, quality=95)
    return record | {"split": split, "name": f"{name}.jpg", "layout": layout and astuple(layout)}


def read_records(path: Path) -> list[dict]:
    """The records of an earlier run; a last line cut short by an interruption is dropped."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def prepare_faces(photos: Path, out: Path, val_share: float = 0.05, pairs: int = 0, workers: int | None = None) -> None:
    """See the module. pairs: how many drawings of each face to write as files too.

    Raises DataError if the folder holds no pictures, none with a face, or two that would get one name.
    """
    files = list_pictures(photos)
    by_name: dict[tuple[str, str], Path] = {}
    for path in files:
        twin = by_name.setdefault((split_of(path, photos, val_share), name_of(path, photos)), path)
        if twin is not path:
            raise DataError(f"{twin} and {path} would both become {name_of(path, photos)}.jpg. Rename one of them.")
    out.mkdir(parents=True, exist_ok=True)
    records = read_records(out / DONE)
    (out / DONE).write_text("".join(json.dumps(record) + "\n" for record in records))
    done = {record["photo"] for record in records}
    todo = [path for path in files if str(path.relative_to(photos)) not in done]
    work = partial(prepare_face, photos=photos, out=out, val_share=val_share, pairs=pairs)
    workers = min(workers or os.cpu_count() or 1, len(todo))
    # Spawned, not forked: a forked worker would inherit the locks of OpenCV's threads, and hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else None
    with pool or nullcontext(), open(out / DONE, "a") as log:
        results = pool.map(work, todo, chunksize=4) if pool else map(work, todo)
        for record in tqdm(results, total=len(todo), unit="photo", disable=not todo):
            log.write(json.dumps(record) + "\n")
            log.flush()
            records.append(record)

    skipped = [record for record in records if "skipped" in record]
    kept = [record for record in records if "skipped" not in record]
    (out / "skipped.txt").write_text("".join(f"{r['photo']}: {r['skipped']}\n" for r in skipped))
    if not kept:
        raise DataError(
            f"none of the {len(files)} photos in {photos} shows a face; the reasons are in {out}/skipped.txt."
        )
    for split in ("train", "val"):
        layouts = {r["name"]: r["layout"] for r in kept if r["split"] == split and r["layout"]}
        if (out / split).is_dir():
            (out / split / LAYOUTS).write_text(json.dumps(layouts))
    contact_sheet(out, kept).save(out / "contact_sheet.png")
    counts = {split: sum(r["split"] == split for r in kept) for split in ("train", "val")}
    print(f"{counts['train']} faces in {out / 'train'}, {counts['val']} in {out / 'val'}.")
    print(f"Look at {out / 'contact_sheet.png'}.")
    if skipped:
        print(f"{len(skipped)} photo(s) skipped; the reasons are in {out / 'skipped.txt'}.")


def contact_sheet(out: Path, records: list[dict], count: int = 8) -> Image.Image:
    """Some of the faces, their clean line art, and two of the drawings that training would make of them."""
    chosen = [records[i] for i in np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)]
    columns = []
    for i, record in enumerate(chosen):
        face = open_picture(out / record["split"] / record["name"])
        rng = np.random.default_rng(i)
        hands = [Image.fromarray(draw_like_a_hand(np.asarray(face), rng, find_layout(face))) for _ in range(2)]
        columns.append([face, draw_lines(face), *hands])
    return tile([picture for row in zip(*columns) for picture in row], len(columns))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.prepare", description=__doc__.split("\n\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    faces = commands.add_parser("faces", help="photos of people -> framed faces for sketch2face")
    faces.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of photos, subfolders included")
    faces.add_argument("out", type=Path, metavar="OUT")
    faces.add_argument(
        "--val", type=float, default=0.05, metavar="SHARE", help="held out, unless PHOTOS has train/ and val/"
    )
    faces.add_argument("--pairs", type=int, default=0, metavar="N", help="write N drawings of each face as files too")
    faces.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    options = parser.parse_args(arguments)
    try:
        prepare_faces(options.photos, options.out, options.val, options.pairs, options.workers)
    except DataError as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("Interrupted. Run the same command again to go on.") from None


if __name__ == "__main__":
    main()
