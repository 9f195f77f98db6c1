"""A photo of 12 megapixels: how long from the file to its classes, in the app too, and how much memory it takes.

python -m tests.benchmarks.photo [PHOTO]
"""

import argparse
import resource
import time
from pathlib import Path

from PIL import Image

from app import ASSETS, SHOWN_SIDE, SegmentView, create_demo, launch
from gan_core import Segmenter
from gan_core.image import open_picture, shrink
from tests.browser.chromium import open_browser

SIZE = (4000, 3000)


def peak() -> float:
    """MB, the most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def upload(photo: Path) -> float:
    """Seconds in Chromium from the choice of the photo to its classes, with the app on the same machine."""
    _, url, _ = launch(create_demo(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.get_by_role("tab", name="Segment").click()
        for _ in range(2):  # the first time is warm-up
            page.locator(".seg-loaded").wait_for()
            page.get_by_label("Remove Image").click()
            page.locator(".seg-loaded").wait_for(state="detached")
            start = time.perf_counter()
            page.locator("#segment-photo input[type=file]").set_input_files(photo)
            page.locator(".seg-loaded .seg-photo[src]").wait_for()
            seconds = time.perf_counter() - start
    return seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path, nargs="?", help="default: an example, scaled up to 4000x3000")
    options = parser.parse_args(arguments)
    segmenter = Segmenter.from_checkpoint(ASSETS / "checkpoints" / "segmentation.safetensors")
    view = SegmentView(lambda: None)
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
    labels, painted = segmenter.look(picture, thorough=True)
    segmented = time.perf_counter()
    view.postprocess((shrink(picture, SHOWN_SIDE), labels, painted, photo.stem))
    shown = time.perf_counter()
    print(f"{picture.width}x{picture.height}: {shown - start:.2f} s, peak memory +{peak() - before:.0f} MB")
    print(f"open {opened - start:.2f} s, segment {segmented - opened:.2f} s, encode {shown - segmented:.2f} s")
    print(f"in Chromium, from choosing the file to its classes: {upload(photo):.2f} s")


if __name__ == "__main__":
    main()
