import io

import av
import numpy as np
import pytest
from PIL import Image

from gan_core.film import to_gif, to_mp4
from gan_core.provenance import NOTE, SOURCE_TYPE, disclosure


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_labelled_picture_says_that_a_network_made_it(format):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format, **disclosure(format))
    picture = Image.open(file)
    assert SOURCE_TYPE.encode() in file.getvalue()
    said = picture.info["Description"].encode() if format == "PNG" else picture.info["comment"]
    assert said == NOTE.encode()


def test_films_say_it_too():
    faces = [Image.fromarray(np.full((32, 32, 3), 40 * i, np.uint8)) for i in range(3)]
    assert Image.open(io.BytesIO(to_gif(faces))).info["comment"] == NOTE.encode()
    with av.open(io.BytesIO(to_mp4(faces, 64))) as film:
        assert film.metadata["comment"] == NOTE


def test_another_format_is_refused():
    with pytest.raises(ValueError, match="use PNG, JPEG or GIF"):
        disclosure("BMP")
