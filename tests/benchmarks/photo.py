"""A photo of 12 megapixels: how long from the file to the view of the Segment tab, and how much memory it takes.

python -m tests.benchmarks.photo [PHOTO]
"""

import argparse
import resource
import time
from pathlib import Path

from PIL import Image

from app import ASSETS, SegmentView
from gan_core import Segmenter
from gan_core.image import open_picture

SIZE = (4000, 3000)


def peak() -> float:
    """MB, the most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path, nargs="?", help="default: an example, scaled up to 4000x3000")
    options = parser.parse_args()
    segmenter = Segmenter.from_checkpoint(ASSETS / "checkpoints" / "segmentation.safetensors")
    view = SegmentView()
    example = open_picture(ASSETS / "examples" / "segmentation" / "2_astronaut.jpg")
    segmenter.segment(example, thorough=True)  # warm
    photo = options.photo
    if photo is None:
        photo = Path("build") / "12_megapixels.jpg"
        photo.parent.mkdir(exist_ok=True)
        example.resize(SIZE, Image.Resampling.BICUBIC).save(photo, quality=92)
        del example

    before, start = peak(), time.perf_counter()
    picture = open_picture(photo, draft=None)
    opened = time.perf_counter()
    labels = segmenter.segment(picture, thorough=True)
    segmented = time.perf_counter()
    view.postprocess((picture, labels, segmenter.palette_picture(picture), photo.stem))
    shown = time.perf_counter()
    print(f"{picture.width}x{picture.height}: {shown - start:.2f} s, peak memory +{peak() - before:.0f} MB")
    print(f"open {opened - start:.2f} s, segment {segmented - opened:.2f} s, encode {shown - segmented:.2f} s")


if __name__ == "__main__":
    main()
