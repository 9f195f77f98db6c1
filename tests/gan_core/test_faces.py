import numpy as np
import pytest
from PIL import Image

from gan_core import faces
from gan_core.faces import FRAME, NoFaceError, crop_face, find_face, find_layout
from gan_core.image import PictureError


@pytest.mark.parametrize("size", [(256, 256), (1200, 700), (9000, 2), (1, 1)])
def test_where_there_is_no_face_none_is_found(size):
    picture = Image.new("RGB", size, "gray")
    assert find_face(picture) is None
    assert find_layout(picture) is None
    with pytest.raises(NoFaceError, match="Use one in which"):
        crop_face(picture)


def test_no_face_is_a_problem_of_the_picture():
    assert issubclass(NoFaceError, PictureError)


@pytest.mark.parametrize("box", [(400, 300, 100, 100), (0, 0, 100, 100), (700, 500, 100, 100), (100, 100, 500, 500)])
def test_the_crop_lies_inside_the_picture_and_is_centred_where_it_can_be(monkeypatch, box):
    """The colour of the test picture is the place, so that the crop tells where it was taken."""
    monkeypatch.setattr(faces, "find_face", lambda picture: box)
    x, y = np.meshgrid(np.arange(800), np.arange(600))
    place = np.stack([x * 255 / 800, y * 255 / 600, np.zeros_like(x)], axis=-1).astype(np.uint8)
    crop = np.asarray(crop_face(Image.fromarray(place), 256)).astype(float)
    assert crop.shape == (256, 256, 3)
    side = min(round(FRAME * box[2]), 600)
    left, right = crop[:, 2, 0].mean() * 800 / 255, crop[:, -3, 0].mean() * 800 / 255
    assert right - left == pytest.approx(side, rel=0.05, abs=8)
    middle = (left + right) / 2
    assert middle == pytest.approx(np.clip(box[0] + box[2] / 2, side / 2, 800 - side / 2), abs=8)
