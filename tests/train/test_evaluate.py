import json

import pytest
from PIL import Image, ImageFilter

from gan_core import checkpoint
from gan_core.image import open_picture
from train import evaluate
from train.evaluate import compare, face_rate, main


def test_a_picture_compared_with_itself_is_perfect(portrait):
    pictures = [portrait(seed) for seed in range(2)]
    figures = compare(pictures, pictures)
    assert figures["l1"] == 0
    assert figures["ssim"] == pytest.approx(1, abs=1e-3)
    assert figures["sharpness_ratio"] == pytest.approx(1)


def test_blur_lowers_sharpness_and_similarity(portrait):
    real = [portrait(seed) for seed in range(2)]
    slightly, strongly = (
        compare([picture.filter(ImageFilter.GaussianBlur(radius)) for picture in real], real) for radius in (1, 4)
    )
    assert strongly["sharpness_ratio"] < slightly["sharpness_ratio"] < 1
    assert strongly["ssim"] < slightly["ssim"] < 1
    assert strongly["l1"] > slightly["l1"] > 0


def test_l1_is_a_share_of_the_whole_range():
    black, white = Image.new("RGB", (64, 64), "black"), Image.new("RGB", (64, 64), "white")
    assert compare([black], [white])["l1"] == pytest.approx(1)


def test_face_rate_counts_the_pictures_with_a_face(monkeypatch):
    monkeypatch.setattr(evaluate, "find_face", lambda picture: (1, 1, 9, 9) if picture == "face" else None)
    assert face_rate(["face", "wall", "face", "tree"]) == 0.5


@pytest.fixture
def data(tmp_path, portrait):
    (tmp_path / "data" / "val").mkdir(parents=True)
    for seed in range(3):
        portrait(seed).save(tmp_path / "data" / "val" / f"{seed}.png")
    return tmp_path / "data"


@pytest.fixture
def file(tmp_path, generator):
    checkpoint.save(tmp_path / "sketch2face.safetensors", "sketch2face", {"generator": generator})
    return tmp_path / "sketch2face.safetensors"


def test_the_command_writes_figures_and_contact_sheets(tmp_path, data, file, doodle):
    (tmp_path / "drawings").mkdir()
    doodle.save(tmp_path / "drawings" / "one.png")
    out = tmp_path / "out"
    options = ["--checkpoint", file, "--data", data, "--out", out, "--drawings", tmp_path / "drawings"]
    main(["sketch2face", *map(str, options)])
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["pictures"] == 3 and figures["drawings"] == 1
    assert 0 < figures["l1"] < 1
    assert open_picture(out / "contact_sheet.jpg").height == 3 * 256 + 2 * 2  # drawings, faces, photos
    assert open_picture(out / "drawings.jpg").height == 2 * 256 + 2


@pytest.mark.parametrize("missing", ["checkpoint", "photos"])
def test_what_is_missing_is_named(tmp_path, data, file, missing):
    if missing == "checkpoint":
        file.unlink()
    else:
        data = tmp_path / "elsewhere"
    with pytest.raises(SystemExit, match=r"error: .*(no checkpoint|not a folder)"):
        main(["sketch2face", "--checkpoint", str(file), "--data", str(data), "--out", str(tmp_path / "out")])
