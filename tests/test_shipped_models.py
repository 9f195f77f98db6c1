"""What the shipped checkpoints promise to a visitor."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gan_core import Pix2PixPredictor
from gan_core.faces import find_face
from gan_core.image import open_picture

CHECKPOINTS = Path("assets/checkpoints")
DOODLES = sorted(Path("tests/data/doodles").glob("*.png"))


@pytest.fixture(scope="module")
def sketch2face():
    return Pix2PixPredictor.from_checkpoint(CHECKPOINTS / "sketch2face.safetensors")


def test_checkpoints_stay_small():
    sizes = [file.stat().st_size for file in CHECKPOINTS.glob("*.safetensors")]
    assert max(sizes) < 50e6
    assert sum(sizes) < 120e6


def test_doodles_become_faces(sketch2face):
    assert len(DOODLES) >= 20
    missed = [file.stem for file in DOODLES if find_face(sketch2face.predict(open_picture(file))) is None]
    assert len(missed) <= 0.1 * len(DOODLES), f"no face in {missed}"


def hardly_a_drawing() -> dict[str, Image.Image]:
    pictures = {name: Image.new("L", (256, 256), "white") for name in ("empty", "stroke", "scribble")}
    ImageDraw.Draw(pictures["stroke"]).line((60, 60, 160, 100), fill=0, width=4)
    points = np.random.default_rng(0).uniform(30, 226, (40, 2))
    ImageDraw.Draw(pictures["scribble"]).line([tuple(p) for p in points], fill=0, width=4)
    return pictures | {"black": Image.new("L", (256, 256), "black")}


@pytest.mark.parametrize("name", ["empty", "stroke", "scribble", "black"])
def test_what_is_no_drawing_gets_a_calm_answer(sketch2face, name):
    """Calm: no more fine structure than the model's own answer to a good drawing has."""

    def unrest(picture):
        pixels = np.asarray(picture, np.float32)
        return np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()

    usual = np.median([unrest(sketch2face.predict(open_picture(file))) for file in DOODLES])
    limit = 2.5 if name == "scribble" else 1.25
    assert unrest(sketch2face.predict(hardly_a_drawing()[name])) < limit * usual
