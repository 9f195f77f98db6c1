"""What the shipped checkpoints promise to a visitor."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter
from gan_core.facades import WALL, WINDOW, random_facade
from gan_core.faces import find_face
from gan_core.image import open_picture
from gan_core.lineart import random_doodle
from gan_core.palette import FACADES, VOC
from gan_core.recipe import doubt
from train.judge import load_judge, read_labels
from train.metrics import as_batch, compare

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


@pytest.fixture(scope="module")
def facades():
    return Pix2PixPredictor.from_checkpoint(CHECKPOINTS / "facades.safetensors")


def test_what_is_painted_is_found_again_in_the_building(facades):
    """The judge has only ever seen real photos; the maps are composed by rule, so that no model has seen them."""
    judge = load_judge(CHECKPOINTS / "judge.safetensors")
    maps = [random_facade(seed) for seed in range(12)]
    photos = as_batch(facades.predict_batch(maps)) * 2 - 1
    seen = read_labels(judge, photos).numpy()
    painted = np.stack([FACADES.to_labels(label_map) for label_map in maps])
    assert (seen == painted).mean() > 0.55
    for number in (WALL, WINDOW):
        overlap = ((seen == number) & (painted == number)).sum() / ((seen == number) | (painted == number)).sum()
        assert overlap > 0.4, f"{FACADES.names[number]}: {overlap:.2f}"


def test_a_shifted_map_gives_the_same_building_shifted(facades):
    """A checkerboard, or any pattern tied to the place in the picture, would stay where it is."""
    label_map = np.asarray(random_facade(3))
    shifted = Image.fromarray(np.roll(label_map, 3, axis=1))
    a, b = (np.asarray(facades.predict(x), np.float32) for x in (Image.fromarray(label_map), shifted))
    inner = (slice(40, 216), slice(40, 216))
    moved = np.abs(np.roll(a, 3, axis=1)[inner] - b[inner]).mean()
    still = np.abs(a[inner] - b[inner]).mean()
    assert moved < still


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


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.from_checkpoint(CHECKPOINTS / "segmentation.safetensors")


@pytest.mark.parametrize(("file", "name", "share"), [("1_cat", "cat", 0.6), ("2_astronaut", "person", 0.3)])
def test_photos_show_what_they_show(segmenter, file, name, share):
    photo = open_picture(Path("assets/examples/segmentation") / f"{file}.jpg")
    assert (segmenter.segment(photo, thorough=True) == VOC.names.index(name)).mean() > share


def test_a_photo_of_something_else_is_background(segmenter):
    photo = open_picture(Path("assets/examples/segmentation/3_rocket.jpg"))
    assert (segmenter.segment(photo, thorough=True) == 0).mean() > 0.9


def nothing_known() -> dict[str, Image.Image]:
    across, down = np.meshgrid(np.arange(320), np.arange(240))
    shifted = across + 20 * (down // 24 % 2)
    bricks = np.where((down % 24 < 3) | (shifted % 40 < 3), 200, 120)
    noise = np.random.default_rng(0).integers(0, 256, (240, 320))
    sky = 140 + 80 * down / 240
    return {
        name: Image.fromarray(x.astype(np.uint8)) for name, x in (("bricks", bricks), ("noise", noise), ("sky", sky))
    }


@pytest.mark.parametrize("name", nothing_known())
def test_a_picture_of_nothing_known_is_background(segmenter, name):
    assert (segmenter.segment(nothing_known()[name], thorough=True) == 0).mean() > 0.95


@pytest.fixture(scope="module")
def mixer():
    return FaceMixer.from_checkpoint(CHECKPOINTS / "vaegan.safetensors")


def test_a_drawn_face_comes_back_and_is_not_doubted(mixer):
    faces = mixer.decode(mixer.sample(20, seed=1))
    latents = [mixer.encode(face) for face in faces]
    back = mixer.decode(np.stack(latents))
    assert compare(back, faces)["ssim"] > 0.6
    hints = [doubt(face, seen, mixer.strangeness(z)) for face, seen, z in zip(faces, back, latents)]
    assert hints.count("") >= 18


@pytest.mark.parametrize("name", ["1_cat.jpg", "2_astronaut.jpg", "3_rocket.jpg"])
def test_a_photo_gets_a_hint(mixer, name):
    photo = open_picture(f"assets/examples/segmentation/{name}")
    latent = mixer.encode(photo)
    assert "little like" in doubt(photo, mixer.decode(latent), mixer.strangeness(latent))


@pytest.mark.parametrize("colour", ["black", "white", "#808080", "#8cb8f0"])
def test_a_flat_picture_gets_a_hint(mixer, colour):
    flat = Image.new("RGB", (300, 300), colour)
    latent = mixer.encode(flat)
    assert "little like" in doubt(flat, mixer.decode(latent), mixer.strangeness(latent))


def test_blends_of_two_faces_are_faces_in_between(mixer):
    """Each step looks more like the one end and less like the other, and stays as sharp as they are."""
    film = mixer.interpolate(*mixer.sample(2, seed=73), steps=5)
    to_first, to_last = ([compare([face], [end])["l1"] for face in film] for end in (film[0], film[-1]))
    assert to_first == sorted(to_first)
    assert to_last == sorted(to_last, reverse=True)
    assert compare(film[1:-1], [film[0]] * 3)["sharpness_ratio"] > 0.6


@pytest.mark.parametrize(
    "name, surprise, tested",
    [
        ("sketch2face", random_doodle, [open_picture(file) for file in DOODLES]),
        ("facades", random_facade, [random_facade(seed) for seed in range(100, 112)]),
    ],
)
def test_in_integers_pictures_look_the_same(name, surprise, tested):
    """As the app prepares them: two or three of 255 levels, root mean square; with VNNI, without it a little more."""
    predictor = Pix2PixPredictor.from_checkpoint(CHECKPOINTS / f"{name}.safetensors")
    before = [np.asarray(predictor.predict(source), np.float32) for source in tested]
    examples = sorted(Path("assets/examples", name).glob("*.png"))
    assert predictor.accelerate([*map(open_picture, examples), *map(surprise, range(16))])
    after = [np.asarray(predictor.predict(source), np.float32) for source in tested]
    errors = [float(np.sqrt(np.square(a - b).mean())) for a, b in zip(before, after)]
    assert 0.5 < np.median(errors) < 5
    assert max(errors) < 10
