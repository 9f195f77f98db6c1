"""README.md and docs/: every link leads somewhere, and the commands of docs/train.md work, from photos to a page."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import app
from tests.fake_mediapipe import MEDIAPIPE
from train import evaluate, landmarks, pix2pix, prepare

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "assets").rglob("*.md"))]
SMALL = ["--stop-at", "1", "--batch-size", "2", "--workers", "0"]  # one step of each training


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_each_page_is_found_from_the_first():
    found, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page in found:
            continue
        found.add(page)
        links = re.findall(r"\]\((?!https?:|#)([^)#]+\.md)", page.read_text(encoding="utf-8"))
        todo += [page.parent / link for link in links]
    assert {page.resolve() for page in PAGES if page.parent == ROOT / "docs"} <= found


@pytest.fixture
def beginner(tmp_path, monkeypatch, portrait):
    """Somebody with six photos in a copy of what the commands need. Returns the pages that were started."""
    (tmp_path / "PHOTOS").mkdir()
    for seed in range(6):
        portrait(seed).save(tmp_path / "PHOTOS" / f"{seed}.png")
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    doodles = tmp_path / "tests" / "data" / "doodles"
    doodles.mkdir(parents=True)
    for file in sorted((ROOT / "tests" / "data" / "doodles").glob("*.png"))[:2]:
        shutil.copy(file, doodles)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepare.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(prepare, "crop_face", lambda photo, size: photo.resize((size, size)))
    pages = []
    monkeypatch.setattr(app, "serve", lambda demo, **options: pages.append(demo))
    return pages


def test_the_commands_that_lead_from_photos_to_ones_own_model_work(beginner, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", MEDIAPIPE)
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    programs = {
        "python -m train.prepare": lambda words: prepare.main([*words, "--val", "0.3"]),
        "build/outlines/bin/python train/landmarks.py": landmarks.main,
        "python -m venv": lambda words: None,
        "python -m train.pix2pix": lambda words: pix2pix.main([*words, *SMALL]),
        "python -m train.evaluate": evaluate.main,
        "python app.py": app.main,
    }
    commands = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        program = next(name for name in programs if command.startswith(f"{name} "))
        programs[program](shlex.split(command.removeprefix(program), comments=True))
    assert len(beginner) == 1
    for file in ("mine/sketch2face.safetensors", "tuned/sketch2face.safetensors", "mine/losses.png"):
        assert Path("runs", file).is_file()
    named = re.findall(r"`((?:samples|losses|sketch2face|log|options|evaluation|data)[./][\w./]*)`", text)
    assert len(named) >= 8
    for name in named:
        assert Path(name).exists() or Path("runs/mine", name).exists(), name


def test_the_readme_names_every_module():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files = [file for folder in ("gan_core", "train", "assets") for file in (ROOT / folder).glob("*.[pj][ys]")]
    assert len(files) > 40
    assert [file.name for file in files if file.name not in readme and file.name != "__init__.py"] == []
