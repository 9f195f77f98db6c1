"""The command line, in this process; where pipes matter, as a process of its own."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter, __main__, checkpoint
from gan_core.__main__ import main
from gan_core.faces import crop_face
from gan_core.files import open_source
from gan_core.image import open_picture
from gan_core.lineart import draw_lines
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import VOC
from gan_core.segmentation import SegmentationConfig, SegmentationGenerator
from gan_core.unet import UNetGenerator

ROOT = Path(__file__).parents[2]
FACE = ROOT / "tests" / "data" / "faces" / "face_1.jpg"
CLASSES = SegmentationConfig(
    MaxPoolUNetConfig(12, len(VOC), widths=(8, 16), residual=1, context=True), paints="classes", block=2, size=32
)

SEED = 39  # of a segmentation network that sees several classes, and others at one size than at three


@pytest.fixture
def checkpoints(tmp_path, monkeypatch, mixer_folder, noisy_generator, unet_config, lively) -> Path:
    """Small networks in the place of those that ship, for this test's working directory."""
    folder = tmp_path / "checkpoints"
    facades = lively(UNetGenerator(replace(unet_config, in_channels=3)))
    checkpoint.save(folder / "sketch2face.safetensors", "sketch2face", {"generator": noisy_generator})
    checkpoint.save(folder / "facades.safetensors", "facades", {"generator": facades})
    torch.manual_seed(SEED)
    segmentation = lively(SegmentationGenerator(CLASSES), SEED)
    checkpoint.save(folder / "segmentation.safetensors", "segmentation", {"generator": segmentation})
    (folder / "vaegan.safetensors").symlink_to(mixer_folder / "vaegan.safetensors")
    monkeypatch.setattr(__main__, "CHECKPOINTS", folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def drawing(checkpoints, doodle) -> str:
    doodle.save("drawing.png")
    return "drawing.png"


@pytest.fixture
def photo_file(checkpoints, portrait) -> str:
    portrait(0).resize((90, 60)).save("photo.png")
    return "photo.png"


def pixels(file: str | Path) -> bytes:
    with Image.open(file) as picture:
        return picture.tobytes()


def as_bytes(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def usage_error(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


# --- Drawings and maps --------------------------------------------------------------------------------


def test_a_drawing_becomes_what_the_predictor_makes_of_it(checkpoints, drawing, doodle, capsys):
    assert main(["sketch2face", drawing, "-o", "new/face.png"]) == 0
    predictor = Pix2PixPredictor.from_checkpoint(checkpoints / "sketch2face.safetensors")
    assert pixels("new/face.png") == predictor.predict(doodle).tobytes()
    assert capsys.readouterr() == ("", "")


def test_of_a_photo_the_lines_of_its_face_are_drawn(checkpoints):
    assert main(["sketch2face", str(FACE), "-o", "face.png", "--detail", "0.9"]) == 0
    lines = draw_lines(crop_face(open_picture(FACE), 512), 0.9)
    predictor = Pix2PixPredictor.from_checkpoint(checkpoints / "sketch2face.safetensors")
    assert pixels("face.png") == predictor.predict(lines).tobytes()
    assert main(["sketch2face", str(FACE), "-o", "sparse.png", "--detail", "0.1"]) == 0
    assert pixels("face.png") != pixels("sparse.png")


def test_variants_are_numbered_and_follow_from_their_seed(checkpoints, drawing, doodle):
    assert main(["sketch2face", drawing, "-o", "face.png", "--variants", "3", "--seed", "7"]) == 0
    predictor = Pix2PixPredictor.from_checkpoint(checkpoints / "sketch2face.safetensors")
    expected = [picture.tobytes() for picture in predictor.predict_variants(doodle, 3, seed=7)]
    assert [pixels(f"face_{i}.png") for i in (1, 2, 3)] == expected
    assert len(set(expected)) == 3
    assert not Path("face.png").exists() and not Path("face_4.png").exists()


def test_of_a_pair_the_label_map_counts(checkpoints, building):
    label_map, photo = building(3)
    pair = Image.new("RGB", (512, 256))
    pair.paste(photo, (0, 0))
    pair.paste(label_map, (256, 0))
    pair.save("pair.png")
    label_map.save("map.png")
    assert main(["facades", "pair.png", "map.png", "-o", "buildings"]) == 0
    predictor = Pix2PixPredictor.from_checkpoint(checkpoints / "facades.safetensors")
    assert pixels("buildings/pair.png") == pixels("buildings/map.png") == predictor.predict(label_map).tobytes()


# --- Many pictures, and bad ones ----------------------------------------------------------------------


def test_in_a_folder_what_cannot_be_used_is_named_and_the_others_are_done(checkpoints, doodle, capsys):
    Path("drawings").mkdir()
    doodle.save("drawings/a.png")
    doodle.rotate(90).save("drawings/c.bmp")
    Path("drawings/b.png").write_text("no picture")
    Image.new("RGB", (90, 90), "green").save("drawings/d.png")
    assert main(["sketch2face", "drawings", "missing.png", "-o", "faces"]) == 1
    assert sorted(os.listdir("faces")) == ["a.png", "c.png"]
    b, d, missing = capsys.readouterr().err.splitlines()
    assert b.startswith("drawings/b.png: 'b.png' is not a picture") and "Save it as PNG" in b
    assert d.startswith("drawings/d.png: No face was found")
    assert missing == "missing.png: 'missing.png' does not exist. Check the path."


def test_answers_of_an_earlier_run_are_replaced(drawing):
    Path("faces").mkdir()
    Path("faces/drawing.png").write_text("old")
    assert main(["sketch2face", drawing, "-o", "faces"]) == 0
    assert len(pixels("faces/drawing.png")) == 256 * 256 * 3


def test_an_input_is_never_replaced(drawing, capsys):
    before = Path(drawing).read_bytes()
    usage_error("sketch2face", drawing, "-o", drawing)
    usage_error("sketch2face", drawing, "-o", ".")
    assert Path(drawing).read_bytes() == before
    assert "drawing.png would be lost" in capsys.readouterr().err


def test_an_answer_that_cannot_be_written_is_said(drawing, capsys):
    Path("file").touch()
    assert main(["sketch2face", drawing, "-o", "file/face.png"]) == 1
    assert "file/face.png cannot be written" in capsys.readouterr().err


def test_progress_is_for_terminals_only(drawing, doodle, monkeypatch, capsys):
    doodle.save("other.png")
    assert main(["sketch2face", drawing, "other.png", "-o", "faces"]) == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["sketch2face", drawing, "other.png", "-o", "faces"]) == 0
    assert "2/2" in capsys.readouterr().err


# --- Segmentation -------------------------------------------------------------------------------------


def test_a_photo_becomes_a_map_with_a_legend(checkpoints, photo_file, capsys):
    assert main(["segmentation", photo_file, "-o", "map.png", "--overlay", "overlay.png"]) == 0
    segmenter = Segmenter.from_checkpoint(checkpoints / "segmentation.safetensors")
    photo = Image.open(photo_file)
    labels = segmenter.segment(photo, thorough=True)
    with Image.open("map.png") as written:
        assert (written.mode, written.size) == ("P", (90, 60))
        assert (np.asarray(written) == labels).all()
        assert (np.asarray(written.convert("RGB")) == np.asarray(VOC.to_picture(labels))).all()
    number = int(np.bincount(labels.ravel()).argmax())
    share = f"{(labels == number).mean():6.1%}"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{share}  #{bytes(VOC.colors[number]).hex()}  {VOC.names[number]}"
    assert len(lines) == len(np.unique(labels)) > 1


def test_a_large_photo_keeps_its_size(checkpoints):
    Image.new("RGB", (4100, 4096), "gray").save("large.jpg")  # other tasks read such a JPEG at half its size
    assert open_source("large.jpg").size == (2050, 2048)
    assert main(["segmentation", "large.jpg", "-o", "map.png", "--fast"]) == 0
    assert Image.open("map.png").size == (4100, 4096)


def test_fast_looks_at_one_size(checkpoints, photo_file):
    photo = Image.open(photo_file)
    segmenter = Segmenter.from_checkpoint(checkpoints / "segmentation.safetensors")
    fast, thorough = segmenter.segment(photo), segmenter.segment(photo, thorough=True)
    assert (fast != thorough).any()
    assert main(["segmentation", photo_file, "-o", "map.png", "--fast"]) == 0
    assert (np.asarray(Image.open("map.png")) == fast).all()


def test_with_several_photos_each_line_of_the_legend_names_its_own(photo_file, portrait, capsys):
    portrait(1).save("other.png")
    assert main(["segmentation", photo_file, "other.png", "-o", "maps", "--overlay", "overlays/"]) == 0
    assert sorted(os.listdir("maps")) == sorted(os.listdir("overlays")) == ["other.png", "photo.png"]
    assert {line.split(":")[0] for line in capsys.readouterr().out.splitlines()} == {"photo.png", "other.png"}


def test_an_overlay_and_its_map_need_two_places(photo_file):
    usage_error("segmentation", photo_file, "-o", "maps/", "--overlay", "maps/")
    assert not Path("maps").exists()


@pytest.mark.parametrize("outs", [("-", "overlay.png"), ("map.png", "-")])
def test_stdout_holds_the_picture_and_stderr_the_legend(photo_file, capsysbinary, outs):
    assert main(["segmentation", photo_file, "-o", outs[0], "--overlay", outs[1]]) == 0
    out, err = capsysbinary.readouterr()
    assert Image.open(io.BytesIO(out)).size == (90, 60)
    assert b"%  #" in err and b"%  #" not in out


# --- Faces --------------------------------------------------------------------------------------------


def test_pictures_and_seeds_are_mixed_in_this_order(checkpoints, portrait):
    portrait(0, 96).save("a.png")
    portrait(1, 96).save("b.png")
    command = ["vaegan", "a.png", "b.png", "--seeds", "7", "--weights", "1", "2", "0.5", "-o", "blend.png"]
    assert main(command) == 0
    mixer = FaceMixer.from_checkpoint(checkpoints / "vaegan.safetensors")
    faces = [mixer.encode(portrait(0, 96)), mixer.encode(portrait(1, 96)), mixer.sample(1, 7)[0]]
    assert pixels("blend.png") == mixer.mix(np.stack(faces), [1, 2, 0.5]).tobytes()
    assert pixels("blend.png") != mixer.mix(np.stack(faces), [2, 1, 0.5]).tobytes()


def test_without_weights_the_shares_are_equal(checkpoints):
    assert main(["vaegan", "--seeds", "1", "2", "-o", "blend.png"]) == 0
    assert main(["vaegan", "--seeds", "1", "2", "--weights", "3", "3", "-o", "same.png"]) == 0
    assert main(["vaegan", "--seeds", "1", "2", "--weights", "3", "1", "-o", "other.png"]) == 0
    assert pixels("blend.png") == pixels("same.png") != pixels("other.png")


def test_new_faces_are_called_by_their_seeds(checkpoints):
    assert main(["vaegan", "--samples", "3", "--seed", "7", "-o", "face.png"]) == 0
    assert sorted(file.name for file in Path().glob("*.png")) == ["face_7.png", "face_8.png", "face_9.png"]
    assert len({pixels(f"face_{seed}.png") for seed in (7, 8, 9)}) == 3
    assert main(["vaegan", "--seeds", "8", "-o", "again.png"]) == 0
    again, face = (np.asarray(Image.open(file)).astype(int) for file in ("again.png", "face_8.png"))
    assert np.abs(again - face).max() <= 2  # a mix of one face, and not in a batch: but for rounding the same


def test_a_picture_that_is_no_face_is_mixed_with_a_hint(checkpoints, capsys):
    Image.new("RGB", (96, 96), "green").save("green.png")
    assert main(["vaegan", "green.png", "-o", "blend.png"]) == 0
    assert capsys.readouterr().err.startswith("green.png: This looks little like the faces")


def test_a_mix_without_one_of_its_faces_is_none(checkpoints, portrait, capsys):
    portrait(0).save("a.png")
    assert main(["vaegan", "a.png", "missing.png", "-o", "blend.png"]) == 1
    assert "error: missing.png: 'missing.png' does not exist" in capsys.readouterr().err
    assert not Path("blend.png").exists()


# --- Usage, checkpoints, pipes, interruptions ----------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "",
        "paint drawing.png -o face.png",
        "sketch2face drawing.png",
        "sketch2face -o face.png",
        "sketch2face drawing.png -o face.jpg",
        "sketch2face drawing.png -o face.png --variants 0",
        "sketch2face drawing.png -o face.png --variants 17",
        "sketch2face drawing.png -o face.png --variants two",
        "sketch2face drawing.png -o face.png --seed -1",
        "sketch2face drawing.png -o face.png --detail nan",
        "sketch2face drawing.png -o face.png --device quark",
        "sketch2face drawing.png -o - --variants 2",
        "sketch2face drawing.png drawing.png -o faces",
        "facades map.png -o building.png --detail 0.5",
        "vaegan -o blend.png",
        "vaegan --seeds 1 2 --weights 1 -o blend.png",
        "vaegan --seeds 1 2 --weights 1 -1 -o blend.png",
        "vaegan --seeds 1 2 --weights 1 inf -o blend.png",
        "vaegan --samples 2 --seeds 1 -o blend.png",
        "vaegan --samples 2 --weights 1 -o blend.png",
    ],
)
def test_wrong_usage_is_explained_before_anything_is_done(drawing, capsys, command):
    before = sorted(Path().rglob("*"))
    usage_error(*command.split())
    out, err = capsys.readouterr()
    assert not out and err.startswith("usage: python -m gan_core") and "error: " in err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("task", ["sketch2face", "facades", "segmentation", "vaegan"])
def test_help_shows_examples(task, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([task, "--help"])
    assert stopped.value.code == 0
    assert f"examples:\n  python -m gan_core {task} " in capsys.readouterr().out


def test_a_missing_checkpoint_is_said(drawing, capsys):
    assert main(["sketch2face", drawing, "-o", "face.png", "--checkpoint", "none.safetensors"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no checkpoint at none.safetensors; check the path")


@pytest.mark.parametrize("task", ["sketch2face", "facades", "segmentation", "vaegan"])
@pytest.mark.parametrize("other", ["sketch2face", "vaegan"])
def test_a_checkpoint_for_another_task_is_refused(checkpoints, drawing, capsys, task, other):
    file = str(checkpoints / f"{other}.safetensors")
    assert main([task, drawing, "-o", "face.png", "--checkpoint", file]) == (1 if task != other else 0)
    assert task == other or f"{file} is a checkpoint for {other}, not for {task}" in capsys.readouterr().err


def test_an_interruption_is_quiet(drawing, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Pix2PixPredictor, "predict", interrupt)
    assert main(["sketch2face", drawing, "-o", "face.png"]) == 130
    assert capsys.readouterr() == ("", "")
    assert not Path("face.png").exists()


def test_from_stdin_to_stdout(checkpoints, doodle, monkeypatch, capsysbinary):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(as_bytes(doodle))))
    assert main(["sketch2face", "-", "-o", "-"]) == 0
    predictor = Pix2PixPredictor.from_checkpoint(checkpoints / "sketch2face.safetensors")
    assert Image.open(io.BytesIO(capsysbinary.readouterr().out)).tobytes() == predictor.predict(doodle).tobytes()


def start(*arguments: str, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "gan_core", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_command_between_two_pipes(tmp_path, doodle):
    """With the checkpoint that ships, found from another folder."""
    process = start("sketch2face", "-", "-o", "-", cwd=tmp_path)
    out, err = process.communicate(as_bytes(doodle))
    assert (process.returncode, err) == (0, b"")
    with Image.open(io.BytesIO(out)) as face:
        assert (face.format, face.mode, face.size) == ("PNG", "RGB", (256, 256))


def test_when_nobody_reads_on_there_is_no_traceback(tmp_path, checkpoints, doodle):
    file = str(checkpoints / "sketch2face.safetensors")
    process = start("sketch2face", "-", "-o", "-", "--checkpoint", file, cwd=tmp_path)
    process.stdout.close()
    process.stdin.write(as_bytes(doodle))
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
