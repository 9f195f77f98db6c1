from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_core.lessons import TWIN_SIDE, load_twin
from train import lessons
from train.lessons import FACADE_TWINS, FACE_SIDE, FACE_TWINS, both, kl, main, shrink


@pytest.fixture
def pairs(tmp_path, building):
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        for kind in ("source", "target"):
            (tmp_path / "facades" / split / kind).mkdir(parents=True)
        for seed in seeds:
            for kind, picture in zip(("source", "target"), building(seed)):
                picture.save(tmp_path / "facades" / split / kind / f"{seed}.png")
    return tmp_path / "facades"


@pytest.fixture
def faces(tmp_path, portrait):
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        (tmp_path / "anime" / split).mkdir(parents=True)
        for seed in seeds:
            portrait(seed, 96).save(tmp_path / "anime" / split / f"{seed}.jpg")
    return tmp_path / "anime"


def test_twins_differ_in_one_thing():
    assert FACADE_TWINS["l1"] == replace(both, gan_weight=0.0)
    assert FACADE_TWINS["gan"] == replace(both, l1_weight=0.0)
    unskipped = replace(both.generator, skips=False)
    assert FACADE_TWINS["no_skips"] == replace(FACADE_TWINS["l1"], generator=unskipped)
    assert FACE_TWINS["reconstruction"] == replace(kl, kl_weight=0.0)


def test_small_pictures_lie_beside_the_data_and_maps_keep_their_colours(pairs):
    small = shrink(pairs, 32)
    assert small == pairs.with_name("facades-32")
    label_map = Image.open(small / "train" / "source" / "0.png")
    assert label_map.size == (32, 32)
    colours = {colour for _, colour in Image.open(pairs / "train" / "source" / "0.png").getcolors()}
    assert {colour for _, colour in label_map.getcolors()} <= colours
    label_map.resize((8, 8)).save(small / "train" / "source" / "0.png")
    shrink(pairs, 32)  # what is there already is kept
    assert Image.open(small / "train" / "source" / "0.png").size == (8, 8)


@pytest.mark.parametrize("name", ["l1", "both"])
def test_a_facade_twin_ends_as_a_file_for_its_lesson(name, pairs, tmp_path):
    run = tmp_path / "run"
    main([name, "--data", str(pairs), "--out", str(run), "--to", str(tmp_path / "to"), "--stop-at", "2"])
    twin = load_twin(tmp_path / "to" / f"{name}.safetensors")
    assert twin.images == 2 * both.batch_size
    assert {"l1", "sharpness_ratio", "sliced_wasserstein"} <= set(twin.figures)
    assert twin.model.predict(Image.open(pairs / "val" / "source" / "4.png")).size == (TWIN_SIDE, TWIN_SIDE)
    with pytest.raises(SystemExit, match="holds a run already"):
        main([name, "--data", str(pairs), "--out", str(run), "--to", str(tmp_path / "to")])


def test_a_face_twin_ends_as_a_file_for_its_lesson(faces, tmp_path, monkeypatch):
    monkeypatch.setitem(lessons.FACE_TWINS, "kl", replace(kl, batch_size=2))
    main(["kl", "--data", str(faces), "--out", str(tmp_path / "run"), "--to", str(tmp_path), "--stop-at", "2"])
    twin = load_twin(tmp_path / "kl.safetensors")
    assert twin.codes.shape == (4, 2)
    assert {"l1", "kl", "prior_diversity", "prior_sliced_wasserstein"} <= set(twin.figures)
    assert np.asarray(twin.model.decode(twin.codes)[0]).shape == (FACE_SIDE, FACE_SIDE, 3)


def test_without_a_name_a_run_gets_the_next_number_and_nobody_else_gets_in(pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(name, data, run, to, stop_at):
        assert run.path == Path("runs/both-001")
        main(["both", "--data", str(data), "--out", str(run.path)])

    monkeypatch.setattr(lessons, "make", make)
    with pytest.raises(SystemExit, match="error: another process is writing to runs/both-001"):
        main(["both", "--data", str(pairs)])


def test_what_the_disk_refuses_ends_the_command_with_a_message(pairs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lessons, "make", full)
    with pytest.raises(SystemExit, match=r"^error: .*No space left on device"):
        main(["both", "--data", str(pairs), "--out", str(tmp_path / "run")])


def test_missing_data_ends_the_command_with_a_message_and_makes_no_folder(tmp_path):
    with pytest.raises(SystemExit, match="is not a folder"):
        main(["kl", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run"), "--to", str(tmp_path)])
    assert not (tmp_path / "run").exists()
