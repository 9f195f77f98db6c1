"""A Space's files, started as the platform does; test_publish has one that works."""

import subprocess
from types import SimpleNamespace

import pytest

from train import rehearsal
from train.rehearsal import Page, RehearsalError, install, rehearse


def test_an_app_that_cannot_start_is_quoted(tmp_path):
    (tmp_path / "app.py").write_text("import nothing_like_this\n")
    with pytest.raises(RehearsalError, match=r"the app ended with 1\. It said:\n(.*\n)*.*nothing_like_this"):
        rehearse(tmp_path, reuse_environment=True)


def test_secrets_and_settings_of_this_computer_stay_outside(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    (tmp_path / "app.py").write_text("import os, sys; sys.exit(str({'HF_TOKEN', 'PYTHONPATH'} & set(os.environ)))\n")
    with pytest.raises(RehearsalError, match=r"It said:\nset\(\)"):
        rehearse(tmp_path, reuse_environment=True)


def test_an_app_that_answers_nonsense_is_no_success(tmp_path):
    """A server that says nothing of tabs."""
    (tmp_path / "app.py").write_text(
        "import os\nfrom http.server import HTTPServer, SimpleHTTPRequestHandler\n"
        "HTTPServer(('127.0.0.1', int(os.environ['GRADIO_SERVER_PORT'])), SimpleHTTPRequestHandler).serve_forever()\n"
    )
    with pytest.raises(RehearsalError, match="the app does not answer"):
        rehearse(tmp_path, reuse_environment=True)


def test_a_tab_without_its_model_is_named():
    page = Page.__new__(Page)
    page.components = {"missing-facades": {}, "sketch-board": {"id": 3}, None: {}}
    assert page.find("sketch-board") == {"id": 3}
    with pytest.raises(
        RehearsalError, match="the page has no facade-board; missing-facades stands for a missing model"
    ):
        page.find("facade-board")


@pytest.mark.parametrize("answer", [{"error": "no"}, {}, {"picture": None}])
def test_a_board_without_a_picture_is_no_success(answer):
    page = Page.__new__(Page)
    page.components, page.post = {"mix-board": {"id": 3}}, lambda path, body: answer
    with pytest.raises(RehearsalError, match="mix-board answered"):
        page.call("mix-board", "blend", {})


@pytest.mark.parametrize("reachable", [True, False])
def test_the_index_of_cpu_wheels_is_left_out_where_it_cannot_be_reached(tmp_path, monkeypatch, reachable, capsys):
    commands = []
    monkeypatch.setattr(rehearsal, "reachable", lambda url: reachable)
    monkeypatch.setattr(rehearsal.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(
        rehearsal.subprocess, "run", lambda command, **_: commands.append(command) or SimpleNamespace(returncode=0)
    )
    (tmp_path / "requirements.txt").write_text("# a\n--extra-index-url https://wheels.example/cpu\ntorch==2.11.0\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    python = install(tmp_path, scratch)
    assert commands[0][0] == python and commands[0][-1] == scratch / "requirements.txt"
    used = (scratch / "requirements.txt").read_text()
    assert "torch==2.11.0" in used and ("wheels.example" in used) == reachable
    assert ("https://wheels.example/cpu cannot be reached" in capsys.readouterr().out) != reachable


def test_requirements_that_cannot_be_installed_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal.venv, "create", lambda *_, **__: None)
    failed = subprocess.CompletedProcess([], 1, stderr="ERROR: No matching distribution found for torch==9")
    monkeypatch.setattr(rehearsal.subprocess, "run", lambda *_, **__: failed)
    (tmp_path / "requirements.txt").write_text("torch==9\n")
    with pytest.raises(RehearsalError, match=r"cannot be installed:\nERROR: No matching distribution"):
        install(tmp_path, tmp_path)
