"""A visitor goes through the lessons."""

import re

import pytest
from playwright.sync_api import expect

from tests.waiting import LONGEST


@pytest.fixture
def lesson(visit):
    """`lesson("2 Patches")`: the page with that lesson open."""

    def open_lesson(title: str, **options):
        page = visit(**options).page
        page.get_by_role("tab", name="Learn").click()
        page.get_by_role("tab", name=title).click()
        return page

    return open_lesson


def wait_for_another(picture, before: str) -> str:
    """The address of a picture, once it is not `before` any more."""
    expect(picture).not_to_have_attribute("src", before, timeout=1000 * LONGEST)
    return picture.get_attribute("src")


def test_a_cut_skip_changes_the_picture(lesson):
    page = lesson("1 Skips")
    result = page.get_by_alt_text("What comes out")
    whole = result.get_attribute("src")
    page.get_by_label("64×64").focus()
    page.keyboard.press("Space")
    assert wait_for_another(result, whole).startswith("data:image/jpeg")
    page.locator("#skip-levels figure").nth(8).wait_for()
    assert re.fullmatch(r"256×256 \(\d+\.\d\)", page.locator("#skip-levels figcaption").last.inner_text())


def test_the_frame_follows_pointer_and_keys(lesson):
    page = lesson("2 Patches")
    view = page.locator("#patch-view")
    view.locator(".learn-frame").nth(2).wait_for()
    status, frame = view.get_by_role("status"), view.locator(".learn-frame").first
    assert re.match(r"This patch: \d\.\d\d\. The mean of all 900 patches: \d\.\d\d\.", status.inner_text())
    box = view.locator(".pad-square").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    moved = frame.bounding_box()
    square = view.locator(".pad-square").first.bounding_box()
    assert moved["x"] + moved["width"] / 2 - square["x"] == pytest.approx(square["width"] / 4, abs=square["width"] / 40)
    assert moved["width"] == pytest.approx(square["width"] * 70 / 256, abs=3)
    view.locator(".learn-panels").focus()
    page.keyboard.press("ArrowRight")
    assert frame.bounding_box()["x"] - moved["x"] == pytest.approx(square["width"] * 8 / 256, abs=1)


def test_more_dropout_makes_the_answers_differ_more(lesson):
    page = lesson("3 Noise")
    page.get_by_alt_text("Answer 4").wait_for()
    number = page.get_by_text("How far the four answers lie apart").locator("strong")
    before = float(number.inner_text().split()[0])
    slider = page.get_by_role("slider", name="Dropout")
    slider.focus()
    slider.press("End")
    page.wait_for_function(
        "([words, before]) => parseFloat([...document.querySelectorAll('strong')].find((one) => "
        "one.textContent.includes(words)).textContent) > 1.5 * before",
        arg=["of 255 levels", before],
    )


def test_the_small_nets_stand_side_by_side(lesson):
    page = lesson("4 Losses")
    page.locator("#loss-results figure").nth(2).wait_for()
    assert page.get_by_role("row", name="L1 only").first.is_visible()


def test_the_map_of_a_latent_space_can_be_walked(lesson):
    page = lesson("5 Latent space", width=390, height=844)
    view = page.locator("#latent-view")
    view.locator(".learn-frame").nth(1).wait_for()
    assert view.get_by_role("status").inner_text() == "z = (0.0, 0.0)"
    view.locator(".learn-panels").focus()
    page.keyboard.press("ArrowUp")
    assert view.get_by_role("status").inner_text() == "z = (0.0, 0.4)"
    seen = view.get_by_alt_text("What the decoder draws there").get_attribute("src")
    page.get_by_label("Reconstruction only").check()
    wait_for_another(view.get_by_alt_text("What the decoder draws there"), seen)
    page.locator("#latent-shipped figure").nth(3).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
