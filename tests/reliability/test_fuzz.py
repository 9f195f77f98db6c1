"""Hypothesis invents messages and pictures; whatever it finds, it makes small."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gan_core import FaceMixer
from gan_core.image import PictureError, open_picture, read_data_url, to_data_url
from gan_core.recipe import RecipeError, read_recipe
from tests.reliability.pictures import whole

MODEST = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=20,
)
FACE = st.fixed_dictionaries({}, optional={"seed": ANYTHING | st.integers(0, 9), "latent": ANYTHING}) | ANYTHING
RECIPE = st.fixed_dictionaries(
    {},
    optional={
        "faces": st.lists(FACE, max_size=8) | ANYTHING,
        "weights": st.lists(st.floats() | st.integers(0, 1), max_size=8) | ANYTHING,
        "shifts": st.lists(st.floats(-3, 3) | ANYTHING, max_size=9) | ANYTHING,
        "truncation": st.floats() | ANYTHING,
    },
)


@pytest.fixture(scope="module")
def mixer(mixer_folder):
    return FaceMixer.from_checkpoint(mixer_folder / "vaegan.safetensors")


@given(RECIPE)
@MODEST
def test_a_recipe_is_followed_or_explained(mixer, data):
    try:
        assert read_recipe(mixer, data).blend(mixer).shape == (1, mixer.latent)
    except RecipeError as error:
        assert str(error).endswith(".")


@given(st.text() | st.binary().map(lambda data: f"data:image/png;base64,{data.hex()}") | ANYTHING)
@MODEST
def test_a_canvas_is_read_or_explained(text):
    with pytest.raises(PictureError, match=r"\.$"):
        read_data_url(text)


@given(st.sampled_from(sorted(whole())), st.data())
@MODEST
def test_a_damaged_file_opens_or_is_explained(name, data):
    file = bytearray(whole()[name][1])
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255)), max_size=12)):
        file[at] = value
    try:
        picture = open_picture(bytes(file[: data.draw(st.integers(0, len(file)))]))
        assert picture.mode == "RGB" and to_data_url(picture, "PNG")
    except PictureError as error:
        assert str(error).endswith(".")


@given(st.binary(max_size=2_000))
@MODEST
def test_bytes_behind_the_head_of_a_format_are_explained(tail):
    for head in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"RIFF\x10\0\0\0WEBP"):
        with pytest.raises(PictureError, match=r"\.$"):
            open_picture(head + tail)
