"""A real Chromium mixes faces in the real app, with a small model of its own."""

import io
import json
import re

import av
import numpy as np
import pytest
from PIL import Image

from gan_core import FaceMixer
from gan_core.image import open_picture, read_data_url, to_data_url
from gan_core.recipe import read_face, read_recipe


@pytest.fixture(scope="module")
def mixer(mixer_folder) -> FaceMixer:
    return FaceMixer.from_checkpoint(mixer_folder / "vaegan.safetensors")


@pytest.fixture
def mix(visit, mix_url):
    """Opens the tab: `pen = mix()`, or `mix("?mix=1:1,2:0.5")`, which leaves the tab to the link."""

    def open_mix(query: str = "", **options):
        pen = visit("vaegan", url=mix_url + query, choose_tab=not query, **options)
        pen.board.locator(".mix-gallery img[src^=data]").last.wait_for()
        return pen

    return open_mix


@pytest.fixture
def pen(mix):
    return mix()


def state(pen) -> dict:
    """What the page remembers: faces, weights, shifts, truncation."""
    return json.loads(pen.page.evaluate("() => sessionStorage.getItem('board-vaegan')"))


def seeds(pen) -> list[int | None]:
    return [face.get("seed") for face in state(pen)["faces"]]


def blend(pen) -> Image.Image:
    pen.settle()
    return read_data_url(pen.face_url())


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


def expected(mixer: FaceMixer, state: dict) -> Image.Image:
    return mixer.decode(read_recipe(mixer, state).blend(mixer)[0])


def weight(pen, number: int):
    return pen.board.get_by_role("slider", name=f"Weight of face {number}")


def slide(pen, slider, start: float, end: float, pictures: int = 0) -> None:
    """Drags a slider from one share of its way to another; to and fro, until so many pictures have come meanwhile."""
    box, count = slider.bounding_box(), pen.pictures() + pictures
    xs = [box["x"] + 8 + share * (box["width"] - 16) for share in np.linspace(start, end, 10)]
    y = box["y"] + box["height"] / 2
    pen.page.mouse.move(xs[0], y)
    pen.page.mouse.down()
    for x in xs:
        pen.page.mouse.move(x, y)
    for _ in range(100):
        if pen.pictures() >= count:
            break
        for x in [*xs[::-1], *xs]:
            pen.page.mouse.move(x, y)
            pen.page.wait_for_timeout(30)
    else:
        raise AssertionError(f"no {pictures} pictures came before the slider was let go")
    pen.page.mouse.up()


def message(pen, text: str) -> None:
    pen.board.locator(".pad-status", has_text=text).wait_for()


def test_another_face_comes_while_a_slider_moves(pen, mixer):
    assert seeds(pen) == [1, 2, 3]
    before = blend(pen)
    assert difference(before, expected(mixer, state(pen))) < 1
    slide(pen, weight(pen, 1), 0.5, 1, pictures=2)
    slide(pen, weight(pen, 2), 0.5, 0)
    after = blend(pen)
    assert state(pen)["weights"] == [1, 0, 0.5]
    assert difference(before, after) > 5
    assert difference(after, expected(mixer, state(pen))) < 1
    shares = pen.board.locator(".mix-slot output").all_inner_texts()
    assert [share for share in shares if share] == ["67 %", "0 %", "33 %"]


def test_undo_and_redo_go_from_one_complete_change_to_the_next(pen):
    undo, redo = (pen.board.locator(f"[data-action={action}]") for action in ("undo", "redo"))
    first = blend(pen)
    assert undo.is_disabled() and redo.is_disabled()
    slide(pen, weight(pen, 1), 0.5, 1)
    second = blend(pen)
    pen.board.get_by_role("button", name="Another seed").first.click()
    third = blend(pen)
    assert difference(first, second) > 1 and difference(second, third) > 1
    undo.click()
    assert difference(blend(pen), second) == 0
    undo.click()
    assert difference(blend(pen), first) == 0, "one drag is one step"
    assert undo.is_disabled()
    pen.page.keyboard.press("Control+Shift+z")
    pen.page.keyboard.press("Control+y")
    assert difference(blend(pen), third) == 0 and redo.is_disabled()
    pen.page.keyboard.press("Control+z")
    pen.click("equal")
    assert difference(blend(pen), first) == 0 and redo.is_disabled()


def test_a_click_on_the_sheet_takes_the_weights_of_that_blend(pen):
    pen.click("add")
    pen.board.locator("[data-action=sheet]").first.click()
    cells = pen.board.locator(".mix-cells button")
    cells.nth(99).wait_for()
    assert cells.count() == 100
    sheet = read_data_url(pen.board.locator(".mix-sheet img").get_attribute("src"))
    assert sheet.size == (960, 960)
    for i in (0, 37):
        cells.nth(i).click()
        left, top = 96 * (i % 10), 96 * (i // 10)
        assert difference(blend(pen), sheet.crop((left, top, left + 96, top + 96))) < 1
        assert sum(state(pen)["weights"]) == pytest.approx(1, abs=1e-3)
    with pen.page.expect_download() as download:
        pen.click("save-sheet")
    assert difference(open_picture(download.value.path()), sheet) == 0


def test_faces_come_from_the_gallery_from_a_seed_and_go(pen, mixer):
    slot = pen.board.locator(".mix-slot")
    slot.nth(1).locator(".mix-choose").click()
    pen.board.get_by_role("button", name="Seed 17").click()
    assert seeds(pen) == [1, 17, 3]
    slot.nth(2).get_by_label("Seed", exact=True).fill("4711")
    slot.nth(2).get_by_label("Seed", exact=True).press("Enter")
    assert seeds(pen) == [1, 17, 4711]
    slot.nth(2).get_by_label("Seed", exact=True).fill("1.5")
    slot.nth(2).get_by_label("Seed", exact=True).press("Enter")
    message(pen, "whole number")
    assert seeds(pen) == [1, 17, 4711]
    for _ in range(3):
        pen.click("add")
    assert len(seeds(pen)) == 6 and pen.board.locator("[data-action=add]").is_disabled()
    slot.nth(0).get_by_role("button", name="Take this face out").click()
    assert seeds(pen)[:2] == [17, 4711]
    assert difference(blend(pen), expected(mixer, state(pen))) < 1
    for _ in range(3):
        slot.nth(2).get_by_role("button", name="Take this face out").click()
    assert seeds(pen) == [17, 4711]
    assert not slot.nth(0).get_by_role("button", name="Take this face out").is_visible(), "two are needed to mix"
    thumbnail = read_data_url(slot.nth(0).locator(".mix-choose img").get_attribute("src"))
    assert difference(thumbnail, mixer.decode(mixer.sample(1, seed=17)[0])) < 8


def test_directions_push_the_blend_and_can_be_reset(pen, mixer):
    before = blend(pen)
    assert pen.board.locator(".mix-direction span").first.inner_text() == "Hair dark or light"
    slide(pen, pen.board.get_by_role("slider", name="Hair dark or light"), 0.5, 1)
    pushed = blend(pen)
    assert state(pen)["shifts"] == [3] + [0] * 7
    assert difference(pushed, expected(mixer, state(pen))) < 1 < difference(pushed, before)
    slide(pen, pen.board.get_by_role("slider", name="Character"), 1, 0)
    average = mixer.decode(mixer.push(mixer.mean, [3]))
    assert difference(blend(pen), average) < 1
    pen.click("straight")
    assert difference(blend(pen), before) == 0


def test_no_weights_at_all_are_equal_shares_and_a_hint(pen):
    before = blend(pen)
    for number in (1, 2, 3):
        slide(pen, weight(pen, number), 0.5, 0)
    assert state(pen)["weights"] == [0, 0, 0]
    message(pen, "All weights are zero")
    assert difference(blend(pen), before) < 1


def test_a_link_opens_the_same_mix(mix, mix_url):
    pen = mix(permissions=["clipboard-read", "clipboard-write"])
    pen.click("surprise")
    slide(pen, weight(pen, 2), 0.5, 0.3)
    slide(pen, pen.board.get_by_role("slider", name="Direction 2"), 0.5, 0.8)
    face = blend(pen)
    pen.click("link")
    message(pen, "copied")
    link = pen.page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(mix_url + "?mix=")
    other = mix(link.removeprefix(mix_url))
    assert seeds(other) == seeds(pen)
    assert difference(blend(other), face) < 1
    other.click("surprise")
    changed = state(other)
    other.page.reload()
    other.page.get_by_role("tab", name="Mix").click()
    other.board.locator(".pad-alive").wait_for(state="attached")
    assert state(other) == changed, "after a reload the visitor's own changes count"


@pytest.mark.parametrize(
    "query",
    [
        "?mix=",
        "?mix=hello",
        "?mix=5:1",
        "?mix=1:1,2",
        "?mix=1.5:1,2:1",
        "?mix=-1:1,2:1",
        "?mix=1:2,2:1",
        "?mix=1:1,2:1&shifts=9",
        "?mix=1:1,2:1&shifts=0,0,0,0,0,0,0,0,1",
        "?mix=1:1,2:1&character=NaN",
        "?mix=1:1,1:1,1:1,1:1,1:1,1:1,1:1",
    ],
)
def test_a_damaged_link_gives_a_hint_and_the_usual_faces(mix, query):
    pen = mix(query)
    message(pen, "link is damaged")
    assert seeds(pen) == [1, 2, 3]


def hold(pen, name: str) -> list:
    """Calls of this server function wait in the list for `pop().continue_()`."""
    held = []

    def on_route(route):
        held.append(route) if f'"{name}"' in route.request.post_data else route.continue_()

    pen.page.route(re.compile("component_server"), on_route)
    return held


def choose_own(pen, file, number: int = 1) -> None:
    with pen.page.expect_file_chooser() as chooser:
        pen.board.get_by_role("button", name="A picture of your own").nth(number - 1).click()
    chooser.value.set_files(file)


@pytest.mark.parametrize(("size", "hint"), [((640, 360), "little like the faces"), ((1, 1), "only 1x1 pixels")])
def test_an_own_picture_is_mixed_with_a_hint_if_it_is_no_face(pen, mixer, tmp_path, size, hint):
    picture = Image.effect_noise(size, 60).convert("RGB")
    picture.paste("#3a3", (0, size[1] // 2, *size))
    picture.save(tmp_path / "meadow.png")
    choose_own(pen, tmp_path / "meadow.png", 2)
    message(pen, hint)
    assert seeds(pen) == [1, None, 3]
    assert difference(blend(pen), expected(mixer, state(pen))) < 1
    assert pen.board.locator(".mix-original").nth(1).is_visible()
    pen.click("undo")
    assert seeds(pen) == [1, 2, 3] and not pen.board.locator(".mix-original").nth(1).is_visible()


def test_an_own_picture_finds_its_face_though_that_has_moved_meanwhile(pen, portrait, tmp_path):
    portrait(1, 300).save(tmp_path / "me.jpg")
    answers = hold(pen, "encode")

    def choose_and_remove(number: int) -> None:
        choose_own(pen, tmp_path / "me.jpg", 3)
        message(pen, "Looking at your picture")
        pen.board.get_by_role("button", name="Take this face out").nth(number - 1).click()
        pen.until(lambda: answers)
        answers.pop().continue_()

    choose_and_remove(1)
    pen.board.locator(".mix-original").nth(1).wait_for()
    assert seeds(pen) == [2, None]
    pen.click("undo")
    pen.click("undo")
    choose_and_remove(3)
    message(pen, "has gone")
    assert seeds(pen) == [1, 2]


def test_of_two_own_pictures_for_one_place_the_later_one_counts(pen, mixer, portrait, tmp_path):
    answers = hold(pen, "encode")
    for seed in (1, 2):
        portrait(seed, 300).save(tmp_path / f"{seed}.png")
        choose_own(pen, tmp_path / f"{seed}.png", 2)
        pen.until(lambda seed=seed: len(answers) == seed)
    first, second = answers
    first.continue_()
    pen.until(lambda: "latent" in state(pen)["faces"][1])
    before = state(pen)["faces"][1]["latent"]
    second.continue_()
    pen.until(lambda: state(pen)["faces"][1]["latent"] != before)
    blend(pen)
    assert seeds(pen) == [1, None, 3]
    found = read_face(mixer, state(pen)["faces"][1])
    distances = [np.abs(found - mixer.encode(portrait(seed, 288))).max() for seed in (1, 2)]
    assert distances[1] < distances[0] / 2


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_an_own_picture_is_pasted_or_dropped(pen, mixer, portrait, event):
    """Pasted, it takes the place that was chosen; dropped, the one it is dropped on."""
    pen.board.get_by_role("button", name="Choose the place of face 3").click()
    data = to_data_url(portrait(1, 300), "PNG")
    pen.page.evaluate(
        """async ([event, url]) => {
            const data = new DataTransfer();
            data.items.add(new File([await (await fetch(url)).blob()], "me.png", {type: "image/png"}));
            const [place] = [...document.querySelectorAll("#mix-board .mix-slot")].slice(1);
            const dropped = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
            if (event === "drop") place.dispatchEvent(dropped);
            else document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
            if (event === "drop" && !dropped.defaultPrevented) throw new Error("the browser would leave the page");
        }""",
        [event, data],
    )
    number = {"paste": 2, "drop": 1}[event]
    pen.board.locator(".mix-original").nth(number).wait_for()
    assert [seed for seed in seeds(pen) if seed] == ([1, 2] if event == "paste" else [1, 3])
    assert difference(blend(pen), expected(mixer, state(pen))) < 1


def test_the_chosen_face_stays_chosen_when_another_one_goes(pen):
    pen.board.get_by_role("button", name="Choose the place of face 3").click()
    pen.board.get_by_role("button", name="Take this face out").first.click()
    pen.board.locator(".mix-gallery button").nth(9).click()
    assert seeds(pen) == [2, 10]


def test_a_blend_of_the_sheet_is_what_was_shown_there(pen, mixer):
    pen.board.locator("[data-action=sheet]").first.click()
    pen.board.locator(".mix-sheet").wait_for()
    slide(pen, pen.board.get_by_role("slider", name="Direction 2"), 0.5, 1)
    slide(pen, pen.board.get_by_role("slider", name="Character"), 1, 0.3)
    sheet = read_data_url(pen.board.locator(".mix-sheet img").get_attribute("src"))
    pen.board.get_by_role("button", name="Take the weights of blend 35", exact=True).click()
    row, column, side = 3, 4, sheet.width // 10
    cell = sheet.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
    assert difference(blend(pen), cell) < 2


def test_what_is_not_of_the_link_stays_in_the_address(mix):
    pen = mix("?__theme=dark&mix=4:1,5:0.5")
    blend(pen)
    assert seeds(pen) == [4, 5]
    assert pen.page.url.endswith("?__theme=dark")


def test_blends_of_faces_that_are_no_longer_there_are_put_away(pen):
    pen.board.locator("[data-action=sheet]").first.click()
    sheet = pen.board.locator(".mix-sheet")
    sheet.wait_for()
    slide(pen, weight(pen, 1), 0.5, 1)
    assert sheet.is_visible()
    pen.board.get_by_role("button", name="Another seed").first.click()
    assert not sheet.is_visible()


def test_an_own_picture_survives_a_reload_and_stays_out_of_links(mix, mixer, portrait, tmp_path):
    portrait(1, 300).save(tmp_path / "me.jpg")
    pen = mix(permissions=["clipboard-read", "clipboard-write"])
    choose_own(pen, tmp_path / "me.jpg")
    pen.board.locator(".mix-original").first.wait_for()
    for number in (2, 3):
        slide(pen, weight(pen, number), 0.5, 0)
    face = mixer.decode(mixer.encode(portrait(1, 300)))
    assert difference(blend(pen), face) < 4
    pen.click("link")
    message(pen, "Pictures of your own are not in it")
    assert "?mix=2:0,3:0" in pen.page.evaluate("navigator.clipboard.readText()")
    pen.page.reload()
    pen.page.get_by_role("tab", name="Mix").click()
    pen.board.locator(".pad-alive").wait_for(state="attached")
    assert difference(read_data_url(pen.face_url()), face) < 4


@pytest.mark.parametrize("content", [b"", b"this is text", b"\x89PNG\r\n\x1a\n cut short"])
def test_a_file_that_is_no_picture_is_explained_and_the_mix_stays(pen, tmp_path, content):
    (tmp_path / "holiday.png").write_bytes(content)
    choose_own(pen, tmp_path / "holiday.png")
    message(pen, "“holiday.png” is not a picture that can be read")
    assert seeds(pen) == [1, 2, 3]


def test_the_film_plays_and_can_be_saved_in_both_formats(pen):
    asked = hold(pen, "film")  # until the page has been looked at; a small model makes its film in no time
    pen.click("film")
    pen.board.locator(".mix-film progress").wait_for()
    assert pen.board.locator("[data-action=film]").is_disabled()
    pen.until(lambda: asked)
    asked.pop().continue_()
    pen.board.locator("video[src]").wait_for()
    pen.board.locator("[data-action=film][aria-disabled=false]").wait_for()
    if pen.page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=avc1.42E01E')"):
        pen.page.wait_for_function("document.querySelector('video').currentTime > 0.2")
        width, duration = pen.page.evaluate(
            "(({videoWidth, duration}) => [videoWidth, duration])(document.querySelector('video'))"
        )
        assert (width, duration) == (384, pytest.approx(4.8, abs=0.1))
    files = {}
    for action in ("save-mp4", "save-gif"):
        with pen.page.expect_download() as download:
            pen.click(action)
        files[action] = download.value.path().read_bytes()
    gif = Image.open(io.BytesIO(files["save-gif"]))
    assert (gif.format, gif.n_frames, gif.size) == ("GIF", 120, (192, 192))
    with av.open(io.BytesIO(files["save-mp4"])) as film:
        frames = [frame.to_image() for frame in film.decode(video=0)]
    assert len(frames) == 120
    first, second = (frames[i].resize((96, 96)) for i in (0, 40))
    thumbnails = [read_data_url(img.get_attribute("src")) for img in pen.board.locator(".mix-choose img").all()[:2]]
    assert difference(first, thumbnails[0]) < 10 < difference(first, thumbnails[1])
    assert difference(second, thumbnails[1]) < 10


def test_the_blend_is_saved_four_times_as_large(pen):
    with pen.page.expect_download() as download:
        pen.click("save")
    saved = Image.open(download.value.path())
    assert (saved.format, saved.size) == ("PNG", (384, 384))
    assert difference(saved.convert("RGB").resize((96, 96), Image.Resampling.BOX), blend(pen)) < 4


def test_a_lost_server_is_told_and_the_newest_mix_comes_when_it_is_back(pen, mixer):
    questions = re.compile("component_server")
    pen.page.route(questions, lambda route: route.abort())
    slide(pen, weight(pen, 1), 0.5, 1)
    message(pen, "No answer from the server")
    pen.page.unroute(questions)
    pen.board.locator(".pad-status:empty").wait_for(state="attached")
    assert state(pen)["weights"][0] == 1
    assert difference(blend(pen), expected(mixer, state(pen))) < 1


def test_on_a_phone_nothing_is_too_wide_and_the_blend_stays_in_view(mix):
    # Without motion: a page that is still on its way to the sheet is nowhere in particular.
    pen = mix(width=390, height=844, has_touch=True, is_mobile=True, reduced_motion="reduce")
    for _ in range(3):
        pen.click("add")
    pen.board.locator("[data-action=sheet]").first.click()
    pen.board.locator(".mix-cells button").first.wait_for()
    assert pen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for name in ("Hair dark or light", "Direction 8"):
        slider = pen.board.get_by_role("slider", name=name)
        slider.evaluate("(slider) => slider.scrollIntoView({block: 'start'})")
        face, moved = pen.board.locator(".pad-face").bounding_box(), slider.bounding_box()
        assert face["y"] >= 0 and face["y"] + face["height"] <= moved["y"] < 844 - 44
    assert all(button.bounding_box()["height"] >= 44 for button in pen.board.locator(".mix-slot button:visible").all())
