"""Pictures as people have them -> data to train on, which one can open and look at.

    python -m train.prepare faces PHOTOS OUT

finds the face in each photo, frames it and writes OUT/train and OUT/val with 256x256 photos, a
`layouts.json` (eyes and mouth of each face) and a contact sheet. Photos without a face are listed in
OUT/skipped.txt.

    python -m train.prepare facades SOURCE OUT

finds the pairs of photo and label map in SOURCE, snaps the maps to the class colours, and writes 256x256 pairs
to OUT/train and OUT/val, `source/` (maps) and `target/` (photos), and a contact sheet. SOURCE is a folder with
side-by-side pictures, or with two folders (or two endings) of equally named files; or a data set with two image
columns, on the Hugging Face Hub or in a folder of its files. Which of the two is the map is seen from its colours.

    python -m train.prepare voc SOURCE OUT

writes photos and their class maps in Pascal VOC's colours; see `train/voc.py`.

    python -m train.prepare anime SOURCE OUT

scales drawn faces to 96x96, from a folder of pictures or the first image column of a data set on the Hub (such as
DrishtiSharma/Anime-Face-Dataset) or in a folder of its files, and writes OUT/train, OUT/val and a contact sheet. As
in the published recipe, pictures with other than three channels are left out, and listed in OUT/skipped.txt.

A run that was interrupted goes on where it stopped.
"""

import argparse
import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, suppress
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
from gan_core.files import write
from gan_core.image import MAX_PIXELS, PHOTO_FORMATS, PictureError, crop_square, open_picture, side_by_side, tile
from gan_core.lineart import SIZE, draw_like_a_hand, draw_lines
from gan_core.palette import FACADES, LEAST_NEAR
from train.data import LAYOUTS, PICTURES, DataError, evenly, list_pictures

DONE = "prepared.jsonl"


def write_picture(path: Path, picture: Image.Image, **options) -> None:
    """The file appears whole or not at all. options: Pillow's."""
    data = io.BytesIO()
    picture.save(data, format={".jpg": "JPEG", ".png": "PNG"}[path.suffix], **options)
    write(path, data.getvalue())


def split_of(path: Path, photos: Path, val_share: float) -> str:
    """The folder the photo already stands in, train or val; else a stable choice by its name."""
    parts = path.relative_to(photos).parts
    if len(parts) > 1 and parts[0] in ("train", "val"):
        return parts[0]
    return choose_split("/".join(parts), val_share)


def choose_split(name: str, val_share: float, seed: int = 0) -> str:
    """The same for a name and a seed for ever, whatever other pictures there are."""
    return "val" if crc32(name.encode(), seed) % 10_000 < 10_000 * val_share else "train"


def name_of(path: Path, photos: Path) -> str:
    """A flat file name that is unique below the folder of photos."""
    parts = path.relative_to(photos).with_suffix("").parts
    return "__".join(parts[1:] if len(parts) > 1 and parts[0] in ("train", "val") else parts)


def read_records(path: Path) -> list[dict]:
    """The records of an earlier run; a last line cut short, and what an older version wrote, is dropped."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [record for record in records if "job" in record]


def work_through(jobs: dict[str, object], work: Callable, out: Path, workers: int | None = None) -> list[dict]:
    """Does what an earlier run has not done yet, on all cores, and lists what was skipped. Returns what was kept.

    What an earlier run skipped is tried again: the picture may have been repaired, or the options changed.
    jobs: a lasting name of each, and what `work` is called with; it returns a record, with "skipped" if need be.
    """
    out.mkdir(parents=True, exist_ok=True)
    records = [record for record in read_records(out / DONE) if "skipped" not in record]
    (out / DONE).write_text("".join(json.dumps(record) + "\n" for record in records))
    done = {record["job"] for record in records}
    todo = {name: job for name, job in jobs.items() if name not in done}
    workers = min(workers or os.cpu_count() or 1, len(todo))
    # Spawned, not forked: a forked worker would inherit the locks of OpenCV's threads, and hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else None
    with pool or nullcontext(), open(out / DONE, "a") as log:
        results = pool.map(work, todo.values(), chunksize=4) if pool else map(work, todo.values())
        for name, result in zip(todo, tqdm(results, total=len(todo), unit="picture", disable=not todo)):
            records.append({"job": name} | result)
            log.write(json.dumps(records[-1]) + "\n")
            log.flush()
    skipped = [record for record in records if "skipped" in record]
    (out / "skipped.txt").write_text("".join(f"{r['job']}: {r['skipped']}\n" for r in skipped))
    return [record for record in records if "skipped" not in record]


def report(out: Path, kept: list[dict], things: str) -> None:
    """Says what there is now and where to look."""
    counts = {split: sum(r["split"] == split for r in kept) for split in ("train", "val")}
    print(f"{counts['train']} {things} in {out / 'train'}, {counts['val']} in {out / 'val'}.")
    print(f"Look at {out / 'contact_sheet.png'}.")
    skipped = (out / "skipped.txt").read_text().count("\n")
    if skipped:
        print(f"{skipped} skipped; the reasons are in {out / 'skipped.txt'}.")


# --- Faces -----------------------------------------------------------------------------------------


def prepare_face(path: Path, photos: Path, out: Path, val_share: float, pairs: int) -> dict:
    """One photo -> one framed face (and its pairs); what became of it as a record."""
    cv2.setNumThreads(1)
    try:
        photo = open_picture(path)
        # A photo of just this size has been framed by someone already.
        face = photo if photo.size == (SIZE, SIZE) else crop_face(photo, SIZE)
    except PictureError as error:
        return {"skipped": str(error)}
    layout = find_layout(face)
    split, name = split_of(path, photos, val_share), name_of(path, photos)
    write_picture(out / split / f"{name}.jpg", face, quality=95, subsampling=0)
    for number in range(pairs):
        rng = np.random.default_rng((crc32(name.encode()), number))
        drawing = draw_like_a_hand(np.asarray(face), rng, layout) if number else np.asarray(draw_lines(face))
        write_picture(out / "pairs" / split / "source" / f"{name}_{number}.png", Image.fromarray(drawing))
        write_picture(out / "pairs" / split / "target" / f"{name}_{number}.jpg", face, quality=95)
    return {"split": split, "name": f"{name}.jpg", "layout": layout and astuple(layout)}


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
    work = partial(prepare_face, photos=photos, out=out, val_share=val_share, pairs=pairs)
    kept = work_through({str(path.relative_to(photos)): path for path in files}, work, out, workers)
    if not kept:
        raise DataError(
            f"none of the {len(files)} photos in {photos} shows a face; the reasons are in {out}/skipped.txt."
        )
    for split in ("train", "val"):
        layouts = {r["name"]: r["layout"] for r in kept if r["split"] == split and r["layout"]}
        if (out / split).is_dir():
            (out / split / LAYOUTS).write_text(json.dumps(layouts))
    face_sheet(out, kept).save(out / "contact_sheet.png")
    report(out, kept, "faces")


def face_sheet(out: Path, records: list[dict], count: int = 8) -> Image.Image:
    """Some of the faces, their clean line art, and two of the drawings that training would make of them."""
    chosen = [records[i] for i in evenly(len(records), count)]
    columns = []
    for i, record in enumerate(chosen):
        face = open_picture(out / record["split"] / record["name"])
        rng = np.random.default_rng(i)
        hands = [Image.fromarray(draw_like_a_hand(np.asarray(face), rng, find_layout(face))) for _ in range(2)]
        columns.append([face, draw_lines(face), *hands])
    return tile([picture for row in zip(*columns) for picture in row], len(columns))


# --- Anime faces -----------------------------------------------------------------------------------

ANIME_SIZE = 96


def find_anime(source: str, val_share: float) -> dict[str, tuple]:
    """The pictures of a folder or a data set: what they are called -> (split, name, path or row of a table).

    Raises DataError if there are none, or two that would get one name.
    """
    folder = Path(source)
    jobs: dict[str, tuple] = {}
    if folder.is_dir() and any(path.suffix.lower() in PICTURES for path in folder.rglob("*")):
        taken: dict[tuple, Path] = {}
        for path in list_pictures(folder):
            split, name = split_of(path, folder, val_share), name_of(path, folder)
            twin = taken.setdefault((split, name), path)
            if twin is not path:
                raise DataError(f"{twin} and {path} would both become {name}.jpg. Rename one of them.")
            jobs[str(path.relative_to(folder))] = (split, name, path)
        return jobs
    tables = load_tables(source)
    for split, (table, columns) in tables.items():
        if not columns:
            raise DataError(f"{source} has no image column; choose a data set of pictures.")
        table = table.select_columns(columns[:1])
        for i in range(len(table)):
            name = f"{split}_{i:06d}"
            jobs[name] = (split_of_row(split, tables, name, val_share), name, (table, i))
    return jobs


def prepare_anime_face(job: tuple, out: Path) -> dict:
    """One picture -> a square of ANIME_SIZE; what became of it as a record."""
    split, name, file = job
    if isinstance(file, tuple):
        table, i = file
        row = next(iter(table[i].values()))
        file = row["bytes"] or row["path"]
    try:
        picture = open_picture(file)  # refuses what is broken; the mode of the file is what counts for the rest
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=PHOTO_FORMATS) as original:
            bands = original.getbands()
        if len(bands) != 3:
            return {
                "skipped": f"it has {len(bands)} channel(s), {''.join(bands)}; only three-channel pictures are kept"
            }
        face = crop_square(picture, ANIME_SIZE)
    except PictureError as error:
        return {"skipped": str(error)}
    write_picture(out / split / f"{name}.jpg", face, quality=95, subsampling=0)
    return {"split": split, "name": f"{name}.jpg"}


def prepare_anime(source: str, out: Path, val_share: float = 0.05, workers: int | None = None) -> None:
    """See the module. Raises DataError if nothing in source can be used."""
    jobs = find_anime(source, val_share)
    kept = work_through(jobs, partial(prepare_anime_face, out=out), out, workers)
    if not kept:
        raise DataError(f"none of the {len(jobs)} pictures in {source} can be used; see {out}/skipped.txt.")
    chosen = [kept[i] for i in evenly(len(kept), 96)]
    pictures = [open_picture(out / record["split"] / record["name"]) for record in chosen]
    tile(pictures, min(12, len(chosen))).save(out / "contact_sheet.png")
    report(out, kept, "faces")


# --- Facades ---------------------------------------------------------------------------------------

TEST_NAMES = {"val", "test", "validation", "eval"}  # folders and splits that are held out
ASPECT = 0.02  # by how much the shapes of a photo and its map may differ


def find_facades(source: Path, val_share: float) -> dict[str, tuple[str, str, list]]:
    """The pairs in a folder: what they are called -> (split, name, one or two files).

    Raises DataError if some file has no partner.
    """
    files = list_pictures(source)
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in files:
        parts = path.relative_to(source).parts
        folder = next((part for part in parts[:-1] if part in TEST_NAMES | {"train"}), "")
        groups.setdefault((folder, path.stem), []).append(path)
    sizes = {len(group) for group in groups.values()}
    if sizes == {1}:
        with suppress(PictureError):  # a broken file is skipped when its turn comes
            width, height = open_picture(files[0]).size
            if width < 1.5 * height:
                raise DataError(
                    f"{files[0]} is {width}x{height} and has no partner of the same name. Give "
                    "side-by-side pictures, twice as wide as high, or photos and label maps of the same names."
                )
    elif 1 in sizes or max(sizes) > 2:
        odd = next(group for group in groups.values() if len(group) != 2)
        count = "no partner" if len(odd) == 1 else f"{len(odd) - 1} partners"
        raise DataError(
            f"{odd[0]} has {count} of the same name; each photo needs just one label map. "
            "Remove it, or add what is missing."
        )
    jobs = {}
    several = len({folder for folder, _ in groups} & TEST_NAMES) > 1  # pix2pix's authors have val/1.jpg and test/1.jpg
    for (folder, stem), group in groups.items():
        split = "val" if folder in TEST_NAMES else folder or choose_split(stem, val_share)
        name = f"{folder}_{stem}" if several else stem
        jobs[str(group[0].relative_to(source))] = (split, name, group)
    return jobs


def load_tables(source: str) -> dict[str, tuple]:
    """Splits of a data set on the Hub, or of a folder with its files: table and names of its image columns.

    The columns hold bytes; they are decoded where other pictures are, with the same care.
    Raises DataError if there is no such data set.
    """
    import datasets

    try:
        found = datasets.load_dataset(source)
    except Exception as error:  # the library has no common error; whatever it says helps
        raise DataError(
            f"{source} is neither a folder of pictures nor a data set that can be loaded ({error}). "
            "Check the name, and the connection to huggingface.co."
        ) from error
    tables = {}
    for split, table in found.items():
        columns = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
        table = table.select_columns(columns)
        for column in columns:
            table = table.cast_column(column, datasets.Image(decode=False))
        tables[split] = table, columns
    return tables


def split_of_row(split: str, splits: dict, name: str, val_share: float, seed: int = 0) -> str:
    """As `split_of`, for a row of a data set with these splits."""
    if split in TEST_NAMES:
        return "val"
    return choose_split(name, val_share, seed) if len(splits) == 1 else "train"


def open_hub(source: str) -> dict:
    """As `load_tables`, for pairs: the tables alone. Raises DataError too unless there are two image columns."""
    tables = {}
    for split, (table, columns) in load_tables(source).items():
        if len(columns) != 2:
            raise DataError(f"{source} has {len(columns)} image columns; two are needed, photos and label maps.")
        tables[split] = table
    return tables


def find_hub_facades(source: str, val_share: float) -> dict[str, tuple[str, str, list]]:
    """The pairs of a data set on the Hub, or of a folder with its files; it must have two image columns."""
    jobs, tables = {}, open_hub(source)
    for split, table in tables.items():
        for i in range(len(table)):
            name = f"{split}_{i:05d}"
            jobs[name] = (split_of_row(split, tables, name, val_share), name, (table, i))
    return jobs


def split_pair(files) -> list[Image.Image]:
    """Two pictures from one side-by-side file, two files, or one row of a data set."""
    if isinstance(files, tuple):
        table, i = files
        files = [cell and (cell["bytes"] or cell["path"]) for cell in table[i].values()]
        if None in files:
            raise PictureError("one of its two pictures is missing")
    pictures = [read_indexed(file) or open_picture(file) for file in files]
    if len(pictures) == 1:
        width, height = pictures[0].size
        if not 1.9 < width / height < 2.1:
            raise PictureError(f"it is {width}x{height}; a photo and a map side by side are twice as wide as high")
        pictures = [
            pictures[0].crop((0, 0, width // 2, height)),
            pictures[0].crop((width - width // 2, 0, width, height)),
        ]
    (w1, h1), (w2, h2) = (picture.size for picture in pictures)
    if abs(w1 * h2 / (w2 * h1) - 1) > ASPECT:
        raise PictureError(f"one is {w1}x{h1} and the other {w2}x{h2}; photo and map must have one shape")
    return pictures


def read_indexed(file) -> Image.Image | None:
    """A map of the original CMP base: a PNG of palette numbers 1 to 12. None for any other picture."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=["PNG"]) as picture:
            if picture.mode != "P" or picture.width * picture.height > MAX_PIXELS:
                return None
            numbers = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return FACADES.to_picture(numbers - 1) if numbers.min() >= 1 and numbers.max() <= len(FACADES) else None


def prepare_facade(job: tuple[str, str, list], out: Path, order: str) -> dict:
    """One pair -> a label map and a photo of the size of the networks; what became of it as a record."""
    cv2.setNumThreads(1)
    split, name, files = job
    try:
        pictures = split_pair(files)
        shares = [FACADES.near_share(picture) for picture in pictures]
        map_first = shares[0] > shares[1]
        if min(shares) >= LEAST_NEAR:
            raise PictureError("both pictures are label maps; a photo is missing")
        source = FACADES.to_picture(FACADES.read_map(pictures[0 if map_first else 1]))
        if order != "detect" and map_first != (order == "map-photo"):
            raise PictureError(f"photo and map are swapped: it is not {order}. Leave out --order to have it detected")
        target = pictures[1 if map_first else 0]
    except PictureError as error:
        return {"skipped": str(error)}
    size = (SIZE, SIZE)
    write_picture(out / split / "source" / f"{name}.png", source.resize(size, Image.Resampling.NEAREST))
    write_picture(
        out / split / "target" / f"{name}.jpg", target.resize(size, Image.Resampling.LANCZOS), quality=95, subsampling=0
    )
    return {"split": split, "name": name}


def prepare_facades(
    source: str, out: Path, val_share: float = 0.1, order: str = "detect", workers: int | None = None
) -> None:
    """See the module. order: "detect", "photo-map" or "map-photo" (left and right, or first and second by name).

    Raises DataError if nothing in source can be used.
    """
    folder = Path(source)
    on_disk = folder.is_dir() and any(path.suffix.lower() in PICTURES for path in folder.rglob("*"))
    jobs = find_facades(folder, val_share) if on_disk else find_hub_facades(source, val_share)
    kept = work_through(jobs, partial(prepare_facade, out=out, order=order), out, workers)
    if not kept:
        reason = (out / "skipped.txt").read_text().splitlines()[0]
        raise DataError(f"none of the {len(jobs)} pairs in {source} can be used. The first: {reason}.")
    chosen = [kept[i] for i in evenly(len(kept), 16)]
    sides = [
        [open_picture(out / record["split"] / side / f"{record['name']}{ending}") for record in chosen]
        for side, ending in (("source", ".png"), ("target", ".jpg"))
    ]
    side_by_side(*sides).save(out / "contact_sheet.png")
    report(out, kept, "pairs")


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
    anime = commands.add_parser("anime", help="drawn faces -> 96x96 pictures for the VAE-GAN")
    anime.add_argument("source", metavar="SOURCE", help="folder of pictures, or USER/NAME of a data set on the Hub")
    anime.add_argument("out", type=Path, metavar="OUT")
    anime.add_argument("--val", type=float, default=0.05, metavar="SHARE", help="held out, unless SOURCE has val")
    anime.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    facades = commands.add_parser("facades", help="photos of buildings and their label maps -> pairs for facades")
    facades.add_argument("source", metavar="SOURCE", help="folder of pairs, or USER/NAME of a data set on the Hub")
    facades.add_argument("out", type=Path, metavar="OUT")
    facades.add_argument(
        "--val", type=float, default=0.1, metavar="SHARE", help="held out, unless SOURCE has test or val"
    )
    facades.add_argument(
        "--order", default="detect", choices=("detect", "photo-map", "map-photo"), help="which one is the label map"
    )
    facades.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    voc = commands.add_parser("voc", help="photos and class maps -> pairs for segmentation")
    voc.add_argument(
        "source", metavar="SOURCE", help="VOCdevkit, photos and masks in a folder, or a data set on the Hub"
    )
    voc.add_argument("out", type=Path, metavar="OUT")
    voc.add_argument("--list", default="", choices=("trainaug", "train"), help="VOC: default trainaug, if it is there")
    voc.add_argument("--val", type=float, default=0.2, metavar="SHARE", help="held out, unless SOURCE is split already")
    voc.add_argument("--seed", type=int, default=0, help="of that choice")
    voc.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "faces":
            prepare_faces(options.photos, options.out, options.val, options.pairs, options.workers)
        elif options.command == "voc":
            from train.voc import prepare_voc  # it builds on this module

            prepare_voc(options.source, options.out, options.list, options.val, options.seed, options.workers)
        elif options.command == "anime":
            prepare_anime(options.source, options.out, options.val, options.workers)
        else:
            prepare_facades(options.source, options.out, options.val, options.order, options.workers)
    except DataError as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("Interrupted. Run the same command again to go on.") from None


if __name__ == "__main__":
    main()
