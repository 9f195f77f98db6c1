"""Each command in README.md and docs/ is understood by the program that it starts; those for pictures are run."""

import argparse
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from gan_core import __main__ as command_line
from gan_core import hub

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What other programs than ours are asked to do, and what test_api.py and test_export.py run.
OTHERS = (
    *("app=", "cp ", "curl ", "echo ", "event=", "file=", "answer=", "make ", "node ", "npm ", "pip ", "pip-audit "),
    *("build/outlines/bin/", "python -m http.server", "python -m pytest", "python -m venv"),
)


def commands(page: Path) -> list[str]:
    """The lines of its blocks for a shell, without comments; and what it names in the text and is no pattern."""
    text = page.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in blocks.splitlines()]
    named = re.findall(r"`(python (?:-m (?:train|gan_core|tests)|app\.py)[^`]*)`", text)
    return [line for line in lines if line] + [
        line for line in named if not re.search(r"TASK|FILE|[][{…]|\.\.\.", line)
    ]


ALL = [(page.name, command) for page in PAGES for command in commands(page)]
OURS = [(page, command) for page, command in ALL if not command.startswith(OTHERS)]


class Understood(Exception):
    pass


@pytest.fixture
def only_read(monkeypatch):
    """Programs read their arguments, and stop there."""
    read = argparse.ArgumentParser.parse_args

    def parse_args(self, *arguments, **options):
        read(self, *arguments, **options)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(hub, "find", Path)
    monkeypatch.setattr(hub.checkpoint, "load", lambda *place: None)


def test_there_are_commands_on_every_page_that_should_have_some():
    assert len(OURS) > 50
    assert {"README.md", "deploy.md", "reliability.md", "results.md", "safety.md", "scale.md"} <= {p for p, _ in OURS}


@pytest.mark.parametrize(("page", "command"), OURS)
def test_a_command_is_understood(page, command, only_read, monkeypatch):
    words = shlex.split(re.sub(r" [<>] \S+", "", command))
    words = words[words.index("-m") :] if words[0] in ("torchrun", "accelerate") else words[1:]
    name = words[1] if words[0] == "-m" else words[0].removesuffix(".py")
    if name == "tests.benchmarks":  # it reads nothing
        assert len(words) == 2 and importlib.util.find_spec(f"{name}.__main__")
        return
    module = command_line if name == "gan_core" else importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [name, *words[1 + (words[0] == "-m") :]])
    with pytest.raises(Understood):
        module.main()


def test_what_is_not_understood_is_noticed(only_read, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gan_core", "sketch2face", "a.png", "--no-such-option"])
    with pytest.raises(SystemExit):
        command_line.main()


def test_the_commands_for_pictures_in_the_readme_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    block = [command for page, command in ALL if page == "README.md" and command.startswith("python -m gan_core ")]
    block = [command for command in block if "--help" not in command and "<" not in command]
    assert len(block) >= 6
    for command in block:
        words = shlex.split(command)[3:]
        out = words[words.index("-o") + 1]
        if words[0] == "export":  # tests/test_export.py
            continue
        assert command_line.main(words) == 0, command
        assert Path(out).exists() or list(Path(out).parent.glob(f"{Path(out).stem}_*.png")), command
    assert "cat" in capsys.readouterr().out
    assert (tmp_path / "out" / "overlay.png").is_file()
