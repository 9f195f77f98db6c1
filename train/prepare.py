"""Pictures as people have them -> data to train on, which one can open and look at.

    python -m train.prepare faces SOURCE OUT

finds the face in each photo, of a folder or of the first image column of a data set, frames it and writes
OUT/train and OUT/val with 256x256 photos, a `layouts.json` (eyes and mouth of each face) and a contact sheet.
Photos without a face are listed in OUT/skipped.txt.

    python -m train.prepare facades SOURCE OUT

finds the pairs of photo and label map in SOURCE, snaps the maps to the class colours, and writes 256x256 pairs
to OUT/train and OUT/val, `source/` (maps) and `target/` (photos), and a contact sheet. SOURCE is a folder with
side-by-side pictures, or with two folders (or two endings) of equally named files; or a data set with two image
columns, on the Hugging Face Hub or in a folder of its files. Which of the two is the map is seen from its colours.

    python -m train.prepare voc SOURCE OUT

writes photos and their class maps in Pascal VOC's colours; see `train/voc.py`.

    python -m train.prepare anime SOURCE OUT

scales drawn faces to 96x96, from a folder of pictures or the first image column of a data set (such as
DrishtiSharma/Anime-Face-Dataset), and writes OUT/train, OUT/val and a contact sheet. As in the published recipe,
pictures with other than three channels are left out, and listed in OUT/skipped.txt.

A data set is USER/NAME on the Hugging Face Hub, USER/NAME:CONFIG where it has several, or a folder of its files.

A run that was interrupted goes on where it stopped.
"""

import argparse
import io
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from gan_core.faces import FaceLayout, crop_face, find_layout
from gan_core.files import write
from gan_core.image import MAX_PIXELS, PHOTO_FORMATS, PictureError, crop_square, open_picture, side_by_side, tile
from gan_core.lineart import SIZE, draw_like_a_hand, draw_lines
from gan_core.palette import FACADES, LEAST_NEAR
from train.data import LAYOUTS, PICTURES, DataError, evenly, list_pictures
from train.lock import FolderInUse, locked
from train.shards import write_shard

DONE = "prepared.jsonl"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a data set


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
    for line in path.read_text(errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict) and "job" in record]


def end_with_parent() -> None:
    """A worker whose parent is killed would wait for work for ever, and write next to those of the next run."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work_through(
    jobs: dict[str, object], work: Callable, out: Path, workers: int | None = None, engine: str = "pool"
) -> list[dict]:
    """Does what an earlier run has not done yet, on all cores, and lists what was skipped. Returns what was kept.

    For whoever has locked `out`. What an earlier run skipped is tried again: the picture may have been repaired, or the
    options changed.
    jobs: a lasting name of each, and what `work` is called with; it returns a record, with "skipped" if need be.
    engine: "pool", of processes on this machine; or "ray", on the cluster that Ray is connected to.
    """
    records = [record for record in read_records(out / DONE) if "skipped" not in record]
    write(out / DONE, "".join(json.dumps(record) + "\n" for record in records).encode())
    done = {record["job"] for record in records}
    todo = {name: job for name, job in jobs.items() if name not in done}
    with engine_of(engine, workers, len(todo)) as through, open(out / DONE, "a") as log:
        for name, result in tqdm(through(work, todo), total=len(todo), unit="job", disable=not todo):
            records.append({"job": name} | result)
            log.write(json.dumps(records[-1]) + "\n")
            log.flush()
    skipped = [record for record in records if "skipped" in record]
    write(out / "skipped.txt", "".join(f"{r['job']}: {r['skipped']}\n" for r in skipped).encode())
    return [record for record in records if "skipped" not in record]


@contextmanager
def engine_of(engine: str, workers: int | None, count: int) -> Iterator[Callable]:
    """`through(work, jobs)` yields (name, record) of each job. Raises DataError if Ray is asked for and missing."""
    workers = min(workers or os.cpu_count() or 1, count)
    if engine == "ray":
        yield through_ray()
    elif workers > 1:
        # Spawned, not forked: a forked worker would inherit the locks of OpenCV's threads, and hang.
        with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
            yield lambda work, jobs: zip(
                jobs, pool.map(work, jobs.values(), chunksize=max(1, min(4, count // (4 * workers))))
            )
    else:
        yield lambda work, jobs: zip(jobs, map(work, jobs.values()))


def through_ray() -> Callable:
    """See `engine_of`. Ray Data hands out the jobs; each writes its own files, wherever it runs."""
    try:
        import ray
    except ImportError as error:
        raise DataError(
            f"--engine ray needs Ray ({error}): pip install 'ray[data]', on all machines of the cluster."
        ) from error

    def through(work: Callable, jobs: dict) -> Iterator[tuple[str, dict]]:
        if not jobs:
            return
        # The names alone: paths and tuples are no columns of a table.
        rows = ray.data.from_items([{"name": name} for name in jobs])
        for row in rows.repartition(len(jobs)).map(partial(work_on_row, work=work, jobs=jobs)).iter_rows():
            yield row["name"], json.loads(row["record"])

    return through


def work_on_row(row: dict, work: Callable, jobs: dict) -> dict:
    return {"name": row["name"], "record": json.dumps(work(jobs[row["name"]]))}


def report(out: Path, kept: list[dict], things: str) -> None:
    """Says what there is now and where to look."""
    counts = {split: sum(r["split"] == split for r in kept) for split in ("train", "val")}
    print(f"{counts['train']} {things} in {out / 'train'}, {counts['val']} in {out / 'val'}.")
    print(f"Look at {out / 'contact_sheet.png'}.")
    skipped = (out / "skipped.txt").read_text(encoding="utf-8").count("\n")
    if skipped:
        print(f"{skipped} skipped; the reasons are in {out / 'skipped.txt'}.")


# --- Single pictures ---------------------------------------------------------------------------------


def find_pictures(source: str | Path, val_share: float) -> dict[str, tuple]:
    """The pictures of a folder or a data set: what they are called -> (split, name, path or cell of a table).

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
    tables = load_tables(str(source))
    for split, (table, columns) in tables.items():
        if not columns:
            raise DataError(f"{source} has no image column; choose a data set of pictures.")
        table = table.select_columns(columns[:1])
        for i in range(len(table)):
            name = f"{split}_{i:06d}"
            jobs[name] = (split_of_row(split, tables, name, val_share), name, (table, i, columns[0]))
    return jobs


def read_cell(file) -> Path | bytes | str:
    """A path as it is; of a cell of a data set, (table, row, column), the bytes in it, or the path."""
    if not isinstance(file, tuple):
        return file
    table, i, column = file
    cell = table[i][column]
    if not cell or not (cell["bytes"] or cell["path"]):
        raise PictureError(f"its {column} is missing")
    return cell["bytes"] or cell["path"]


# --- Faces -----------------------------------------------------------------------------------------


def frame(photo: Path | bytes | str) -> tuple[Image.Image, FaceLayout | None]:
    """The face in a photo, framed, and where eyes and mouth are. Raises PictureError if there is none."""
    cv2.setNumThreads(1)
    photo = open_picture(photo)
    # A photo of just this size has been framed by someone already.
    face = photo if photo.size == (SIZE, SIZE) else crop_face(photo, SIZE)
    return face, find_layout(face)


def prepare_face(job: tuple, out: Path, pairs: int) -> dict:
    """One photo -> one framed face (and its pairs); what became of it as a record."""
    split, name, file = job
    try:
        face, layout = frame(read_cell(file))
    except PictureError as error:
        return {"skipped": str(error)}
    write_picture(out / split / f"{name}.jpg", face, quality=95, subsampling=0)
    for number in range(pairs):
        rng = np.random.default_rng((crc32(name.encode()), number))
        drawing = draw_like_a_hand(np.asarray(face), rng, layout) if number else np.asarray(draw_lines(face))
        write_picture(out / "pairs" / split / "source" / f"{name}_{number}.png", Image.fromarray(drawing))
        write_picture(out / "pairs" / split / "target" / f"{name}_{number}.jpg", face, quality=95)
    return {"split": split, "name": f"{name}.jpg", "layout": layout and layout.points}


def prepare_face_shard(job: tuple[str, dict[str, tuple]], out: Path) -> dict:
    """Some photos -> one file of framed faces for each split; what became of them as a record."""
    shard, photos = job
    rows: dict[str, list[dict]] = {"train": [], "val": []}
    left_out = []
    for photo, (split, name, file) in photos.items():
        try:
            face, layout = frame(read_cell(file))
        except PictureError as error:
            left_out.append(f"{photo}: {error}")
            continue
        data = io.BytesIO()
        face.save(data, "JPEG", quality=95, subsampling=0)
        rows[split].append({"name": name, "target": data.getvalue(), "layout": json.dumps(layout and layout.points)})
    for split in rows:
        if rows[split]:
            write_shard(out / split / f"{shard}.parquet", rows[split])
    return {"left_out": left_out} | {split: len(rows[split]) for split in rows}


def prepare_face_shards(
    source: str | Path, out: Path, rows: int, val_share: float = 0.05, workers: int | None = None, engine: str = "pool"
) -> None:
    """As `prepare_faces`, into parquet files of up to `rows` photos each, for millions of them: see train/shards.py.

    Photos are mixed first. Started again, only the shards that are missing are made; if photos have come or gone since,
    the shards hold others than before, and all are made anew into another folder. Raises DataError for that.
    """
    photos = list(find_pictures(source, val_share).items())
    order = np.random.default_rng(0).permutation(len(photos))
    jobs = {}
    for first in range(0, len(photos), rows):
        chosen = dict(photos[i] for i in order[first : first + rows])
        names = "\n".join(chosen)
        shard = f"{first // rows:06d}-{crc32(names.encode()):08x}"
        jobs[shard] = shard, chosen
    with locked(out):
        stale = {record["job"] for record in read_records(out / DONE)} - jobs.keys()
        if stale:
            raise DataError(f"{out} holds shards of other photos, or of another --shards. Choose another folder.")
        kept = work_through(jobs, partial(prepare_face_shard, out=out), out, workers, engine)
        left_out = [reason for record in kept for reason in record["left_out"]]
        write(out / "skipped.txt", "".join(f"{reason}\n" for reason in left_out).encode())
        counts = {split: sum(record[split] for record in kept) for split in ("train", "val")}
        if not sum(counts.values()):
            raise DataError(f"none of the {len(photos)} photos in {source} shows a face; see {out}/skipped.txt.")
        print(f"{counts['train']} faces in {out / 'train'}, {counts['val']} in {out / 'val'}; {len(left_out)} skipped.")


def prepare_faces(
    source: str | Path, out: Path, val_share: float = 0.05, pairs: int = 0, workers: int | None = None
) -> None:
    """See the module. pairs: how many drawings of each face to write as files too.

    Raises DataError if the source holds no pictures, none with a face, or two that would get one name.
    """
    jobs = find_pictures(source, val_share)
    with locked(out):
        kept = work_through(jobs, partial(prepare_face, out=out, pairs=pairs), out, workers)
        if not kept:
            raise DataError(
                f"none of the {len(jobs)} photos in {source} shows a face; the reasons are in {out}/skipped.txt."
            )
        for split in ("train", "val"):
            layouts = {r["name"]: r["layout"] for r in kept if r["split"] == split and r["layout"]}
            if (out / split).is_dir():
                write(out / split / LAYOUTS, json.dumps(layouts).encode())
        write_picture(out / "contact_sheet.png", face_sheet(out, kept))
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


def prepare_anime_face(job: tuple, out: Path) -> dict:
    """One picture -> a square of ANIME_SIZE; what became of it as a record."""
    split, name, file = job
    try:
        file = read_cell(file)
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
    jobs = find_pictures(source, val_share)
    with locked(out):
        kept = work_through(jobs, partial(prepare_anime_face, out=out), out, workers)
        if not kept:
            raise DataError(f"none of the {len(jobs)} pictures in {source} can be used; see {out}/skipped.txt.")
        chosen = [kept[i] for i in evenly(len(kept), 96)]
        pictures = [open_picture(out / record["split"] / record["name"]) for record in chosen]
        write_picture(out / "contact_sheet.png", tile(pictures, min(12, len(chosen))))
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
    """Splits of a data set, see the module: table and names of its image columns.

    The columns hold bytes; they are decoded where other pictures are, with the same care.
    Raises DataError if there is no such data set.
    """
    import datasets

    name, _, config = ("" if Path(source).exists() else source).partition(":")
    try:
        if name and not HUB_NAME.fullmatch(name):
            raise ValueError("there is no such folder, and no data set can be called so")
        found = datasets.load_dataset(name or source, *([config] if config else []))
    except Exception as error:  # the library has no common error; whatever it says helps
        remedy = "Check the name; for what is private or gated, log in by `hf auth login`"
        if isinstance(error, ConnectionError):
            remedy = "Check the connection to huggingface.co, or give a folder with its files, fetched elsewhere"
        raise DataError(
            f"{source} is neither a folder of pictures nor a data set that can be loaded ({error}). {remedy}."
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
            cells = [(table, i, column) for column in table.column_names]
            jobs[name] = (split_of_row(split, tables, name, val_share), name, cells)
    return jobs


def split_pair(files) -> list[Image.Image]:
    """Two pictures from one side-by-side file, two files, or two cells of a data set."""
    pictures = [read_indexed(file) or open_picture(file) for file in map(read_cell, files)]
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
    with locked(out):
        kept = work_through(jobs, partial(prepare_facade, out=out, order=order), out, workers)
        if not kept:
            reason = (out / "skipped.txt").read_text(encoding="utf-8").splitlines()[0]
            raise DataError(f"none of the {len(jobs)} pairs in {source} can be used. The first: {reason}.")
        chosen = [kept[i] for i in evenly(len(kept), 16)]
        sides = [
            [open_picture(out / record["split"] / side / f"{record['name']}{ending}") for record in chosen]
            for side, ending in (("source", ".png"), ("target", ".jpg"))
        ]
        write_picture(out / "contact_sheet.png", side_by_side(*sides))
        report(out, kept, "pairs")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.prepare", description=__doc__.split("\n\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    faces = commands.add_parser("faces", help="photos of people -> framed faces for sketch2face")
    hub = "or a data set on the Hub: USER/NAME, or USER/NAME:CONFIG"
    faces.add_argument("source", metavar="SOURCE", help=f"folder of photos, subfolders included, {hub}")
    faces.add_argument("out", type=Path, metavar="OUT")
    faces.add_argument(
        "--val", type=float, default=0.05, metavar="SHARE", help="held out, unless SOURCE has train/ and val/"
    )
    faces.add_argument("--pairs", type=int, default=0, metavar="N", help="write N drawings of each face as files too")
    faces.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    faces.add_argument(
        "--shards", type=int, metavar="ROWS", help="write parquet files of so many photos (docs/scale.md)"
    )
    faces.add_argument("--engine", default="pool", choices=("pool", "ray"), help="with --shards: who does the work")
    anime = commands.add_parser("anime", help="drawn faces -> 96x96 pictures for the VAE-GAN")
    anime.add_argument("source", metavar="SOURCE", help=f"folder of pictures, {hub}")
    anime.add_argument("out", type=Path, metavar="OUT")
    anime.add_argument("--val", type=float, default=0.05, metavar="SHARE", help="held out, unless SOURCE has val")
    anime.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    facades = commands.add_parser("facades", help="photos of buildings and their label maps -> pairs for facades")
    facades.add_argument("source", metavar="SOURCE", help=f"folder of pairs, {hub}")
    facades.add_argument("out", type=Path, metavar="OUT")
    facades.add_argument(
        "--val", type=float, default=0.1, metavar="SHARE", help="held out, unless SOURCE has test or val"
    )
    facades.add_argument(
        "--order", default="detect", choices=("detect", "photo-map", "map-photo"), help="which one is the label map"
    )
    facades.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    voc = commands.add_parser("voc", help="photos and class maps -> pairs for segmentation")
    voc.add_argument("source", metavar="SOURCE", help=f"VOCdevkit, photos and masks in a folder, {hub}")
    voc.add_argument("out", type=Path, metavar="OUT")
    voc.add_argument("--list", default="", choices=("trainaug", "train"), help="VOC: default trainaug, if it is there")
    voc.add_argument("--val", type=float, default=0.2, metavar="SHARE", help="held out, unless SOURCE is split already")
    voc.add_argument("--seed", type=int, default=0, help="of that choice")
    voc.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "faces" and options.shards is not None:
            if options.shards < 1 or options.pairs:
                raise DataError("--shards needs at least 1 photo each, and goes without --pairs.")
            prepare_face_shards(
                options.source, options.out, options.shards, options.val, options.workers, options.engine
            )
        elif options.command == "faces" and options.engine == "ray":
            raise DataError("--engine ray writes shards: give --shards too, such as --shards 4096.")
        elif options.command == "faces":
            prepare_faces(options.source, options.out, options.val, options.pairs, options.workers)
        elif options.command == "voc":
            from train.voc import prepare_voc  # it builds on this module

            prepare_voc(options.source, options.out, options.list, options.val, options.seed, options.workers)
        elif options.command == "anime":
            prepare_anime(options.source, options.out, options.val, options.workers)
        else:
            prepare_facades(options.source, options.out, options.val, options.order, options.workers)
    except (DataError, FolderInUse) as error:
        raise SystemExit(f"error: {error}") from error
    except OSError as error:
        raise SystemExit(f"error: {error}. Once that is put right, run the same command again to go on.") from error
    except KeyboardInterrupt:
        raise SystemExit("Interrupted. Run the same command again to go on.") from None


if __name__ == "__main__":
    main()
