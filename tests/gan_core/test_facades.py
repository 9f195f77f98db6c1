import numpy as np
import pytest
from PIL import Image

from gan_core.facades import BACKGROUND, DOOR, SHOP, SIZE, WALL, WINDOW, random_facade, read_label_map
from gan_core.image import PictureError
from gan_core.palette import FACADES


def colors(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {color for _, color in picture.getcolors(SIZE * SIZE)}


# --- read_label_map


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (100, 300), (3000, 40), (60, 60)])
def test_any_map_becomes_exact_colours_in_the_size_of_the_network(size):
    read = read_label_map(random_facade(0).resize(size, Image.Resampling.BICUBIC))
    assert (read.mode, read.size) == ("RGB", (SIZE, SIZE))
    assert colors(read) <= set(FACADES.colors)


@pytest.mark.parametrize("size", [(256, 256), (400, 280)])
def test_what_was_read_once_is_read_as_it_is(size):
    once = read_label_map(random_facade(1).resize(size, Image.Resampling.LANCZOS))
    assert read_label_map(once) == once


def test_a_clean_map_of_the_right_size_is_left_as_it_is():
    assert read_label_map(random_facade(2)) == random_facade(2)


@pytest.mark.parametrize(
    "size, box",
    [((200, 100), (0, 64, 256, 192)), ((100, 400), (96, 0, 160, 256)), ((2000, 1000), (0, 64, 256, 192))],
)
def test_a_map_that_is_not_square_is_centred_on_background(size, box):
    read = FACADES.to_labels(read_label_map(Image.new("RGB", size, FACADES.colors[SHOP])))
    expected = np.full((SIZE, SIZE), BACKGROUND)
    left, top, right, bottom = box
    expected[top:bottom, left:right] = SHOP
    assert np.array_equal(read, expected)


def test_a_map_on_transparent_paper_is_refused_and_one_in_other_modes_read():
    clean = random_facade(0)
    assert read_label_map(clean.convert("RGBA")) == clean
    with pytest.raises(PictureError, match="#ffffff"):
        read_label_map(Image.new("RGBA", (64, 64)))


def test_a_photo_is_refused(photo):
    with pytest.raises(PictureError, match="no label map"):
        read_label_map(photo)


# --- random_facade


def test_one_seed_has_one_facade_and_another_has_another():
    facades = [random_facade(seed) for seed in range(20)]
    assert facades == [random_facade(seed) for seed in range(20)]
    assert len({facade.tobytes() for facade in facades}) == 20


def test_every_facade_has_a_wall_windows_and_a_door():
    for seed in range(200):
        facade = random_facade(seed)
        assert (facade.mode, facade.size) == ("RGB", (SIZE, SIZE))
        assert colors(facade) <= set(FACADES.colors)
        labels = FACADES.to_labels(facade)
        shares = np.bincount(labels.ravel(), minlength=len(FACADES)) / labels.size
        assert shares[WALL] > 0.1, seed
        assert shares[WINDOW] > 0.03, seed
        assert shares[DOOR] > 0.003, seed


def test_every_class_occurs_in_some_facade():
    seen = set()
    for seed in range(60):
        seen |= colors(random_facade(seed))
    assert seen == set(FACADES.colors)
