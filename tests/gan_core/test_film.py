import io

import av
import numpy as np
import pytest
from PIL import Image

from gan_core import FaceMixer
from gan_core.film import FPS, make_films, to_gif, to_mp4


@pytest.fixture
def pictures(portrait) -> list[Image.Image]:
    """From one portrait to another."""
    a, b = portrait(0, 96), portrait(1, 96)
    return [Image.blend(a, b, i / 29) for i in range(30)]


def distance(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a.convert("RGB"), np.float32) - np.asarray(b, np.float32)).mean())


def test_a_gif_shows_the_pictures_in_their_order_for_ever(pictures):
    gif = Image.open(io.BytesIO(to_gif(pictures, side=96)))
    assert (gif.format, gif.size, gif.n_frames, gif.info["loop"]) == ("GIF", (96, 96), 30, 0)
    assert gif.info["duration"] == 1000 / FPS
    for i in (0, 15, 29):
        gif.seek(i)
        distances = [distance(gif, picture) for picture in pictures]
        assert distances[i] < 5 and abs(int(np.argmin(distances)) - i) <= 3


def test_an_mp4_shows_the_pictures_in_their_order(pictures):
    with av.open(io.BytesIO(to_mp4(pictures, side=192))) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == FPS
        frames = [frame.to_image().resize((96, 96)) for frame in film.decode(stream)]
    assert len(frames) == 30
    for i in (0, 15, 29):
        distances = [distance(frames[i], picture) for picture in pictures]
        assert distances[i] < 8 and abs(int(np.argmin(distances)) - i) <= 3


def test_an_mp4_takes_its_pictures_as_they_come(pictures):
    assert to_mp4(iter(pictures)) == to_mp4(pictures)


def test_both_films_of_a_mix_are_made_and_their_progress_told(mixer_folder):
    mixer = FaceMixer.from_checkpoint(mixer_folder / "vaegan.safetensors")
    shares = []
    films = make_films(mixer, mixer.loop(mixer.sample(2), 30), shares.append)
    with av.open(io.BytesIO(films["mp4"])) as film:
        assert sum(1 for _ in film.decode(video=0)) == 30
    assert Image.open(io.BytesIO(films["gif"])).n_frames > 1
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.1 and 0.5 < shares[-1] < 1
