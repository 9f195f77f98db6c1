"""docs/deploy.md: every command in it, against a Hub on this computer."""

import re
import shlex
import shutil
from pathlib import Path

import datasets
import pytest
from PIL import Image

import app
import gan_core.__main__
from tests.fake_hub import FakeHub
from train import prepare, publish

ROOT = publish.ROOT
PAGE = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def reader(tmp_path, monkeypatch, fake_hub, small_models, doodle, parquet):
    """Somebody with an account, small models in a copy of this repository, and runs, notes and a drawing of their own.

    Returns the pages that were started.
    """
    copy = tmp_path / "repository"
    shutil.copytree(ROOT / "assets", copy / "assets", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(ROOT / "gan_core", copy / "gan_core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("app.py", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    for file in small_models.iterdir():
        shutil.copy(file, copy / "assets" / "checkpoints")
    (copy / "runs" / "mine").mkdir(parents=True)
    (copy / "runs" / "houses").mkdir()
    shutil.copy(small_models / "sketch2face.safetensors", copy / "runs" / "mine")
    shutil.copy(small_models / "facades.safetensors", copy / "runs" / "houses")
    (copy / "notes.md").write_text("My own drawings.")
    doodle.save(copy / "drawing.png")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("HF_TOKEN", FakeHub.TOKEN)
    monkeypatch.setattr(publish, "ROOT", copy)
    monkeypatch.setattr(app, "ASSETS", copy / "assets")
    monkeypatch.setattr(publish, "rehearse", lambda folder, reuse: ["all"])  # see test_publish
    monkeypatch.setattr(prepare.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(prepare, "crop_face", lambda photo, size: photo.resize((size, size)))
    local = datasets.load_dataset(str(parquet), cache_dir=str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: local)
    pages = []
    monkeypatch.setattr(app, "serve", lambda demo, **options: pages.append(options))
    return pages


def run(command: str) -> None:
    words = shlex.split(command)
    programs = {
        "python app.py": lambda arguments: app.main(arguments),
        "python -m gan_core": lambda arguments: gan_core.__main__.main(arguments),
        "python -m train.publish": publish.main,
        "python -m train.prepare": prepare.main,
    }
    program = next(name for name in programs if command.startswith(f"{name} "))
    assert not programs[program](words[len(program.split()) :]), command


def test_every_command_of_the_page_works(reader, fake_hub, capsys):
    for language, block in BLOCKS:
        if language == "bash":
            for command in block.splitlines():
                run(command)
        else:
            found = {}
            exec(block, found)
            assert found["predictor"].task.name == "sketch2face"
    assert fake_hub.repos.keys() == {"spaces/someone/faces", "models/someone/lines"}
    assert [made.get("hardware") for made in fake_hub.made] == ["cpu-basic", "cpu-basic", "zero-a10g", None]
    assert [page["server_name"] for page in reader] == ["0.0.0.0", None, None]
    assert Image.open("face.png").size == (256, 256)
    assert all((Path("data") / name / "train").is_dir() for name in ("anime", "faces"))
    assert b"My own drawings." in fake_hub.repos["models/someone/lines"]["README.md"]
