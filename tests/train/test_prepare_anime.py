import json

import numpy as np
import pytest
from PIL import Image

from train.data import DataError, list_pictures
from train.pictures import PicturesInMemory
from train.prepare import DONE, main, prepare_anime


@pytest.fixture
def source(tmp_path, portrait):
    """Three faces of three shapes to train on, one held out; one gray, one with transparency, one no picture."""
    folder = tmp_path / "source"
    for split, seed, size in (("train", 0, 96), ("train", 1, 200), ("val", 2, 64)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        portrait(seed, size).save(folder / split / f"{seed}.png")
    portrait(3, 150).resize((150, 90)).save(folder / "train" / "wide.jpg")
    portrait(4, 96).convert("L").save(folder / "train" / "gray.jpg")
    portrait(5, 96).convert("RGBA").save(folder / "val" / "clear.png")
    (folder / "train" / "text.png").write_text("no picture")
    return folder


def names(out, split: str) -> list[str]:
    return [path.name for path in list_pictures(out / split)]


def test_a_folder_becomes_squares_of_96_in_its_own_splits(source, tmp_path, portrait):
    out = tmp_path / "out"
    prepare_anime(str(source), out, workers=1)
    assert (names(out, "train"), names(out, "val")) == (["0.jpg", "1.jpg", "wide.jpg"], ["2.jpg"])
    assert len(PicturesInMemory(out / "train", 96)) == 3
    written = np.asarray(Image.open(out / "train" / "0.jpg")).astype(int)
    assert np.abs(written - np.asarray(portrait(0, 96))).mean() < 4
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size == (4 * 98 - 2, 96)


def test_only_three_channel_pictures_are_kept_and_the_others_are_listed(source, tmp_path):
    prepare_anime(str(source), tmp_path / "out", workers=1)
    skipped = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert len(skipped) == 3
    assert any(line.startswith("train/gray.jpg: it has 1 channel(s), L; only three-channel") for line in skipped)
    assert any(line.startswith("val/clear.png: it has 4 channel(s), RGBA;") for line in skipped)
    assert any(line.startswith("train/text.png: 'text.png' is not a picture") for line in skipped)


def test_a_run_goes_on_where_it_was_interrupted(source, tmp_path):
    out = tmp_path / "out"
    prepare_anime(str(source), out, workers=1)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (out / "train").iterdir()}
    lines = (out / DONE).read_text().splitlines()
    lost = json.loads(lines[0])
    (out / DONE).write_text("\n".join(lines[1:]) + "\n")
    (out / lost["split"] / lost["name"]).unlink()
    prepare_anime(str(source), out, workers=1)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (out / "train").iterdir()}
    assert {path: data for path, (data, _) in before.items()} == {path: data for path, (data, _) in after.items()}
    assert [path.name for path in before if before[path][1] != after[path][1]] == [lost["name"]]


def test_without_splits_a_stable_share_is_held_out(tmp_path, portrait):
    (tmp_path / "flat").mkdir()
    for seed in range(12):
        portrait(seed, 32).save(tmp_path / "flat" / f"{seed}.png")
    for name in ("a", "b"):
        prepare_anime(str(tmp_path / "flat"), tmp_path / name, val_share=0.4, workers=1)
    assert names(tmp_path / "a", "val") == names(tmp_path / "b", "val")
    assert len(names(tmp_path / "a", "val")) + len(names(tmp_path / "a", "train")) == 12


def test_a_data_set_in_parquet_becomes_pictures(parquet, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out"
    prepare_anime(str(parquet), out, val_share=0.3, workers=1)
    assert len(names(out, "train")) + len(names(out, "val")) == 9
    assert names(out, "train")[0].startswith("train_00000")
    assert (out / "skipped.txt").read_text().count("only three-channel") == 1


def test_two_pictures_that_would_get_one_name_are_named(tmp_path, portrait):
    (tmp_path / "twins").mkdir()
    portrait(0, 32).save(tmp_path / "twins" / "a.png")
    portrait(1, 32).save(tmp_path / "twins" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png would both become a\.jpg\. Rename"):
        prepare_anime(str(tmp_path / "twins"), tmp_path / "out", workers=1)


def test_nothing_but_gray_pictures_is_an_error(tmp_path):
    (tmp_path / "gray").mkdir()
    Image.new("L", (40, 40)).save(tmp_path / "gray" / "a.png")
    with pytest.raises(DataError, match=r"none of the 1 pictures.*skipped\.txt"):
        prepare_anime(str(tmp_path / "gray"), tmp_path / "out", workers=1)


def test_the_command_prepares_and_says_what_it_made(source, tmp_path, capsys):
    main(["anime", str(source), str(tmp_path / "out"), "--workers", "2"])
    said = capsys.readouterr().out
    assert f"3 faces in {tmp_path / 'out' / 'train'}, 1 in" in said
    assert "3 skipped" in said


def test_a_source_that_is_nothing_ends_the_command_with_a_message(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"error: .*empty is neither a folder of pictures nor a data set"):
        main(["anime", str(tmp_path / "empty"), str(tmp_path / "out")])


def test_a_data_set_without_pictures_is_named(tmp_path):
    import datasets

    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict({"label": [1, 2]}).to_parquet(tmp_path / "hub" / "train.parquet")
    with pytest.raises(DataError, match="has no image column"):
        prepare_anime(str(tmp_path / "hub"), tmp_path / "out", workers=1)
