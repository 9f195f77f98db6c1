import io
import json
import re
import struct
import zlib

import datasets
import numpy as np
import pytest
from PIL import Image

from gan_core.facades import SIZE
from gan_core.palette import FACADES
from train.data import DataError, PairFolder
from train.prepare import DONE, main, prepare_facades


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def write(source, building):
    """Writes a building to files of the source: side by side, or map and photo each to its own."""

    def write(seed: int, *paths: str, order: str = "map-photo", size: int = 128) -> None:
        label_map, photo = building(seed, size)
        pictures = (label_map, photo) if order == "map-photo" else (photo, label_map)
        for path in paths:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
        if len(paths) == 1:
            beside(*pictures).save(source / paths[0], quality=95, subsampling=0)
        for picture, path in zip(pictures, paths if len(paths) == 2 else ()):
            picture.save(source / path, quality=95, subsampling=0)

    return write


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    both = Image.new("RGB", (left.width + right.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def prepare(source, out, **options) -> None:
    prepare_facades(str(source), out, workers=1, **options)


def written(out) -> dict[str, int]:
    return {p.relative_to(out).as_posix(): p.stat().st_mtime_ns for p in sorted(out.glob("*/*/*")) if p.is_file()}


def names(out) -> dict[str, set[str]]:
    """Split -> names of its pairs."""
    return {split: {p.stem for p in (out / split / "source").glob("*")} for split in ("train", "val")}


def skipped(out) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in (out / "skipped.txt").read_text().splitlines())


def is_the_building(out, split: str, name: str, pair: tuple[Image.Image, Image.Image]) -> bool:
    """Whether the pair on disk is a map of exact colours and its photo, not the other way round."""
    label_map = Image.open(out / split / "source" / f"{name}.png")
    photo = Image.open(out / split / "target" / f"{name}.jpg")
    expected = [picture.resize((SIZE, SIZE), Image.Resampling.NEAREST) for picture in pair]
    assert label_map.size == photo.size == (SIZE, SIZE)
    assert {color for _, color in label_map.getcolors(SIZE * SIZE)} <= set(FACADES.colors)
    right = (FACADES.to_labels(label_map) == FACADES.to_labels(expected[0])).mean()
    difference = np.abs(np.asarray(photo).astype(int) - np.asarray(expected[1])).mean()
    return right > 0.98 and difference < 6


# --- where the pairs are


@pytest.mark.parametrize("order", ["map-photo", "photo-map"])
@pytest.mark.parametrize("asked", ["detect", "right"])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_side_by_side_pictures_become_pairs_whichever_half_is_the_map(
    source, out, write, building, order, asked, ending
):
    for seed in range(2):
        write(seed, f"{seed}.{ending}", order=order)
    prepare(source, out, val_share=0.0, order=order if asked == "right" else asked)
    assert names(out) == {"train": {"0", "1"}, "val": set()}
    assert all(is_the_building(out, "train", str(seed), building(seed, 128)) for seed in range(2))


def test_each_pair_is_looked_at_for_itself(source, out, write, building):
    write(0, "0.png", order="map-photo")
    write(1, "1.png", order="photo-map")
    prepare(source, out, val_share=0.0)
    assert all(is_the_building(out, "train", str(seed), building(seed, 128)) for seed in range(2))


def test_two_folders_of_equal_names_become_pairs(source, out, write, building):
    for seed in range(2):
        write(seed, f"labels/{seed}.png", f"photos/{seed}.jpg")
    prepare(source, out, val_share=0.0)
    assert names(out)["train"] == {"0", "1"}
    assert all(is_the_building(out, "train", str(seed), building(seed, 128)) for seed in range(2))


def test_two_folders_may_be_split_inside(source, out, write):
    write(0, "labels/train/x.png", "photos/train/x.jpg")
    write(1, "labels/test/x.png", "photos/test/x.jpg")
    prepare(source, out)
    assert names(out) == {"train": {"x"}, "val": {"x"}}


def test_the_original_cmp_base_is_read_by_its_numbers(source, out, building):
    """Photo and map of one name; the map has a palette of its own, whose colours mean nothing here."""
    for seed in range(2):
        label_map, photo = building(seed, 128)
        numbers = Image.fromarray(FACADES.to_labels(label_map) + 1).convert("P")
        numbers.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
        numbers.save(source / f"cmp_b000{seed}.png")
        photo.save(source / f"cmp_b000{seed}.jpg", quality=95, subsampling=0)
        (source / f"cmp_b000{seed}.xml").write_text("<objects/>")
    prepare(source, out, val_share=0.0)
    for seed in range(2):
        assert is_the_building(out, "train", f"cmp_b000{seed}", building(seed, 128))
        read = FACADES.to_labels(Image.open(out / "train" / "source" / f"cmp_b000{seed}.png"))
        assert set(np.unique(read)) == set(np.unique(FACADES.to_labels(building(seed, 128)[0])))


def test_a_palette_png_in_class_colours_is_read_by_its_colours(source, out, building):
    label_map, photo = building(0, 128)
    label_map.quantize(64).save(source / "a.png")
    photo.save(source / "a.jpg", quality=95, subsampling=0)
    prepare(source, out, val_share=0.0)
    assert is_the_building(out, "train", "a", building(0, 128))


# --- what is held out


@pytest.mark.parametrize("held_out", ["test", "val", "validation", "eval"])
def test_a_held_out_folder_becomes_val(source, out, write, held_out):
    write(0, "train/a.png")
    write(1, "train/b.png")
    write(2, f"{held_out}/c.png")
    prepare(source, out, val_share=1.0)
    assert names(out) == {"train": {"a", "b"}, "val": {"c"}}


def test_train_val_and_test_may_use_the_same_names(source, out, write, building):
    """As in the set of pix2pix's authors: train/1.jpg, val/1.jpg and test/1.jpg are three buildings."""
    for seed, split in enumerate(("train", "val", "test")):
        write(seed, f"{split}/1.jpg")
        write(seed + 3, f"{split}/2.jpg")
    prepare(source, out)
    found = names(out)
    assert (len(found["train"]), len(found["val"])) == (2, 4)
    assert not (out / "skipped.txt").read_text()
    pairs = {name: building(seed, 128) for seed, name in ((1, "val_1"), (2, "test_1"))}
    assert all(is_the_building(out, "val", name, pair) for name, pair in pairs.items())


def test_without_folders_a_stable_share_is_held_out(source, tmp_path, write):
    for seed in range(40):
        write(seed, f"{seed}.png", size=32)
    first, second, more = (tmp_path / name for name in ("first", "second", "more"))
    prepare(source, first, val_share=0.3)
    prepare(source, second, val_share=0.3)
    assert names(first) == names(second)
    assert 5 < len(names(first)["val"]) < 20
    prepare(source, more, val_share=0.6)
    assert names(first)["val"] < names(more)["val"]


# --- what cannot be used


def test_an_order_that_is_wrong_is_a_reason_to_skip(source, out, write, building):
    write(0, "a.png", order="map-photo")
    write(1, "b.png", order="photo-map")
    prepare(source, out, val_share=0.0, order="photo-map")
    assert names(out)["train"] == {"b"}
    assert skipped(out).keys() == {"a.png"}
    assert "it is not photo-map. Leave out --order" in skipped(out)["a.png"]
    prepare(source, out, val_share=0.0)  # as the message says
    assert names(out)["train"] == {"a", "b"}
    assert not skipped(out)
    assert is_the_building(out, "train", "a", building(0, 128))


@pytest.mark.parametrize("order", ["detect", "map-photo", "photo-map"])
def test_pairs_without_a_map_or_without_a_photo_are_skipped(source, out, write, building, order):
    write(0, "good.png", order="map-photo" if order == "detect" else order)
    beside(building(1, 128)[1], building(2, 128)[1]).save(source / "photos.png")
    beside(building(1, 128)[0], building(2, 128)[0]).save(source / "maps.png")
    prepare(source, out, val_share=0.0, order=order)
    assert names(out)["train"] == {"good"}
    reasons = skipped(out)
    assert reasons.keys() == {"photos.png", "maps.png"}
    assert "is no label map" in reasons["photos.png"]
    assert "both pictures are label maps; a photo is missing" in reasons["maps.png"]


def test_a_photo_and_a_map_of_different_shapes_are_skipped(source, out, write, building):
    for seed, name in enumerate("ab"):
        write(seed, f"labels/{name}.png", f"photos/{name}.jpg")
    building(0, 128)[0].resize((128, 64)).save(source / "labels" / "a.png")
    building(1, 256)[0].save(source / "labels" / "b.png")  # another size, but the same shape
    prepare(source, out, val_share=0.0)
    assert names(out)["train"] == {"b"}
    assert skipped(out) == {"labels/a.png": "one is 128x64 and the other 128x128; photo and map must have one shape"}


def test_a_picture_among_pairs_that_is_not_twice_as_wide_is_skipped(source, out, write, photo):
    write(0, "a.png")
    photo.resize((300, 100)).save(source / "b.png")
    prepare(source, out, val_share=0.0)
    assert names(out)["train"] == {"a"}
    assert "300x100; a photo and a map side by side are twice as wide" in skipped(out)["b.png"]


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 2.5 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["0.png", "z.png"])
@pytest.mark.parametrize(
    "content, reason", [(b"no picture", "is not a picture"), (bomb(), "large|megapixels")], ids=["text", "bomb"]
)
def test_a_broken_file_is_skipped_first_or_last(source, out, write, name, content, reason):
    write(0, "a.png")
    (source / name).write_bytes(content)
    prepare(source, out, val_share=0.0)
    assert names(out)["train"] == {"a"}
    assert skipped(out).keys() == {name}
    assert re.search(reason, skipped(out)[name])


@pytest.mark.parametrize("odd", ["labels/b.png", "photos/b.jpg"])
def test_a_file_without_partner_is_named(source, out, write, odd):
    for seed, name in enumerate("abc"):
        write(seed, f"labels/{name}.png", f"photos/{name}.jpg")
    (source / odd).unlink()
    with pytest.raises(DataError, match=r"(labels|photos)/b\.(png|jpg) has no partner of the same name"):
        prepare(source, out)
    assert not out.exists()


def test_a_third_file_of_one_name_is_named(source, out, write, photo):
    write(0, "labels/a.png", "photos/a.jpg")
    photo.save(source / "a.webp")
    with pytest.raises(DataError, match=r"a\.webp has 2 partners of the same name"):
        prepare(source, out)


def test_photos_alone_are_told_what_is_needed(source, out, photo):
    photo.save(source / "a.png")
    with pytest.raises(DataError, match=r"a\.png is 256x256 and has no partner.*side-by-side pictures"):
        prepare(source, out)


def test_nothing_usable_is_an_error_with_the_first_reason(source, out, building):
    for seed in range(2):
        beside(building(seed, 64)[1], building(seed, 64)[1]).save(source / f"{seed}.png")
    with pytest.raises(DataError, match=r"none of the 2 pairs in .*source.* The first: 0\.png: 100% of this picture"):
        prepare(source, out)
    assert len(skipped(out)) == 2
    assert not (out / "contact_sheet.png").exists()


# --- going on


def test_a_run_goes_on_where_it_was_interrupted(source, out, write):
    """The last line of its log was cut short: that pair is made again, no other."""
    for seed in range(4):
        write(seed, f"{seed}.png")
    prepare(source, out, val_share=0.0)
    before, log = written(out), (out / DONE).read_text()
    (out / DONE).write_text(log.rstrip("\n")[:-9])
    (out / "train" / "source" / "3.png").unlink()
    prepare(source, out, val_share=0.0)
    after = written(out)
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == {"train/source/3.png", "train/target/3.jpg"}
    assert (out / DONE).read_text() == log
    assert [json.loads(line)["job"] for line in log.splitlines()] == [f"{seed}.png" for seed in range(4)]


def test_a_second_run_does_nothing_again_but_new_pairs_join(source, out, write):
    write(0, "0.png")
    prepare(source, out, val_share=0.0)
    before = written(out)
    write(1, "1.png")
    prepare(source, out, val_share=0.0)
    after = written(out)
    assert names(out)["train"] == {"0", "1"}
    assert all(after[name] == before[name] for name in before)


# --- data sets


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def dataset(no_network, source, building):
    """Writes a parquet file with a column of maps, one of photos, and one of numbers."""

    def dataset(split: str, seeds: list[int], broken: int | None = None, columns: int = 2) -> None:
        pairs = [building(seed, 128) for seed in seeds]
        names = ["photo", "map", "again"][:columns]
        rows = {"number": seeds, **{name: [encode(pair[i % 2 == 0]) for pair in pairs] for i, name in enumerate(names)}}
        if broken is not None:
            rows["map"][broken] = None
        features = {"number": datasets.Value("int64"), **{name: datasets.Image() for name in names}}
        table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        table.to_parquet(source / f"{split}-00000-of-00001.parquet")

    return dataset


def encode(picture: Image.Image) -> dict:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_a_folder_of_parquet_files_is_read_with_its_splits(source, out, dataset, building):
    dataset("train", [0, 1])
    dataset("test", [2])
    prepare(source, out)
    assert names(out) == {"train": {"train_00000", "train_00001"}, "val": {"test_00000"}}
    for seed, (split, name) in enumerate([("train", "train_00000"), ("train", "train_00001"), ("val", "test_00000")]):
        assert is_the_building(out, split, name, building(seed, 128))


def test_a_data_set_without_splits_holds_out_a_stable_share(source, out, dataset):
    dataset("train", list(range(30)))
    prepare(source, out, val_share=0.3)
    counts = {split: len(found) for split, found in names(out).items()}
    assert sum(counts.values()) == 30
    assert 3 < counts["val"] < 17


def test_a_row_without_its_map_is_skipped(source, out, dataset):
    dataset("train", [0, 1, 2], broken=1)
    prepare(source, out, val_share=0.0)
    assert names(out)["train"] == {"train_00000", "train_00002"}
    assert skipped(out) == {"train_00001": "its map is missing"}


@pytest.mark.parametrize("columns", [1, 3])
def test_a_data_set_needs_two_image_columns(source, out, dataset, columns):
    dataset("train", [0], columns=columns)
    with pytest.raises(DataError, match=f"has {columns} image columns; two are needed"):
        prepare(source, out)


# --- what one sees


def test_the_pairs_can_be_trained_on_and_looked_at(source, out, write):
    for seed in range(3):
        write(seed, f"{seed}.png", size=64)
    prepare(source, out, val_share=0.0)
    pairs = PairFolder(out / "train")
    assert len(pairs) == 3
    assert [x.shape for x in pairs[0, 0]] == [(3, SIZE, SIZE)] * 2
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size == (3 * (SIZE + 2) - 2, 2 * (SIZE + 2) - 2)
        shares = [FACADES.near_share(sheet.crop((0, y, sheet.width, y + SIZE))) for y in (0, SIZE + 2)]
    assert shares[0] > 0.95 and shares[1] < 0.05, "the maps, and below them the photos"


def test_the_command_prepares_and_says_what_it_made(source, out, write, building, capsys):
    write(0, "train/a.png")
    write(1, "test/b.png")
    beside(building(0, 64)[1], building(0, 64)[1]).save(source / "train" / "c.png")
    main(["facades", str(source), str(out), "--workers", "1"])
    said = capsys.readouterr().out
    assert f"1 pairs in {out / 'train'}, 1 in {out / 'val'}" in said
    assert str(out / "contact_sheet.png") in said
    assert "1 skipped; the reasons are in" in said


@pytest.mark.parametrize("folder", ["gone", "empty"])
def test_the_command_ends_with_a_message_where_there_are_no_pairs(no_network, tmp_path, out, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=rf"error: .*{folder} is neither a folder of pictures nor a data set"):
        main(["facades", str(tmp_path / folder), str(out)])


def test_the_command_ends_with_a_message_where_the_hub_cannot_be_reached(monkeypatch, out):
    def offline(name):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(SystemExit, match=r"error: somebody/facades is neither.*no route to host.*connection"):
        main(["facades", "somebody/facades", str(out)])


def test_an_unknown_order_is_refused(source, out, capsys):
    with pytest.raises(SystemExit):
        main(["facades", str(source), str(out), "--order", "sideways"])
    assert "--order: invalid choice" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(source, out, write, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    write(0, "a.png")
    monkeypatch.setattr("train.prepare.prepare_facade", interrupted)
    with pytest.raises(SystemExit, match=r"Interrupted\. Run the same command again"):
        main(["facades", str(source), str(out), "--workers", "1"])
