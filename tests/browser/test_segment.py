"""A visitor brings a photo, and looks at what is in it."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from app import ASSETS
from gan_core import Segmenter
from gan_core.image import open_picture, read_data_url
from gan_core.palette import VOC

CAT = ASSETS / "examples" / "segmentation" / "1_cat.jpg"
ASTRONAUT = ASSETS / "examples" / "segmentation" / "2_astronaut.jpg"


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.from_checkpoint(ASSETS / "checkpoints" / "segmentation.safetensors")


def view(page):
    return page.locator("#segment-view")


def upload(page, *file) -> None:
    """Gives the photo a file in place of the one that is there, and waits for the answer to it."""
    before = shown(page)
    page.get_by_label("Remove Image").click()
    page.locator("#segment-view .seg-loaded").wait_for(state="detached")
    page.locator("#segment-photo input[type=file]").set_input_files(*file)
    wait_for_another(page, before)


def wait_for_another(page, before: str) -> None:
    page.wait_for_function(
        "(url) => (document.querySelector('.seg-loaded .seg-photo')?.src ?? url) !== url", arg=before
    )


def shown(page) -> str:
    return view(page).locator(".seg-photo").get_attribute("src")


def saved(page, name) -> Image.Image:
    with page.expect_download() as download:
        view(page).get_by_role("button", name=name).click()
    return Image.open(download.value.path())


def fill(page) -> np.ndarray:
    """The colours that lie on the photo, `(H, W, 4)`."""
    url = view(page).locator(".seg-fill").evaluate("(canvas) => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_the_tab_opens_with_a_photo_and_its_classes(visit):
    page = visit("segmentation")
    assert view(page).get_by_role("button", name="cat").count() == 1
    assert "cat" in view(page).get_by_role("status").inner_text()
    assert fill(page)[..., 3].any()


def test_an_upload_comes_back_as_a_map_of_its_own_size(visit, segmenter):
    page = visit("segmentation")
    upload(page, ASTRONAUT)
    saved_map = saved(page, "Save the class map")
    expected = segmenter.segment(open_picture(ASTRONAUT, draft=None), thorough=True)
    assert saved_map.mode == "P" and saved_map.size == Image.open(ASTRONAUT).size
    assert np.array_equal(np.asarray(saved_map), expected)
    assert np.array_equal(np.asarray(saved_map.convert("RGB")), np.asarray(VOC.to_picture(expected)))


def test_a_phone_s_photo_that_lies_on_its_side_is_set_upright(visit, tmp_path):
    lying = Image.open(ASTRONAUT).crop((0, 0, 512, 300)).transpose(Image.Transpose.ROTATE_90)
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "phone.jpg", exif=exif)
    page = visit("segmentation")
    upload(page, tmp_path / "phone.jpg")
    assert read_data_url(shown(page)).size == (512, 300)
    assert saved(page, "Save the class map").size == (512, 300)


def test_the_overlay_is_what_is_seen(visit):
    page = visit("segmentation")
    photo = np.asarray(read_data_url(shown(page)), dtype=int)
    labels = np.asarray(saved(page, "Save the class map"))
    view(page).get_by_role("button", name="Outlines").click()
    view(page).get_by_label("Strength of the colours").fill("100")
    overlay = np.asarray(saved(page, "Save the overlay").convert("RGB"), dtype=int)
    assert overlay.shape == photo.shape
    things = labels > 0
    assert np.array_equal(overlay[things], np.asarray(VOC.to_picture(labels), dtype=int)[things])
    assert np.abs(overlay[~things] - photo[~things]).max(initial=0) <= 2
    view(page).get_by_label("Strength of the colours").fill("0")
    assert np.abs(np.asarray(saved(page, "Save the overlay").convert("RGB"), dtype=int) - photo).max() <= 2


def test_the_name_under_the_pointer_is_that_of_the_class_there(visit):
    page = visit("segmentation")
    labels = np.asarray(saved(page, "Save the class map"))
    box = view(page).locator(".seg-stage").bounding_box()
    for x, y in ((0.5, 0.5), (0.3, 0.7), (0.98, 0.5)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        label = labels[int(y * labels.shape[0]), int(x * labels.shape[1])]
        assert view(page).locator(".seg-name").inner_text() == VOC.names[label]
    page.mouse.move(5, 5)
    assert view(page).locator(".seg-name").inner_text() == ""


def test_a_class_can_be_switched_off_and_on(visit):
    page = visit("segmentation")
    labels = np.asarray(saved(page, "Save the class map"))
    cats = labels == VOC.names.index("cat")
    assert fill(page)[cats, 3].all()
    chip = view(page).get_by_role("button", name="cat")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert not fill(page)[cats, 3].any()
    chip.press("Enter")
    assert fill(page)[cats, 3].all()


def test_the_palette_picture_is_what_the_generator_paints(visit, segmenter):
    page = visit("segmentation")
    painted = view(page).locator(".seg-painted")
    assert not painted.is_visible()
    view(page).get_by_role("button", name="Palette picture").click()
    assert painted.is_visible()
    expected = segmenter.palette_picture(open_picture(CAT, draft=None))
    assert np.array_equal(np.asarray(read_data_url(painted.get_attribute("src"))), np.asarray(expected))


def test_the_shares_in_the_legend_are_those_of_the_map(visit):
    page = visit("segmentation")
    labels = np.asarray(saved(page, "Save the class map"))
    for button in view(page).locator(".seg-legend button").all():
        name, share = button.inner_text().rstrip(" %").split("\n")
        counted = (labels == VOC.names.index(name)).mean() * 100
        assert counted < 1 if share.startswith("<") else abs(counted - int(share)) <= 0.51


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no picture at all", "not a picture that can be read"), (CAT.read_bytes()[:5000], "damaged or cut short")],
    ids=["text", "cut short"],
)
def test_a_file_that_is_no_photo_is_explained_and_the_next_one_works(visit, content, message):
    page = visit("segmentation")
    page.get_by_label("Remove Image").click()
    page.locator("#segment-view .seg-loaded").wait_for(state="detached")
    bad = {"name": "holiday.jpg", "mimeType": "image/jpeg", "buffer": content}
    page.locator("#segment-photo input[type=file]").set_input_files(bad)
    page.get_by_text(message).wait_for()
    page.get_by_text("Drop or paste a photo here").wait_for()  # the way is free for another one
    page.locator("#segment-photo input[type=file]").set_input_files(ASTRONAUT)
    page.locator("#segment-view .seg-loaded").wait_for()
    assert view(page).locator(".seg-legend button").count() > 0


def test_a_photo_from_the_strip_is_looked_at(visit):
    page = visit("segmentation")
    before = shown(page)
    page.locator(".gallery button").nth(1).click()
    wait_for_another(page, before)
    assert read_data_url(shown(page)).size == Image.open(ASTRONAUT).size


def test_a_photo_is_pasted(visit):
    page = visit("segmentation")
    before = shown(page)
    page.evaluate(
        """async (photo) => {
            const data = new DataTransfer();
            const content = await (await fetch(`data:image/jpeg;base64,${photo}`)).blob();
            data.items.add(new File([content], "pasted.jpg", {type: "image/jpeg"}));
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        }""",
        base64.b64encode(ASTRONAUT.read_bytes()).decode(),
    )
    wait_for_another(page, before)
    assert read_data_url(shown(page)).size == Image.open(ASTRONAUT).size


def test_a_photo_of_twelve_megapixels_is_shown_smaller_and_its_map_is_whole(visit, tmp_path):
    large = tmp_path / "large.jpg"
    Image.open(ASTRONAUT).resize((4000, 3000)).save(large, quality=90)
    page = visit("segmentation")
    upload(page, large)
    assert read_data_url(shown(page)).size == (1600, 1200)
    saved_map = saved(page, "Save the class map")
    assert saved_map.size == (4000, 3000)
    colours = fill(page)
    assert colours.shape == (1200, 1600, 4)
    person = np.asarray(saved_map.resize((1600, 1200), Image.Resampling.NEAREST)) == VOC.names.index("person")
    assert colours[person, 3].mean() > 250


def test_it_fits_a_phone(visit):
    page = visit("segmentation", width=390, height=844, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    stage = view(page).locator(".seg-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box["width"] > 280
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert view(page).locator(".seg-name").inner_text() in VOC.names
