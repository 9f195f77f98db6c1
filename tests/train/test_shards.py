import io
import itertools
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from PIL import Image

from train import shards
from train.data import DataError
from train.pix2pix import PRESETS, open_dataset
from train.profile import Profile
from train.run import batches
from train.shards import ShardBatches, Shards, ahead, is_sharded, pair_in_row, place, split_of_file, write_shard

CPU = torch.device("cpu")


def encoded(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twenty-three rows in shards of 9, 9 and 5, in row groups of 2 and a last one of 1; five more held out."""
    monkeypatch.setattr(shards, "GROUP", 2)
    picture = encoded(Image.new("RGB", (8, 8)))
    for split, first, rows in (("train", 0, 9), ("train", 9, 9), ("train", 18, 5), ("val", 23, 5)):
        rows = [{"name": str(i), "target": picture, "layout": json.dumps(i)} for i in range(first, first + rows)]
        write_shard(tmp_path / "shards" / split / f"{first:04d}.parquet", rows)
    return tmp_path / "shards"


def take(sampler: ShardBatches, count: int) -> list[list[int]]:
    """The numbers of the rows of some batches; an index is always that of its row."""
    taken = list(itertools.islice(sampler.read(), count))
    assert all(index == int(row["layout"]) for batch in taken for _, index, row in batch)
    return [[(epoch, index) for epoch, index, _ in batch] for batch in taken]


def test_rows_are_counted_without_reading_them(folder, monkeypatch):
    monkeypatch.setattr(Shards, "read", None)
    train = Shards(folder, "train")
    assert (len(train), len(train.groups), len(Shards(folder, "val"))) == (23, 5 + 5 + 3, 5)


@pytest.mark.parametrize("batch", [1, 4, 30])
def test_every_row_is_seen_once_in_each_epoch_of_the_pile(folder, batch):
    seen = Counter(key for keys in take(ShardBatches(Shards(folder, "train"), batch), 200 // batch) for key in keys)
    whole = range(200 // 23 - 1 - 2 * batch // 23)  # what readers have open may still be unread
    assert set(seen.values()) == {1}
    assert all((epoch, index) in seen for epoch in whole for index in range(23))


@pytest.mark.parametrize("step", [1, 5, 6, 40])
def test_a_resumed_run_sees_exactly_the_rest(folder, step):
    train = Shards(folder, "train")
    assert take(ShardBatches(train, 4, 7, step), 20) == take(ShardBatches(train, 4, 7), step + 20)[step:]


@pytest.mark.parametrize("processes", [2, 4])
def test_the_parts_of_all_processes_are_the_batch_of_one(folder, processes):
    train = Shards(folder, "train")
    parts = [take(ShardBatches(train, 4, 0, 3, (rank, processes)), 10) for rank in range(processes)]
    assert [[key for keys in batch for key in keys] for batch in zip(*parts)] == take(ShardBatches(train, 4, 0, 3), 10)


def test_a_process_reads_only_what_its_part_needs(folder):
    read = []

    class Watched(Shards):
        def read(self, group: int) -> list:
            read.append(group)
            return super().read(group)

    train = Watched(folder, "train")
    take(ShardBatches(train, 4, 0, 0, (0, 4)), 10)
    assert len(read) <= 6, "row groups of two rows, one after the other"


def test_orders_differ_with_seed_and_epoch(folder):
    train = Shards(folder, "train")
    one, two = (take(ShardBatches(train, 1, seed), 46) for seed in (0, 1))
    first, second = [[index for ((_, index),) in part] for part in (one[:23], one[23:])]
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second and one != two


def test_what_is_read_ahead_comes_in_order_and_its_errors_too():
    def items():
        yield from range(20)
        raise DataError("broken shard")

    coming = ahead(items(), 3)
    assert [next(coming) for _ in range(20)] == list(range(20))
    with pytest.raises(DataError, match="broken shard"):
        next(coming)


def test_what_is_read_ahead_and_not_wanted_any_more_is_not_read(monkeypatch):
    begun, go_on = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            go_on.set()
            super().shutdown(wait)

    def items():
        for number in range(20):
            begun.append(number)
            if number:
                go_on.wait(10)
            yield number

    monkeypatch.setattr(shards, "ThreadPoolExecutor", Pool)
    coming = ahead(items(), 5)
    assert next(coming) == 0
    coming.close()
    assert begun in ([0], [0, 1]), "what was being read meanwhile"


@pytest.mark.parametrize(
    "path, split",
    [
        ("/train/0000.parquet", "train"),
        ("/data/train-00000-of-00002.parquet", "train"),
        ("/data/validation-00000-of-00002.parquet", "val"),
        ("/test/0.parquet", "val"),
        ("/trainer/0.parquet", None),
    ],
)
def test_folder_or_name_tell_the_split(path, split):
    assert split_of_file(path) == split


def test_an_address_stays_an_address(tmp_path):
    assert place("hf://datasets/a/b") == "hf://datasets/a/b" and is_sharded("hf://datasets/a/b")
    assert place(str(tmp_path)) == tmp_path and not is_sharded(tmp_path)


@pytest.mark.parametrize("address", ["memory://nothing/here", "nosuch://a/b"])
def test_an_address_without_shards_is_an_error_with_a_remedy(address):
    with pytest.raises(DataError, match=r"no parquet files of the split.*hf://|cannot be read.*Check the"):
        Shards(address, "train")


def test_a_column_of_the_hub_may_have_any_name(tmp_path, photo):
    import datasets

    (tmp_path / "data").mkdir()
    table = datasets.Dataset.from_dict({"label": [0], "image": [photo]})
    table = table.cast_column("image", datasets.Image())
    table.to_parquet(str(tmp_path / "data" / "train-00000-of-00001.parquet"))
    (row,) = Shards(tmp_path, "train").first_rows(9)
    assert Image.open(io.BytesIO(row["target"])).size == photo.size
    table.select_columns(["label"]).to_parquet(str(tmp_path / "data" / "train-00000-of-00001.parquet"))
    with pytest.raises(DataError, match="no column of pictures among label"):
        Shards(tmp_path, "train")


def test_a_damaged_file_is_named(folder):
    file = folder / "train" / "0009.parquet"
    data, train = file.read_bytes(), Shards(folder, "train")
    for damaged in (b"", data[:-20], data[:4] + bytes(len(data) - 4)):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{file} is damaged or cannot be read \(.*write that file anew"):
            Shards(folder, "train")
    with pytest.raises(DataError, match=rf"{file} is damaged"):
        train.read(5)


def test_whoever_measures_reads_a_row_group_once(tmp_path, portrait, monkeypatch):
    rows = [{"name": str(i), "target": encoded(portrait(i)), "layout": "null"} for i in range(3)]
    write_shard(tmp_path / "train" / "0.parquet", rows)
    stream, read, groups = open_dataset(tmp_path, PRESETS["sketch2face"]["best"]), Shards.read, []
    monkeypatch.setattr(Shards, "read", lambda shards, group: groups.append(group) or read(shards, group))
    profile = Profile(1, CPU)
    profile.time_items(stream, batch_size=2)
    assert groups == [0] and profile.item_seconds > 0


def test_streamed_faces_are_what_the_folder_would_have_been_but_for_their_order(tmp_path, portrait, unet_config):
    config = replace(PRESETS["sketch2face"]["best"], generator=unet_config)
    rows = [{"name": str(i), "target": encoded(portrait(i)), "layout": "null"} for i in range(4)]
    write_shard(tmp_path / "shards" / "train" / "0.parquet", rows)
    (tmp_path / "files" / "train").mkdir(parents=True)
    for i in range(4):
        portrait(i).save(tmp_path / "files" / "train" / f"{i}.png")
    plain = open_dataset(tmp_path / "files", config)
    stream = open_dataset(tmp_path / "shards", config)
    assert len(stream) == len(plain) == 4
    (keys,) = itertools.islice(ShardBatches(stream.shards, 2).read(), 1)
    for key in keys:
        assert all(torch.equal(a, b) for a, b in zip(stream[key], plain[key[:2]]))
    source, target = next(batches(stream, 2, 0, 0, 1, 0, CPU))
    assert (source.shape, target.shape) == ((2, 1, 256, 256), (2, 3, 256, 256))


def test_streamed_pairs_keep_the_colours_of_their_maps(tmp_path, building):
    source, target = building(0)
    large = [picture.resize((300, 300), Image.Resampling.NEAREST) for picture in (source, target)]
    row = dict(zip(("source", "target"), map(encoded, large)))
    small, photo = pair_in_row(row, gray=False)
    assert small.size == photo.size == (256, 256)
    assert {color for _, color in small.getcolors()} <= {color for _, color in source.getcolors()}


def test_a_row_that_cannot_be_read_is_named_and_the_next_one_stands_in_for_it(folder, capsys):
    picture = encoded(Image.new("RGB", (256, 256)))
    rows = [{"name": str(i), "target": b"no picture" if i == 2 else picture, "layout": "null"} for i in range(4)]
    write_shard(folder.parent / "damaged" / "train" / "0.parquet", rows)
    stream = open_dataset(folder.parent / "damaged", PRESETS["sketch2face"]["best"])
    for source, target in batches(stream, 2, 0, 0, 4, 0, CPU):
        assert (source.shape, target.shape) == ((2, 1, 256, 256), (2, 3, 256, 256))
    assert capsys.readouterr().out.count("warning: row 2: ") == 1
