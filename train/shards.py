"""Data larger than the disk: rows of parquet files, read as they are needed, from a folder or from the Hub.

A place is a folder or an address that fsspec knows, such as hf://datasets/USER/NAME@~parquet/default. The split of a
file is told by a folder, or by the beginning of its name: train/0001.parquet, data/test-00000-of-00004.parquet.

Columns: `target`, and for pairs `source`; `layout` (JSON) adds the symbols of a face. A picture is its encoded file, as
bytes or as Hugging Face `datasets` writes them. Without a `target`, photos are in the first column of pictures.
"""

import io
import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from gan_core.faces import FaceLayout
from gan_core.files import write
from gan_core.image import PictureError, crop_square, open_picture, to_tensor
from gan_core.lineart import SIZE, draw_like_a_hand
from train.data import DataError, augment, augment_pair, scale_pair

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation", "test")}
GROUP = 64  # rows of a row group, the smallest piece that is read at once
TASKS = ("sketch2face", "facades")  # that can be trained on them
AHEAD = 8  # batches that are read before they are asked for

Row = dict[str, bytes | str | None]


def place(text: str) -> Path | str:
    """For the `type` of an option: an address stays as it is."""
    return text if "://" in text else Path(text)


def is_sharded(data: Path | str) -> bool:
    return "://" in str(data) or (Path(data).is_dir() and any(Path(data).rglob("*.parquet")))


class Shards:
    """The parquet files of one split; only their footers are read at once.

    Raises DataError if there are none, or no pictures in them.
    """

    def __init__(self, data: Path | str, split: str):
        from fsspec.core import url_to_fs

        try:
            self.files, root = url_to_fs(str(data))
            found = sorted(file for file in self.files.find(root) if file.endswith(".parquet"))
        except Exception as error:  # each kind of address has errors of its own; whatever it says helps
            raise DataError(f"{data} cannot be read ({error}). Check the address, and the connection.") from error
        paths = [file for file in found if split_of_file(file.removeprefix(root)) == split]
        if not paths:
            raise DataError(
                f"{data} holds no parquet files of the split {split}, such as {split}/0000.parquet. On the Hub, most "
                "data sets have them at hf://datasets/USER/NAME@~parquet/default."
            )
        with ThreadPoolExecutor(16) as pool:
            self.footers = dict(zip(paths, pool.map(self._footer, paths)))
        groups = [(path, i) for path, footer in self.footers.items() for i in range(footer.num_row_groups)]
        counts = [self.footers[path].row_group(i).num_rows for path, i in groups]
        self.groups = [group for group, count in zip(groups, counts) if count]
        self.counts = [count for count in counts if count]
        self.starts = np.cumsum([0, *self.counts]).tolist()
        self.columns = choose_columns(self.footers[paths[0]].schema.to_arrow_schema(), str(data))

    def __getstate__(self) -> dict:
        return vars(self) | {"footers": {}}  # a worker is given rows, and hardly ever reads any

    def _footer(self, path: str):
        import pyarrow.parquet as pq

        with naming(path), self.files.open(path) as file:
            return pq.read_metadata(file)

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, group: int) -> list[Row]:
        """The rows of one row group, pictures as bytes under the names `source` and `target`."""
        import pyarrow.parquet as pq

        path, number = self.groups[group]
        with naming(path), self.files.open(path) as file:
            table = pq.ParquetFile(file, metadata=self.footers.get(path)).read_row_group(
                number, columns=list(self.columns.values())
            )
        rows = table.to_pylist()
        return [{name: as_bytes(row[column]) for name, column in self.columns.items()} for row in rows]

    def row(self, index: int) -> Row:
        """One row, for which its whole row group is read."""
        group = bisect_right(self.starts, index) - 1
        return self.read(group)[index - self.starts[group]]

    def first_rows(self, count: int) -> list[Row]:
        rows: list[Row] = []
        for group in range(len(self.groups)):
            rows += self.read(group)
            if len(rows) >= count:
                break
        return rows[:count]


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turns what goes wrong inside into a DataError that names the file."""
    try:
        yield
    except Exception as error:  # of pyarrow, or of the place
        raise DataError(
            f"{path} is damaged or cannot be read ({error}). Check the connection, or write that file anew; "
            "a run that has begun goes on with --resume."
        ) from error


def split_of_file(path: str) -> str | None:
    parts = PurePosixPath(path).parts
    names = {*parts[:-1], parts[-1].removesuffix(".parquet").split("-")[0]}
    return next((split for split, words in SPLITS.items() if names & set(words)), None)


def choose_columns(schema, data: str) -> dict[str, str]:
    """Our name of a column -> its own."""
    import pyarrow.types as types

    def shows(kind) -> bool:
        binary = types.is_binary(kind) or types.is_large_binary(kind)
        return binary or (types.is_struct(kind) and kind.get_field_index("bytes") >= 0)

    pictures = [field.name for field in schema if shows(field.type)]
    if not pictures:
        raise DataError(f"{data} has no column of pictures among {', '.join(schema.names)}.")
    columns = {"target": "target" if "target" in pictures else pictures[0]}
    return columns | {name: name for name in ("source", "layout") if name in schema.names}


def as_bytes(cell: dict | bytes | str | None) -> bytes | str | None:
    return cell["bytes"] if isinstance(cell, dict) else cell


class ShardBatches(Sampler):
    """As `EpochBatches`, for rows: batches of (epoch, index, row), the same on any number of processes and workers.

    Each place in a batch has a reader, which takes the next row group from a pile when it has done with its last one,
    and goes through it in an order of its own. The pile is a new permutation of all row groups in each epoch. So a
    process reads only the row groups of its own part of the batches, and a resumed run goes on at the very row.
    Rows are mixed among batch_size row groups, hence row groups should not be sorted by what they show.
    """

    def __init__(self, shards: Shards, batch_size: int, seed: int = 0, step: int = 0, part: tuple[int, int] = (0, 1)):
        self.shards, self.batch_size, self.seed, self.step = shards, batch_size, seed, step
        rank, processes = part
        self.own = range(rank * batch_size // processes, (rank + 1) * batch_size // processes)

    def __iter__(self) -> Iterator[list[tuple[int, int, Row]]]:
        return ahead(self.read())

    def read(self) -> Iterator[list[tuple[int, int, Row]]]:
        groups, rows = self.open_groups(), {}
        for step, opened in groups:
            batch = []
            for reader in self.own:
                epoch, group, first = opened[reader]
                if rows.get(reader, (None,))[0] != (epoch, group, first):
                    rows[reader] = (epoch, group, first), self.shards.read(group)
                order = np.random.default_rng((self.seed, epoch, group)).permutation(self.shards.counts[group])
                number = int(order[step - first])
                batch.append((epoch, self.shards.starts[group] + number, rows[reader][1][number]))
            yield batch

    def open_groups(self) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
        """Each step from the first one on, and what every reader has open then: epoch, row group, its first step."""
        pile, step = self.pile(), 0
        opened, ends = [(0, 0, 0)] * self.batch_size, np.zeros(self.batch_size, dtype=int)
        while True:
            for reader in np.flatnonzero(ends <= step).tolist():
                epoch, group = next(pile)
                opened[reader] = epoch, group, int(ends[reader])
                ends[reader] += self.shards.counts[group]
            if step >= self.step:
                yield step, opened
                step += 1
            else:
                step = min(int(ends.min()), self.step)

    def pile(self) -> Iterator[tuple[int, int]]:
        epoch = 0
        while True:
            for group in np.random.default_rng((self.seed, epoch)).permutation(len(self.shards.groups)).tolist():
                yield epoch, group
            epoch += 1


def ahead(items: Iterator, count: int = AHEAD) -> Iterator:
    """The same, read by a thread before they are asked for."""
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items) for _ in range(count))
        try:
            while True:
                coming.append(thread.submit(next, items))
                yield coming.popleft().result()
        finally:
            thread.shutdown(wait=False, cancel_futures=True)  # nobody asks for the rest


class Stream(Dataset):
    """Items made of rows: `make(row, rng)`. It depends on nothing but (seed, epoch, index)."""

    def __init__(self, shards: Shards, seed: int, make: Callable[[Row, np.random.Generator], tuple[Tensor, ...]]):
        self.shards, self.seed, self.make = shards, seed, make

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, key: tuple) -> tuple[Tensor, ...]:
        epoch, index, *row = key
        row = row[0] if row else self.shards.row(index)  # slow, for who measures and for stand-ins
        try:
            return self.make(row, np.random.default_rng((self.seed, epoch, index)))
        except PictureError as error:
            raise PictureError(f"row {index}: {error}") from error


def open_stream(data: Path | str, gray: bool, seed: int, zoom: float) -> Stream:
    """Pairs if the rows have a `source`, else photos to draw."""
    shards = Shards(data, "train")
    make = partial(pair_of_row, gray=gray, zoom=zoom) if "source" in shards.columns else partial(draw_row, zoom=zoom)
    return Stream(shards, seed, make)


def photo_of_row(row: Row) -> Image.Image:
    """The photo; if it is of another size than the networks, the square in its middle."""
    return crop_square(open_picture(row["target"]), SIZE)


def layout_of_row(row: Row) -> FaceLayout | None:
    points = json.loads(row.get("layout") or "null")
    return FaceLayout(*map(tuple, points)) if points else None


def draw_row(row: Row, rng: np.random.Generator, zoom: float) -> tuple[Tensor, Tensor]:
    photo, layout = augment(np.asarray(photo_of_row(row)), layout_of_row(row), rng, zoom)
    return to_tensor(draw_like_a_hand(photo, rng, layout))[0], to_tensor(photo)[0]


def pair_in_row(row: Row, gray: bool) -> tuple[Image.Image, Image.Image]:
    """Source and target; a label map is scaled without new colours."""
    source, target = open_picture(row["source"]).convert("L" if gray else "RGB"), open_picture(row["target"])
    if source.size != target.size:
        raise DataError(f"a source is {source.width}x{source.height}, its target {target.width}x{target.height}.")
    return scale_pair(source, target, gray)


def pair_of_row(row: Row, rng: np.random.Generator, gray: bool, zoom: float) -> tuple[Tensor, Tensor]:
    source, target = augment_pair(*map(np.asarray, pair_in_row(row, gray)), rng, zoom, smooth=gray)
    return to_tensor(source)[0], to_tensor(target)[0]


def write_shard(path: Path, rows: list[Row]) -> None:
    """The file appears whole or not at all. Rows of one shard have the same columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"name": pa.string(), "source": pa.binary(), "target": pa.binary(), "layout": pa.string()}
    table = pa.Table.from_pylist(rows, schema=pa.schema([(name, kinds[name]) for name in rows[0]]))
    data = io.BytesIO()
    pq.write_table(table, data, row_group_size=GROUP, compression="none")  # JPEG is compressed already
    write(path, data.getvalue())
