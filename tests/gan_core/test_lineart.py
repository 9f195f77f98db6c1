from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from gan_core.faces import FaceLayout, crop_face
from gan_core.lineart import (
    PHOTO_SIDE,
    SIZE,
    draw_like_a_hand,
    draw_lines,
    is_drawing,
    normalise_drawing,
    random_doodle,
    read_drawing,
    resample,
    thin,
)

DOODLES = sorted((Path(__file__).parents[1] / "data" / "doodles").glob("*.png"))
LAYOUT = FaceLayout((105.0, 115.0), (151.0, 115.0), (128.0, 176.0))


def ink(picture) -> float:
    """Share of the paper that is covered by ink."""
    return float((255 - np.asarray(picture, dtype=np.float64)).mean() / 255)


def line_width(picture: Image.Image, row: int) -> float:
    """Width of the one upright line that crosses a row, in pixels of full ink."""
    return float((255 - np.asarray(picture, dtype=np.float64)[row]).sum() / 255)


def upright(width: int, size: int = SIZE, paper: int = 255, pencil: int = 0) -> Image.Image:
    picture = Image.new("L", (size, size), paper)
    ImageDraw.Draw(picture).line((size // 2, size // 8, size // 2, size - size // 8), fill=pencil, width=width)
    return picture


# --- draw_lines


def test_lines_of_a_photo_are_the_same_each_time(photo):
    assert draw_lines(photo) == draw_lines(photo.copy())


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (256, 256), (700, 300), (300, 900), (6000, 1)])
def test_lines_have_the_size_of_the_photo(portrait, size):
    lines = draw_lines(portrait().resize(size))
    assert (lines.mode, lines.size) == ("L", size)


def test_lines_are_black_on_white(photo):
    lines = np.asarray(draw_lines(photo))
    assert np.median(lines) == 255
    assert lines.min() < 20
    assert 0.005 < ink(lines) < 0.2


def test_more_detail_is_more_ink(photo):
    amounts = [ink(draw_lines(photo, detail)) for detail in (0.0, 0.5, 1.0)]
    assert amounts[0] < amounts[1] < amounts[2]


def test_a_photo_of_nothing_has_no_lines():
    assert ink(draw_lines(Image.new("RGB", (256, 256), "gray"))) == 0


@pytest.mark.parametrize("detail", [-0.01, 1.01, float("nan")])
def test_detail_outside_its_range_is_an_error(photo, detail):
    with pytest.raises(ValueError, match="between 0 and 1"):
        draw_lines(photo, detail)


# --- draw_like_a_hand


@pytest.mark.parametrize("layout", [LAYOUT, None])
def test_one_seed_is_one_drawing(photo, layout):
    drawings = [draw_like_a_hand(np.asarray(photo), np.random.default_rng(5), layout) for _ in range(2)]
    assert np.array_equal(*drawings)
    assert (drawings[0].dtype, drawings[0].shape) == (np.uint8, (SIZE, SIZE))


def test_another_seed_is_another_drawing(photo):
    drawings = {draw_like_a_hand(np.asarray(photo), np.random.default_rng(s), LAYOUT).tobytes() for s in range(20)}
    assert len(drawings) >= 19  # two may both be empty


def test_the_photo_is_left_as_it_was(photo):
    array = np.array(photo)
    draw_like_a_hand(array, np.random.default_rng(0), LAYOUT)
    assert np.array_equal(array, np.asarray(photo))


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (SIZE, SIZE, 4), (128, 128, 3)])
def test_a_photo_of_another_shape_is_an_error(shape):
    with pytest.raises(ValueError, match="shape"):
        draw_like_a_hand(np.zeros(shape, np.uint8), np.random.default_rng(0))


@pytest.mark.parametrize("layout", [LAYOUT, None])
def test_drawings_have_a_sane_share_of_ink_and_some_are_nearly_empty(photo, layout):
    shares = np.array([ink(draw_like_a_hand(np.asarray(photo), np.random.default_rng(s), layout)) for s in range(120)])
    assert shares.max() < 0.5
    assert 0.01 < np.median(shares) < 0.25
    assert (shares < 0.005).any(), "the first strokes of a drawing must be among the training drawings"


def test_any_photo_and_any_layout_can_be_drawn():
    rng = np.random.default_rng(0)
    photos = [np.zeros((SIZE, SIZE, 3), np.uint8), rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)]
    layouts = [None, replace(LAYOUT, mouth=(-40.0, 300.0)), FaceLayout((-9.0, 5.0), (300.0, 250.0), (10.0, 10.0))]
    for seed in range(12):
        for photo in photos:
            for layout in layouts:
                drawing = draw_like_a_hand(photo, np.random.default_rng(seed), layout)
                assert drawing.shape == (SIZE, SIZE)


def test_resampling_keeps_the_ends_and_the_step():
    line = resample(np.array([(0, 0), (30, 0), (30, 40)], np.float32), step=3)
    assert np.allclose(line[[0, -1]], [(0, 0), (30, 40)])
    assert np.hypot(*np.diff(line, axis=0).T).max() <= 3.01


# --- normalise_drawing


@pytest.mark.parametrize("size", [(256, 256), (400, 300), (300, 400), (900, 250)])
def test_chalk_on_a_board_is_read_like_pen_on_paper(size):
    paper = Image.new("L", size, 255)
    width, height = size
    ImageDraw.Draw(paper).ellipse((width * 0.3, height * 0.2, width * 0.7, height * 0.8), outline=0, width=4)
    expected = np.asarray(normalise_drawing(paper)).astype(int)
    assert ink(expected) > 0.003
    board = np.asarray(normalise_drawing(ImageOps.invert(paper))).astype(int)
    assert np.abs(board - expected).max() <= 3


@pytest.mark.parametrize("shade", [150, 200, 240])
@pytest.mark.parametrize("size", [(256, 256), (400, 300)])
def test_gray_paper_becomes_white_to_its_edges(shade, size):
    drawing = Image.new("L", size, shade)
    ImageDraw.Draw(drawing).line((size[0] // 2, 90, size[0] // 2, 200), fill=10, width=4)
    normal = np.asarray(normalise_drawing(drawing))
    assert normal.min() == 0
    assert (normal[:, :100] == 255).all()
    assert (normal[:40] == 255).all()


def test_a_gray_pencil_becomes_black():
    assert np.asarray(normalise_drawing(upright(3, pencil=190))).min() == 0


def test_uneven_light_on_paper_leaves_no_ink():
    light = np.tile(np.linspace(170, 255, SIZE), (SIZE, 1)).astype(np.uint8)
    drawing = Image.fromarray(np.minimum(light, np.asarray(upright(3))))
    normal = np.asarray(normalise_drawing(drawing))
    assert normal[:, :110].min() == normal[:, 146:].min() == 255
    assert normal[SIZE // 2, SIZE // 2] < 60


def test_a_fat_brush_becomes_a_pen():
    assert line_width(upright(16), SIZE // 2) >= 15
    assert 0.5 < line_width(normalise_drawing(upright(16)), SIZE // 2) <= 6


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_pen_keeps_its_width(width):
    assert line_width(normalise_drawing(upright(width)), SIZE // 2) == pytest.approx(width, abs=0.5)


@pytest.mark.parametrize("width", range(5, 40, 3))
def test_no_width_of_brush_makes_a_line_vanish(width):
    assert line_width(normalise_drawing(upright(width)), SIZE // 2) > 0.5


def test_a_filled_area_keeps_its_outline_only():
    drawing = Image.new("L", (SIZE, SIZE), "white")
    ImageDraw.Draw(drawing).ellipse((60, 60, 196, 196), fill=0)
    normal = np.asarray(normalise_drawing(drawing))
    assert normal[128, 128] == 255
    assert normal[128, 56:76].min() < 128


@pytest.mark.parametrize("size", [(256, 256), (400, 300), (1, 1)])
@pytest.mark.parametrize("shade", [0, 60, 128, 255])
def test_paper_without_a_line_is_white(size, shade):
    assert ink(normalise_drawing(Image.new("L", size, shade))) == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (256, 256), (1024, 768), (4000, 1)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P", "LA"])
def test_any_size_and_mode_becomes_a_gray_picture_of_the_networks_size(doodle, size, mode):
    normal = normalise_drawing(doodle.convert(mode).resize(size))
    assert (normal.mode, normal.size) == ("L", (SIZE, SIZE))


def test_a_clear_canvas_is_paper():
    canvas = Image.new("RGBA", (512, 512))
    assert ink(normalise_drawing(canvas)) == 0
    ImageDraw.Draw(canvas).line((100, 100, 400, 400), fill=(0, 0, 0, 255), width=5)
    assert ink(normalise_drawing(canvas)) > 0.002


def test_what_is_normal_stays_as_it_is():
    drawing = random_doodle(1)
    once = normalise_drawing(drawing)
    assert np.abs(np.asarray(once).astype(int) - np.asarray(normalise_drawing(once))).mean() < 0.5


def test_thin_leaves_paper_and_pens_alone():
    for width in (1, 3):
        lines = 255 - np.asarray(upright(width))
        assert np.array_equal(thin(lines), lines)
    assert not thin(np.zeros((SIZE, SIZE), np.uint8)).any()


# --- is_drawing, random_doodle


@pytest.mark.parametrize("path", DOODLES, ids=lambda path: path.stem)
def test_a_doodle_is_a_drawing(path):
    with Image.open(path) as drawing:
        assert is_drawing(drawing)
        assert 0.004 < ink(normalise_drawing(drawing)) < 0.3


def test_there_are_doodles():
    assert len(DOODLES) >= 10


def test_chalk_on_a_board_is_a_drawing():
    assert is_drawing(ImageOps.invert(random_doodle(0)))


@pytest.mark.parametrize("seed", range(4))
def test_a_photo_is_no_drawing(portrait, seed):
    assert not is_drawing(portrait(seed))
    assert not is_drawing(portrait(seed).convert("L").filter(ImageFilter.GaussianBlur(1)))


def test_a_drawing_is_read_as_it_is_and_of_a_photo_the_lines_of_its_face(doodle):
    assert read_drawing(doodle) is doodle
    with Image.open(Path(__file__).parents[1] / "data" / "faces" / "face_1.jpg") as photo:
        lines = draw_lines(crop_face(photo, PHOTO_SIDE), 0.9)
        assert (np.asarray(read_drawing(photo, 0.9)) == np.asarray(lines)).all()
        assert (np.asarray(read_drawing(photo, 0.1)) != np.asarray(lines)).any()


def test_one_seed_is_one_doodle_and_another_is_another():
    assert random_doodle(3) == random_doodle(3)
    assert random_doodle(3) != random_doodle(4)


def test_doodles_are_drawings_in_the_range_of_the_networks():
    for seed in range(10):
        doodle = random_doodle(seed)
        assert (doodle.mode, doodle.size) == ("L", (SIZE, SIZE))
        assert is_drawing(doodle)
        assert 0.005 < ink(doodle) < 0.2
