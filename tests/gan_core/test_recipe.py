import base64

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import FaceMixer
from gan_core.recipe import (
    RecipeError,
    doubt,
    likeness,
    name_directions,
    random_weights,
    read_faces,
    read_latent,
    read_recipe,
    write_latent,
)
from gan_core.vae_gan import VAE, VAEConfig
from train.mixture import fit_latent_space

CONFIG = VAEConfig(latent=8, widths=(4, 4, 8, 8, 8))


@pytest.fixture(scope="module")
def mixer(lively) -> FaceMixer:
    latents = 2 + torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    return FaceMixer(lively(VAE(CONFIG)).eval(), fit_latent_space(latents), direction_names=["hair"])


def request(**changes) -> dict:
    return {"faces": [{"seed": 1}, {"seed": 2}], "weights": [1, 0.5], "shifts": [0] * 8, "truncation": 1} | changes


# --- following it


def test_a_recipe_is_the_mix_of_its_faces(mixer):
    faces = np.stack([mixer.sample(1, seed=seed)[0] for seed in (1, 2)])
    assert np.allclose(read_recipe(mixer, request()).blend(mixer), mixer.blend(faces, [[2, 1]]), atol=1e-5)
    even = read_recipe(mixer, request(weights=[0, 0]))
    assert np.allclose(even.blend(mixer), mixer.blend(faces, [[1, 1]]), atol=1e-5)


def test_several_weights_give_several_blends_and_leave_those_of_the_recipe(mixer):
    recipe = read_recipe(mixer, request())
    a, b = recipe.faces
    assert np.allclose(recipe.blend(mixer, np.array([[1, 0], [0, 1]])), [a, b], atol=1e-5)


def test_shifts_move_along_the_principal_directions_by_standard_deviations(mixer):
    still, moved = (read_recipe(mixer, request(shifts=shifts)).blend(mixer)[0] for shifts in ([], [0, -2]))
    assert np.allclose(moved - still, -2 * mixer.deviations[1] * mixer.directions[1], atol=1e-5)


def test_truncation_leads_to_the_mean_face_and_leaves_the_shifts(mixer):
    latent = read_recipe(mixer, request(truncation=0, shifts=[1])).blend(mixer)[0]
    assert np.allclose(latent, mixer.mean + mixer.deviations[0] * mixer.directions[0], atol=1e-5)


def test_a_film_goes_through_the_faces_and_takes_the_shifts_along(mixer):
    recipe = read_recipe(mixer, request(shifts=[1.5]))
    film = recipe.loop(mixer, 10)
    assert film.shape == (10, 8)
    assert np.allclose(film[[0, 5]], mixer.push(recipe.faces, [1.5]), atol=1e-4)


def test_an_own_picture_comes_back_as_it_was_written(mixer, portrait):
    latent = mixer.encode(portrait(0))
    (read,) = read_faces(mixer, [{"latent": write_latent(latent)}], most=6)
    assert np.array_equal(read, latent)


def test_random_weights_are_shares_and_reach_every_corner():
    weights = random_weights(3, 100, seed=1)
    assert weights.shape == (100, 3)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-3) and (weights >= 0).all()
    assert (weights.max(axis=0) > 0.7).all()
    assert np.array_equal(weights, random_weights(3, 100, seed=1))
    assert not np.array_equal(weights, random_weights(3, 100, seed=2))


def test_directions_without_a_name_are_numbered(mixer):
    assert name_directions(mixer) == ["hair", *(f"Direction {i}" for i in range(2, 9))]


# --- refusing it

NAN = float("nan")
BAD = {
    "no faces": {"faces": []},
    "faces missing": {"faces": None},
    "seven faces": {"faces": [{"seed": 1}] * 7, "weights": [1] * 7},
    "face is a number": {"faces": [1, 2]},
    "face is nothing": {"faces": [{}, {}]},
    "seed is a text": {"faces": [{"seed": "1"}, {"seed": 2}]},
    "seed is true": {"faces": [{"seed": True}, {"seed": 2}]},
    "seed is a fraction": {"faces": [{"seed": 1.5}, {"seed": 2}]},
    "seed below zero": {"faces": [{"seed": -1}, {"seed": 2}]},
    "seed too large": {"faces": [{"seed": 2**31}, {"seed": 2}]},
    "latent is a number": {"faces": [{"latent": 7}, {"seed": 2}]},
    "weights missing": {"weights": None},
    "one weight too few": {"weights": [1]},
    "weight below zero": {"weights": [1, -0.1]},
    "weight above one": {"weights": [1, 1e30]},
    "weight is no number": {"weights": [1, NAN]},
    "weight is a text": {"weights": [1, "1"]},
    "weight is a list": {"weights": [1, [1]]},
    "nine shifts": {"shifts": [0] * 9},
    "shift too far": {"shifts": [3.1]},
    "shift is no number": {"shifts": [NAN]},
    "truncation above one": {"truncation": 1.1},
    "truncation is nothing": {"truncation": None},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
def test_a_damaged_recipe_is_refused_with_a_sentence(mixer, changes):
    with pytest.raises(RecipeError, match=r"\.$"):
        read_recipe(mixer, request(**changes))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "é" * 44,
        "@" * 44,
        base64.b64encode(b"\0" * 28).decode(),
        base64.b64encode(b"\0" * 36).decode(),
        base64.b64encode(np.full(8, NAN, "<f4").tobytes()).decode(),
        base64.b64encode(np.full(8, 1e20, "<f4").tobytes()).decode(),
    ],
)
def test_a_damaged_latent_is_refused(text):
    with pytest.raises(RecipeError, match="damaged"):
        read_latent(text, 8)


# --- a visitor's own picture


def test_what_comes_back_whole_is_like_it_and_what_does_not_is_not(portrait):
    face, other = portrait(0, 96), Image.effect_noise((96, 96), 80).convert("RGB")
    soft = face.resize((32, 32)).resize((96, 96), Image.Resampling.BICUBIC)
    assert likeness(face, face) == 1
    assert likeness(face, soft) > 0.8
    assert likeness(other, face) == 0
    assert likeness(Image.new("RGB", (50, 50), "#777"), face) == 0


def test_a_good_picture_is_not_doubted_and_another_gets_a_hint(portrait):
    face = portrait(0, 96)
    assert doubt(portrait(0, 300), face, 1.0) == ""
    assert "1x1 pixels" in doubt(Image.new("RGB", (1, 1)), face, 1.0)
    assert "little like" in doubt(Image.effect_noise((300, 200), 80), face, 1.0)
    assert "little like" in doubt(portrait(0, 300), face, 2.0)
    wide = Image.new("RGB", (200, 96))
    wide.paste(face, (52, 0))
    assert "square in the middle" in doubt(wide, face, 1.0)
