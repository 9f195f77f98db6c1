"""Films from pictures: GIF for where everybody can paste it, MP4 (H.264) for where it shall be small and smooth."""

import io
from collections.abc import Callable, Iterable, Sequence

import av
import numpy as np
from PIL import Image

from gan_core.image import resize, tile
from gan_core.mixer import FaceMixer
from gan_core.provenance import NOTE, SOFTWARE, disclosure

FPS = 25  # a GIF counts in hundredths of a second: 4 for each picture
GIF_SIDE, MP4_SIDE = 192, 384


def make_films(mixer: FaceMixer, latents: np.ndarray, on_progress: Callable[[float], None]) -> dict[str, bytes]:
    """The film of latents `(N, D)` as "gif" and "mp4". on_progress hears the share that is done, from 0 to 1."""
    pictures = []
    for part in np.array_split(latents, 12):
        pictures += mixer.decode(part)
        on_progress(len(pictures) / len(latents) / 2)
    gif = to_gif(pictures)
    on_progress(0.75)
    return {"gif": gif, "mp4": to_mp4(pictures)}


def to_gif(pictures: Sequence[Image.Image], side: int = GIF_SIDE) -> bytes:
    """An endless GIF of square RGB pictures, scaled to side x side. Raises ValueError if there is no picture."""
    # One palette for all: a palette for each picture takes ten times as long, and the background flickers.
    looked_at = pictures[:: max(1, len(pictures) // 12)]
    palette = tile(list(looked_at), columns=len(looked_at), gap=0).quantize(256, Image.Quantize.MEDIANCUT)
    frames = [resize(picture, (side, side)).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=1000 // FPS, loop=0, **disclosure("GIF")
    )
    return buffer.getvalue()


def to_mp4(pictures: Iterable[Image.Image], side: int = MP4_SIDE) -> bytes:
    """An MP4 that browsers play, of square RGB pictures, scaled to side x side, an even number."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        container.metadata.update(comment=NOTE, encoded_by=SOFTWARE)
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "superfast"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"  # the only one that every browser knows
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(resize(picture, (side, side)))))
        container.mux(stream.encode(None))
    return buffer.getvalue()
