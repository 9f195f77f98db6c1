"""A real Chromium paints label maps in the real app with the shipped model."""

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFilter

from gan_core.facades import BACKGROUND, BALCONY, DOOR, SHOP, WALL, WINDOW, random_facade
from gan_core.image import open_picture, read_data_url
from gan_core.palette import FACADES


def labels(pen) -> np.ndarray:
    """The map on the paper; every pixel must be of a class colour."""
    picture = read_data_url(pen.paper_url())
    assert picture.size == (256, 256)
    assert {color for _, color in picture.getcolors()} <= set(FACADES.colors)
    return FACADES.to_labels(picture)


def building(pen) -> Image.Image:
    pen.settle()
    return read_data_url(pen.face_url())


def change(before: Image.Image, after: Image.Image, box: tuple[int, int, int, int]) -> float:
    return float(np.asarray(ImageChops.difference(before, after).crop(box)).mean())


def details(picture: Image.Image) -> Image.Image:
    """Without the tone, which the network may choose anew for the whole building."""
    fine, coarse = (picture.convert("L").filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 6))
    return ImageChops.subtract(fine, coarse, offset=128)


def choose(pen, name: str) -> None:
    pen.board.get_by_role("radio", name=name, exact=True).click()


@pytest.fixture
def pen(visit):
    """On a bare wall that leaves a margin of background."""
    pen = visit("facades")
    pen.board.locator(".pad-examples button").first.wait_for()
    pen.click("clear")
    choose(pen, "wall")
    pen.stroke([(0.1, 0.1), (0.9, 0.9)])
    return pen


def test_the_tab_opens_with_a_building(visit):
    pen = visit("facades")
    pen.settle()
    assert (labels(pen) == DOOR).any()
    assert len(building(pen).getcolors(70_000)) > 1000


def test_a_window_dragged_into_the_wall_changes_the_picture_there_while_it_is_dragged(pen):
    assert (labels(pen)[30:220, 30:220] == WALL).all() and labels(pen)[5, 5] == BACKGROUND
    before = building(pen)
    choose(pen, "window")
    path = [(0.3 + 0.01 * i, 0.3 + 0.015 * i) for i in range(20)]
    pen.draw_until_pictures_come(path * 100)
    pen.page.mouse.move(*pen.at(*path[-1]))
    pen.page.mouse.up()
    after = building(pen)
    box = (77, 77, 125, 149)
    painted = labels(pen)[box[1] : box[3], box[0] : box[2]]
    assert (painted[2:-2, 2:-2] == WINDOW).all()
    there, elsewhere = (change(details(before), details(after), place) for place in (box, (0, 190, 256, 256)))
    assert there > 1.4 * elsewhere
    assert there > 8


def test_brush_eraser_fill_undo_redo_and_clear(pen):
    wall = labels(pen)
    pen.click("brush")
    choose(pen, "balcony")
    pen.stroke([(0.3, 0.5), (0.7, 0.5)])
    painted = labels(pen)
    assert 102 * 8 < (painted == BALCONY).sum() < 112 * 14
    pen.click("eraser")
    pen.stroke([(0.5, 0.4), (0.5, 0.6)])
    assert labels(pen)[128, 128] == BACKGROUND
    pen.click("undo")
    assert (labels(pen) == painted).all()
    pen.click("undo")
    assert (labels(pen) == wall).all()
    pen.click("redo")
    assert (labels(pen) == painted).all()
    pen.click("fill")
    choose(pen, "door")
    pen.stroke([(0.2, 0.2), (0.2, 0.2)])
    assert (labels(pen)[wall == WALL] != WALL).all(), "what is joined and of one class is filled"
    assert ((labels(pen) == BALCONY) == (painted == BALCONY)).all(), "another class stops it"
    pen.click("clear")
    assert (labels(pen) == BACKGROUND).all()
    pen.click("undo")
    assert (labels(pen) == DOOR).any()


def test_what_changes_nothing_is_no_step_and_who_chooses_a_class_paints_with_it(pen):
    wall = labels(pen)
    choose(pen, "window")
    pen.stroke([(0.3, 0.3), (0.5, 0.5)])
    window = labels(pen)
    pen.click("undo")
    pen.stroke([(0.2, 0.2), (0.2, 0.2)])  # a tap with the rectangle
    pen.click("redo")
    assert (labels(pen) == window).all(), "redo is still there"
    pen.click("undo")
    assert (labels(pen) == wall).all()
    pen.click("eraser")
    choose(pen, "door")
    pen.stroke([(0.3, 0.5), (0.7, 0.5)])
    assert labels(pen)[128, 128] == DOOR


def test_keyboard_chooses_tools_and_classes(pen):
    for key, tool in (("b", "brush"), ("g", "fill"), ("e", "eraser"), ("m", "rectangle")):
        pen.page.keyboard.press(key)
        assert pen.board.locator(f"[data-action={tool}]").get_attribute("aria-pressed") == "true"
    pen.page.keyboard.press("4")
    assert pen.board.get_by_role("radio", checked=True).inner_text() == "door"
    pen.page.keyboard.press("=")
    assert pen.board.get_by_role("radio", checked=True).inner_text() == "shop"
    pen.page.keyboard.press("Control+z")
    assert (labels(pen) == BACKGROUND).all()


def test_rectangles_end_at_the_edge_and_may_be_dragged_in_any_direction(pen):
    choose(pen, "window")
    pen.stroke([(0.5, 0.5), (0.3, -0.2)])
    assert (labels(pen)[:126, 78:126] == WINDOW).all()


def test_surprise_examples_variants_compare_realism_and_downloads(pen):
    wall = pen.drawing_url()
    pen.page.click("#facade-surprise")
    pen.wait_for_another(wall)
    surprise = labels(pen)
    assert len(np.unique(surprise)) >= 4
    before = pen.drawing_url()
    pen.board.locator(".pad-examples button").nth(3).click()
    pen.wait_for_another(before)
    example = labels(pen)

    pen.click("variants")
    pen.page.wait_for_function("document.querySelectorAll('#facade-board .pad-variants img').length === 4")
    urls = [img.get_attribute("src") for img in pen.board.locator(".pad-variants img").all()]
    assert len({pen.face_url(), *urls}) == 5

    pen.click("compare")
    split = pen.board.locator(".pad-split")
    assert split.is_visible()
    box = pen.board.locator(".pad-face").bounding_box()
    pen.page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    assert float(split.input_value()) == pytest.approx(25, abs=2)
    compared = read_data_url(pen.board.locator(".pad-compared").get_attribute("src"))
    assert (FACADES.to_labels(compared) == example).all(), "without a photo the map itself is compared"

    pen.click("realism")
    pen.settle()
    assert pen.board.locator(".pad-heat").is_visible()

    for action in ("save-result", "save-source"):
        with pen.page.expect_download() as download:
            pen.click(action)
        assert open_picture(download.value.path()).size == (256, 256)
    assert (FACADES.to_labels(open_picture(download.value.path())) == example).all()


def upload(pen, file) -> None:
    with pen.page.expect_file_chooser() as chooser:
        pen.page.click("#facade-upload")
    chooser.value.set_files(file)


def test_a_pair_gives_its_map_to_paint_on_and_its_photo_to_compare_with(pen, tmp_path):
    label_map = random_facade(4)
    pair = Image.new("RGB", (512, 256), "#888")
    pair.paste(label_map, (256, 0))
    pair.paste("#a33", (40, 40, 200, 220))
    pair.save(tmp_path / "pair.jpg", quality=75)
    wall = pen.drawing_url()
    upload(pen, tmp_path / "pair.jpg")
    pen.wait_for_another(wall)
    assert (labels(pen) == FACADES.to_labels(label_map)).mean() > 0.96
    pen.click("compare")
    photo = read_data_url(pen.board.locator(".pad-compared").get_attribute("src"))
    assert np.asarray(photo).astype(int)[128, 128] == pytest.approx([170, 51, 51], abs=12)


def test_an_upload_that_is_no_map_is_explained_and_the_map_stays(pen, tmp_path):
    before = labels(pen)
    Image.effect_noise((300, 300), 40).convert("RGB").save(tmp_path / "photo.png")
    upload(pen, tmp_path / "photo.png")
    pen.page.get_by_text("it is no label map").first.wait_for()
    assert (labels(pen) == before).all()


def test_a_finger_chooses_a_class_and_drags_a_rectangle_on_a_phone(visit):
    pen = visit("facades", width=390, height=844, has_touch=True, is_mobile=True)
    pen.settle()
    before = labels(pen)
    palette = pen.board.locator(".pad-palette").bounding_box()
    assert palette["width"] > 150 and palette["height"] > 30, "the classes cannot be seen"
    pen.board.get_by_role("radio", name="shop", exact=True).tap()
    assert pen.page.evaluate("window.scrollX") == 0
    touch = pen.page.context.new_cdp_session(pen.page)
    for kind, place in (("touchStart", 0.3), ("touchMove", 0.5), ("touchMove", 0.7), ("touchEnd", None)):
        points = [] if place is None else [dict(zip("xy", pen.at(place, place)))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    pen.settle()
    assert (labels(pen)[80:170, 80:170] == SHOP).all() and (labels(pen) != before).any()
    assert pen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_each_tab_keeps_its_drawing_when_the_other_is_looked_at(visit):
    pen = visit("facades")
    pen.settle()
    choose(pen, "shop")
    pen.stroke([(0.1, 0.1), (0.3, 0.3)])
    before = labels(pen)
    pen.page.get_by_role("tab", name="Sketch").click()
    pen.page.keyboard.press("Control+z")  # is meant for the tab that is seen
    pen.page.get_by_role("tab", name="Facade").click()
    assert (labels(pen) == before).all()
    choose(pen, "door")
    pen.stroke([(0.6, 0.6), (0.8, 0.8)])
    assert (labels(pen) == DOOR).any() and (labels(pen) != before).any()
    pen.page.reload()
    pen.page.get_by_role("tab", name="Facade").click()
    pen.board.locator(".pad-alive").wait_for(state="attached")
    assert (labels(pen)[160:200, 160:200] == DOOR).all(), "a reload keeps it too"
