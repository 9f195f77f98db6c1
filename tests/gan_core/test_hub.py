"""Downloads from a Hub on this computer."""

import argparse

import pytest
from PIL import Image

from gan_core import Pix2PixPredictor, hub
from gan_core.__main__ import main
from gan_core.checkpoint import CheckpointError
from tests.fake_hub import FakeHub


@pytest.fixture
def faces(fake_hub, small_models):
    """A Hub with one model, someone/faces."""
    data = (small_models / "sketch2face.safetensors").read_bytes()
    fake_hub.repos["models/someone/faces"] = {hub.WEIGHTS: data, "config.json": b"{}"}
    return fake_hub


def refusal(place: str) -> str:
    with pytest.raises(CheckpointError) as error:
        hub.find(place)
    return str(error.value)


def test_a_file_stays_what_it_is(fake_hub, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"")
    assert hub.find(tmp_path / "a.bin") == tmp_path / "a.bin"
    assert hub.find("gone/a.safetensors").name == "a.safetensors"  # the reader says that it is missing
    assert not fake_hub.asked


def test_a_model_is_fetched_once_and_opens_as_any_checkpoint(faces, doodle):
    file = hub.find("someone/faces")
    assert Pix2PixPredictor.from_checkpoint(file).predict(doodle).size == (256, 256)
    before = faces.asked.count("/someone/faces/resolve/main/model.safetensors")
    assert hub.find("someone/faces") == file
    # It is asked whether there is a newer one, and the file is not sent again.
    assert faces.asked.count("/someone/faces/resolve/main/model.safetensors") == before + 1 == 3
    assert {path.rpartition("/")[2] for path in faces.asked if "/resolve/" in path} == {hub.WEIGHTS}


def test_what_was_fetched_is_there_without_a_network(faces, monkeypatch):
    file = hub.find("someone/faces")
    faces.close()
    assert hub.find("someone/faces") == file
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.find("someone/faces") == file


def test_without_a_network_it_says_so(fake_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its retries
    fake_hub.close()
    said = refusal("someone/faces")
    assert "someone/faces is not here yet, and the Hub cannot be reached" in said
    assert "Connect to the internet, or give a file." in said


def test_offline_by_choice_it_says_so(fake_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids it now. Unset it, or give a file." in refusal("someone/faces")


def test_what_nobody_may_see_takes_a_login(faces, monkeypatch):
    assert "there is no someone/houses on the Hub that you may see" in refusal("someone/houses")
    faces.private.add("models/someone/faces")
    assert "if it is private, log in by `hf auth login`, or set HF_TOKEN" in refusal("someone/faces")
    monkeypatch.setenv("HF_TOKEN", FakeHub.TOKEN)
    assert hub.find("someone/faces").is_file()


def test_a_gated_model_takes_consent(faces):
    faces.gated.add("models/someone/faces")
    assert f"do so at {faces.url}/someone/faces, then log in" in refusal("someone/faces")


def test_pickled_weights_are_not_asked_for(fake_hub):
    fake_hub.repos["models/someone/pickles"] = {"pytorch_model.bin": b"cos\nsystem\n"}
    said = refusal("someone/pickles")
    assert "someone/pickles holds no model.safetensors, and nothing but safetensors is loaded" in said
    assert not any("pytorch_model" in path for path in fake_hub.asked)


@pytest.mark.parametrize("place", ["faces", "a/b/c", "https://huggingface.co/a/b", "../a", "a/..", "", "a b/c"])
def test_other_names_are_refused_before_anything_is_asked(fake_hub, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(place)
    assert not fake_hub.asked


def test_a_folder_is_no_model(fake_hub, tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert refusal("runs/mine") == "runs/mine is a folder. Name the .safetensors file in it."


def test_a_model_is_given_with_its_task(faces, small_models):
    task, place, file = hub.read_model("sketch2face=someone/faces")
    assert (task, place) == ("sketch2face", "someone/faces") and file.is_file()
    own = small_models / "vaegan.safetensors"
    assert hub.read_model(f"vaegan={own}") == ("vaegan", str(own), own)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("someone/faces", "someone/faces is not TASK=FILE or TASK=USER/REPO; tasks: sketch2face, facades"),
        ("faces=someone/faces", "faces=someone/faces is not TASK=FILE or TASK=USER/REPO"),
        ("facades=", "is not TASK=FILE"),
        ("facades=someone/faces", "is a checkpoint for sketch2face, not for facades"),
        ("facades=gone.safetensors", "there is no checkpoint at gone.safetensors"),
        ("facades=someone/text", "is damaged or is no safetensors file"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(faces, text, said):
    faces.repos["models/someone/text"] = {hub.WEIGHTS: b"hello"}
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        hub.read_model(text)


def test_the_command_line_takes_a_model_from_the_hub(faces, doodle, tmp_path, capsys):
    doodle.save(tmp_path / "drawing.png")
    arguments = ["sketch2face", str(tmp_path / "drawing.png"), "-o", str(tmp_path / "face.png"), "--checkpoint"]
    assert main([*arguments, "someone/faces"]) == 0
    assert Image.open(tmp_path / "face.png").size == (256, 256)
    assert main([*arguments, "someone/houses"]) == 1
    assert "error: there is no someone/houses on the Hub that you may see" in capsys.readouterr().err
