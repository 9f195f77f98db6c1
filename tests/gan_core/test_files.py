import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from gan_core import files
from gan_core.files import UsageError, check_targets, list_sources, name_targets, open_source, save, whole
from gan_core.image import PictureError


@pytest.fixture
def red() -> Image.Image:
    return Image.new("RGB", (5, 4), "red")


def test_a_folder_is_the_pictures_in_it_by_name(tmp_path, red):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.png").touch()
    assert list_sources([str(tmp_path)]) == ([str(tmp_path / "a.jpg"), str(tmp_path / "b.PNG")], True)


def test_files_and_stdin_stay_as_they_are_even_if_they_do_not_exist():
    assert list_sources(["b.png"]) == (["b.png"], False)
    assert list_sources(["-"]) == (["-"], False)
    assert list_sources(["b.png", "-", "a.png"]) == (["b.png", "-", "a.png"], True)


def test_a_folder_without_pictures_is_complained_of_when_it_is_opened(tmp_path):
    (source,), many = list_sources([str(tmp_path)])
    assert many
    with pytest.raises(PictureError, match=r"holds no pictures \(.png, .jpg"):
        open_source(source)


def test_a_picture_is_read_from_stdin(monkeypatch, red):
    data = io.BytesIO()
    red.save(data, "BMP")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data.getvalue())))
    assert open_source("-").tobytes() == red.tobytes()


@pytest.mark.parametrize(
    ("sources", "out", "many", "numbers", "targets"),
    [
        (["a.jpg"], "b.png", False, (), [["b.png"]]),
        (["a.jpg"], "new/b.PNG", False, (), [["new/b.PNG"]]),
        (["a.jpg"], "b.png", False, (1, 2), [["b_1.png", "b_2.png"]]),
        (["a.jpg"], "folder/", False, (), [["folder/a.png"]]),
        (["a.jpg"], "there", False, (), [["there/a.png"]]),
        (["x/a.jpg", "-"], "folder", True, (), [["folder/a.png"], ["folder/stdin.png"]]),
        (["a.v2.jpg"], "folder", True, (7,), [["folder/a.v2_7.png"]]),
        (["a.jpg"], "-", False, (), [["-"]]),
    ],
)
def test_where_answers_go(tmp_path, monkeypatch, sources, out, many, numbers, targets):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    assert name_targets(sources, out, many, numbers) == targets


@pytest.mark.parametrize(
    ("out", "many", "numbers", "reason"),
    [
        ("b.jpg", False, (), "written as PNG"),
        ("b", False, (), "written as PNG"),
        ("b.png", True, (), "must be a folder"),
        ("there", True, (), "must be a folder"),
        ("-", True, (), "one picture"),
        ("-", False, (1,), "one picture"),
    ],
)
def test_answers_that_have_no_place(tmp_path, monkeypatch, out, many, numbers, reason):
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    with pytest.raises(UsageError, match=reason):
        name_targets(["a.png"], out, many, numbers)


def test_no_picture_is_written_to_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(UsageError, match="terminal"):
        name_targets(["a.png"], "-", many=False)


@pytest.mark.parametrize(
    ("sources", "targets"),
    [
        (["a.png"], [["a.png"]]),
        (["x/../a.png"], [["./a.png"]]),
        (["a.jpg", "a.png"], [["b.png"], ["a.png"]]),
        (["x/a.png", "y/a.png"], [["out/a.png"], ["out/a.png"]]),
        (["a.png"], [["-", "-"]]),
        (["a.png"], [["link.png"]]),
    ],
)
def test_no_input_and_no_other_answer_is_replaced(tmp_path, monkeypatch, sources, targets):
    monkeypatch.chdir(tmp_path)
    Path("a.png").touch()
    Path("link.png").symlink_to("a.png")
    with pytest.raises(UsageError, match="would be lost"):
        check_targets(sources, targets)


def test_what_replaces_nothing_may_be_written():
    check_targets(["a.png", "-"], [["out/a.png", "overlays/a.png"], ["-"]])


def test_a_picture_is_saved_in_a_new_folder_and_over_an_old_file(tmp_path, red):
    target = tmp_path / "new" / "red.png"
    for picture in (red.convert("L"), red):
        save(picture, str(target))
        with Image.open(target) as saved:
            assert (saved.format, saved.mode, saved.tobytes()) == ("PNG", picture.mode, picture.tobytes())
    assert os.listdir(target.parent) == ["red.png"]


@pytest.mark.parametrize("failing", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_old_file_outlives_a_new_one_that_is_not_finished(tmp_path, monkeypatch, red, failing):
    target = tmp_path / "red.png"
    target.write_bytes(b"old")

    def write_half(path: Path, data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise failing

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(PictureError if isinstance(failing, OSError) else KeyboardInterrupt) as raised:
        save(red, str(target))
    if isinstance(failing, OSError):
        assert str(raised.value) == f"{target} cannot be written (No space left on device). Choose another place."
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["red.png"]


def test_what_was_there_before_can_be_kept_under_another_name(tmp_path):
    for content in ("one", "two", "three"):
        with whole(tmp_path / "state", keep=tmp_path / "earlier") as partial:
            partial.write_text(content)
    assert (tmp_path / "state").read_text() == "three"
    assert (tmp_path / "earlier").read_text() == "two"
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "state", keep=tmp_path / "earlier") as partial:
        partial.write_text("four")
        1 / 0  # noqa: B018
    assert sorted(os.listdir(tmp_path)) == ["earlier", "state"]
    assert (tmp_path / "state").read_text() == "three"


def test_the_disk_has_the_bytes_before_the_name_and_then_the_name(tmp_path, monkeypatch):
    deeds = []
    replace = os.replace
    monkeypatch.setattr(files, "flush_to_disk", lambda path: deeds.append(path.name))
    monkeypatch.setattr(os, "replace", lambda a, b: (deeds.append("replace"), replace(a, b)))
    with whole(tmp_path / "state") as partial:
        partial.write_text("x")
    assert deeds == [".state.partial", "replace", tmp_path.name]


def test_a_picture_goes_to_stdout_as_png(capsysbinary, red):
    save(red, "-")
    assert Image.open(io.BytesIO(capsysbinary.readouterr().out)).tobytes() == red.tobytes()
