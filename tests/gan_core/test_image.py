import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import image
from gan_core.image import (
    PictureError,
    fit,
    open_picture,
    read_data_url,
    side_by_side,
    tile,
    to_array,
    to_data_url,
    to_gray,
    to_pictures,
    to_rgb,
    to_tensor,
)

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encode(picture: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def test_a_large_jpeg_is_decoded_at_a_fraction_unless_all_of_it_is_wanted():
    data = encode(Image.new("RGB", (4200, 600), RED), "JPEG")
    assert open_picture(data, draft=256).size == (2100, 300)
    assert open_picture(data, draft=None).size == (4200, 600)


def noise(size=(60, 40)) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def palette_picture() -> Image.Image:
    picture = Image.new("P", (4, 3), 1)
    picture.putpalette([0, 0, 0, *RED])
    picture.putpixel((0, 0), 0)
    picture.info["transparency"] = 0
    return picture


def gray16(value: int) -> Image.Image:
    return Image.fromarray(np.full((3, 4), value, np.uint16))


def upside_down() -> Image.Image:
    """Red above black as seen; stored the other way round, with the EXIF mark that says so."""
    picture = Image.new("RGB", (4, 4), "black")
    picture.paste(RED, (0, 2, 4, 4))
    picture.getexif()[0x0112] = 3
    return picture


# name: picture, pixel at (0, 0), pixel at the opposite corner
MODES = {
    "RGB": (Image.new("RGB", (4, 3), RED), RED, RED),
    "RGBA, clear": (Image.new("RGBA", (4, 3), (255, 0, 0, 0)), WHITE, WHITE),
    "RGBA, half": (Image.new("RGBA", (4, 3), (0, 0, 0, 128)), (127, 127, 127), (127, 127, 127)),
    "LA, clear": (Image.new("LA", (4, 3), (0, 0)), WHITE, WHITE),
    "LA, opaque": (Image.new("LA", (4, 3), (9, 255)), (9, 9, 9), (9, 9, 9)),
    "P with a clear colour": (palette_picture(), WHITE, RED),
    "L": (Image.new("L", (4, 3), 77), (77, 77, 77), (77, 77, 77)),
    "1": (Image.new("1", (4, 3), 1), WHITE, WHITE),
    "I;16, half": (gray16(32896), (128, 128, 128), (128, 128, 128)),
    "I;16, full": (gray16(65535), WHITE, WHITE),
    "I, eight bits": (Image.new("I", (4, 3), 200), (200, 200, 200), (200, 200, 200)),
    "F with NaN": (Image.fromarray(np.array([[np.nan, 10.0], [20.0, 200.0]], np.float32)), (0, 0, 0), (200, 200, 200)),
    "F with infinity": (Image.fromarray(np.array([[-np.inf, 1], [2, np.inf]], np.float32)), (0, 0, 0), WHITE),
    "CMYK": (Image.new("CMYK", (4, 3), (0, 255, 255, 0)), RED, RED),
    "HSV": (Image.new("HSV", (4, 3), (0, 255, 255)), RED, RED),
    "YCbCr": (Image.new("YCbCr", (4, 3), (255, 128, 128)), WHITE, WHITE),
    "EXIF says upside down": (upside_down(), RED, (0, 0, 0)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_upright_rgb_on_white(name):
    picture, first, last = MODES[name]
    rgb = to_rgb(picture)
    assert rgb.mode == "RGB"
    assert rgb.size == picture.size
    assert rgb.getpixel((0, 0)) == first
    assert rgb.getpixel((rgb.width - 1, rgb.height - 1)) == last


@pytest.mark.parametrize("name", MODES)
def test_gray_is_the_gray_of_the_rgb_picture(name):
    picture = MODES[name][0]
    assert to_gray(picture).mode == "L"
    assert np.array_equal(np.asarray(to_gray(picture)), np.asarray(to_rgb(picture).convert("L")))


def test_a_gray_picture_is_turned_upright_too():
    picture = upside_down().convert("L")
    picture.getexif()[0x0112] = 3
    assert to_gray(picture).getpixel((0, 0)) > 0


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_of_photos_opens(format):
    picture = open_picture(encode(Image.new("RGB", (60, 40), "white"), format))
    assert (picture.mode, picture.size) == ("RGB", (60, 40))
    assert picture.getpixel((30, 20)) == WHITE


def test_a_16_bit_png_opens():
    assert open_picture(encode(gray16(65535), "PNG")).getpixel((0, 0)) == WHITE


def test_a_cmyk_jpeg_opens():
    red = open_picture(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")).getpixel((8, 8))
    assert np.allclose(red, RED, atol=4)


@pytest.mark.parametrize("orientation, size", [(1, (60, 40)), (6, (40, 60)), (8, (40, 60))])
def test_a_photo_from_a_phone_stands_upright(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert open_picture(encode(noise(), "JPEG", exif=exif)).size == size


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    assert open_picture(data).getpixel((4, 4)) == RED


def test_paths_bytes_and_file_objects_are_all_opened(tmp_path):
    data = encode(noise(), "PNG")
    (tmp_path / "x.png").write_bytes(data)
    for file in (tmp_path / "x.png", str(tmp_path / "x.png"), data, bytearray(data), io.BytesIO(data)):
        assert open_picture(file) == noise()


def test_one_pixel_is_a_picture():
    assert open_picture(encode(Image.new("RGB", (1, 1), RED), "PNG")).getpixel((0, 0)) == RED


def test_text_with_the_name_of_a_photo_is_refused_by_name(tmp_path):
    (tmp_path / "holiday.jpg").write_text("this is no photo")
    with pytest.raises(PictureError, match=r"'holiday\.jpg' is not a picture.*Save it as PNG"):
        open_picture(tmp_path / "holiday.jpg")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PictureError, match=r"'gone\.png' does not exist. Check the path"):
        open_picture(tmp_path / "gone.png")


def test_a_file_that_may_not_be_read_is_not_called_damaged(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(PictureError, match=r"'secret\.png' may not be read. Change its permissions"):
        open_picture("secret.png")


def test_no_bytes_are_no_picture():
    with pytest.raises(PictureError, match="not a picture"):
        open_picture(b"")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_file_cut_short_is_refused(format, share):
    data = encode(noise((120, 90)), format)
    with pytest.raises(PictureError, match="again"):
        open_picture(data[: int(share * len(data))])


def test_flipped_bytes_never_raise_anything_but_a_picture_error():
    rng = np.random.default_rng(0)
    opened = 0
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        data = encode(noise(), format)
        for _ in range(150):
            broken = bytearray(data)
            for _ in range(rng.integers(1, 6)):
                broken[rng.integers(min(len(broken), 400))] = rng.integers(256)
            try:
                opened += open_picture(bytes(broken)).mode == "RGB"
            except PictureError as error:
                assert str(error)
    assert opened


def test_a_broken_exif_block_is_a_picture_error():
    with pytest.raises(PictureError, match="Save it once more"):
        open_picture(encode(noise(), "PNG", exif=b"Exif\0\0garbage"))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0", b"\xff" * 99])
def test_what_a_photo_says_of_itself_is_dropped_and_broken_exif_does_no_harm_later(exif):
    picture = open_picture(encode(noise(), "JPEG", exif=exif, comment=b"at home"))
    assert not picture.info
    assert to_rgb(picture).size == (60, 40)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    data = encode(noise((2000, 1500)), "PNG")
    assert open_picture(data, max_pixels=3_000_000).size == (2000, 1500)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(PictureError, match=r"2000x1500.*Scale it down to at most 2 megapixels"):
        open_picture(data, max_pixels=2_000_000)


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PictureError, match=r"too large. Scale it down"):
        open_picture(encode(noise(), "PNG"))


def test_a_canvas_is_read_as_it_was_sent():
    assert read_data_url(to_data_url(noise(), "PNG")) == noise()


def test_a_clear_canvas_is_white_paper():
    assert read_data_url(to_data_url(Image.new("RGBA", (5, 5)), "PNG")).getcolors() == [(25, WHITE)]


@pytest.mark.parametrize(
    "text, remedy",
    {
        "empty": ("", "Draw a line"),
        "nothing": (None, "Draw a line"),
        "a number": (7, "Draw a line"),
        "huge": ("data:image/png;base64," + "A" * image.MAX_DATA_URL, "Clear the canvas"),
        "other mime": ("data:text/html;base64,AAAA", "Reload the page"),
        "svg": ("data:image/svg+xml;base64,AAAA", "Reload the page"),
        "a link": ("https://example.com/x.png", "Reload the page"),
        "not base64": ("data:image/png;base64,@@@@", "Draw on"),
        "padding lost": ("data:image/png;base64,AAAAA", "Draw on"),
        "beyond ASCII": ("data:image/png;base64,äöü", "Draw on"),
        "no data": ("data:image/png;base64,", "Save it as PNG"),
        "no picture": ("data:image/png;base64," + base64.b64encode(b"hello").decode(), "Save it as PNG"),
    }.values(),
)
def test_what_is_no_canvas_is_refused_with_a_remedy(text, remedy):
    with pytest.raises(PictureError, match=remedy):
        read_data_url(text)


@pytest.mark.parametrize("shape", [(256, 1), (16, 16), (16, 16, 1), (16, 16, 3)])
def test_a_picture_survives_the_way_to_a_tensor_and_back(shape):
    array = np.resize(np.arange(256, dtype=np.uint8), shape)
    back = to_array(to_tensor(array))[0]
    assert np.array_equal(back, array.reshape(back.shape))


def test_tensors_run_from_minus_one_to_one():
    tensor = to_tensor(np.array([[0, 255]], np.uint8))
    assert tensor.shape == (1, 1, 1, 2)
    assert tensor.dtype == torch.float32
    assert tensor.flatten().tolist() == [-1, 1]


def test_a_tensor_is_a_copy_of_its_picture():
    array = np.zeros((2, 2), np.uint8)
    to_tensor(array).fill_(1)
    assert not array.any()


def test_values_out_of_range_are_clipped():
    assert to_array(torch.tensor([-9.0, 9.0]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_pictures_of_one_channel_are_gray_and_of_three_are_rgb():
    assert [picture.mode for picture in to_pictures(torch.zeros(2, 1, 4, 4))] == ["L", "L"]
    assert [picture.size for picture in to_pictures(torch.zeros(1, 3, 4, 5))] == [(5, 4)]
    assert to_pictures(torch.zeros(1, 3, 4, 5))[0].mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (256, 256), (300, 100), (100, 300), (5000, 1), (1, 5000)])
def test_any_size_fits_a_square(size):
    assert fit(Image.new("RGB", size), 256).size == (256, 256)


def test_fit_centres_and_leaves_margins_of_paper():
    square = np.asarray(fit(Image.new("L", (512, 256), 0), 256))
    assert (square[64:192] == 0).all()
    assert (square[:64] == 255).all()
    assert (square[192:] == 255).all()


def test_a_contact_sheet_is_filled_row_by_row():
    sheet = tile([Image.new("RGB", (10, 10), colour) for colour in ("red", "blue", "lime")], columns=2, gap=2)
    assert sheet.size == (22, 22)
    assert sheet.getpixel((5, 5)) == RED
    assert sheet.getpixel((17, 5)) == (0, 0, 255)
    assert sheet.getpixel((5, 17)) == (0, 255, 0)
    assert sheet.getpixel((17, 17)) == WHITE


def test_a_contact_sheet_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no picture"):
        tile([], 2)


def test_pictures_that_belong_together_stand_in_one_column_even_in_the_last_rows():
    sides = [[Image.new("RGB", (4, 4), (side, i, 0)) for i in range(5)] for side in (10, 20)]
    sheet = np.asarray(side_by_side(*sides, columns=3))
    assert sheet.shape == (4 * 6 - 2, 3 * 6 - 2, 3)
    seen = [tuple(sheet[1 + 6 * row, 1 + 6 * column]) for row in range(4) for column in range(3)]
    white = (255, 255, 255)
    expected = [(10, 0), (10, 1), (10, 2), (20, 0), (20, 1), (20, 2), (10, 3), (10, 4), None, (20, 3), (20, 4), None]
    assert seen == [white if place is None else (*place, 0) for place in expected]
