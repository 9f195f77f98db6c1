"""Takes the pictures of the app for the README.   python -m tests.benchmarks.screenshot docs"""

import argparse
import io
from pathlib import Path

from PIL import Image

from app import create_demo, launch
from tests.browser.chromium import Pen, open_browser, oval

FRAME = (640, 320)  # pixels, of the film: paper and face


class FilmedPen(Pen):
    """Takes a picture of paper and face every few moves."""

    def __init__(self, page, every: int = 5):
        super().__init__(page)
        self.every, self.frames = every, []

    def stroke(self, points, **options) -> None:
        for start in range(0, len(points) - 1, self.every):
            super().stroke(points[start : start + self.every + 1], **options)
            self.page.wait_for_timeout(400)  # until the face has followed
            sides = [self.board.locator(".pad-square").nth(i).bounding_box() for i in range(2)]
            paper, face = [Image.open(io.BytesIO(self.page.screenshot(clip=side))) for side in sides]
            frame = Image.new("RGB", FRAME, "white")
            for at, side in zip((0, FRAME[0] // 2), (paper, face)):
                frame.paste(side.convert("RGB").resize((FRAME[1], FRAME[1])), (at, 0))
            self.frames.append(frame)

    def save(self, file: Path) -> None:
        """As an animated WebP; the last frame stays for two seconds."""
        times = [90] * (len(self.frames) - 1) + [2000]
        first, *others = self.frames
        first.save(file, save_all=True, append_images=others, duration=times, loop=0, quality=70, method=6)


def draw_face(pen: Pen) -> None:
    """Head, eyes, brows, nose, mouth, a parting, and hair in waves on both sides."""
    pen.stroke(oval(0.5, 0.55, 0.31, 0.41))
    for side in (-1, 1):
        pen.stroke(oval(0.5 + side * 0.125, 0.49, 0.062, 0.035, 16))
        pen.stroke(oval(0.5 + side * 0.125, 0.49, 0.022, 0.025, 10))
        pen.stroke([(0.5 + side * x, y) for x, y in ((0.19, 0.41), (0.125, 0.385), (0.062, 0.4))])
    pen.stroke([(0.5, 0.55), (0.48, 0.65), (0.525, 0.67)])
    pen.stroke([(0.375, 0.755), (0.44, 0.79), (0.5, 0.805), (0.56, 0.79), (0.625, 0.755)])
    pen.stroke([(0.35, 0.14), (0.56, 0.25), (0.79, 0.39)])
    pen.stroke([(0.35, 0.14), (0.25, 0.275), (0.2, 0.4)])
    waves = ((0, 0.02), (0.19, 0.03), (0.34, 0.18), (0.41, 0.36), (0.39, 0.55), (0.45, 0.7), (0.41, 0.86), (0.46, 0.99))
    for side in (-1, 1):
        pen.stroke([(0.5 + side * x, y) for x, y in waves])
    pen.settle()
    pen.page.mouse.move(5, 5)


def paint_facade(pen: Pen) -> None:
    """A wall, a door, three rows of windows with sills, a cornice."""
    pen.board.locator(".pad-examples button").first.wait_for()
    pen.click("clear")

    def rectangle(name: str, left: float, top: float, right: float, bottom: float) -> None:
        pen.board.get_by_role("radio", name=name, exact=True).click()
        pen.stroke([(left, top), (right, bottom)])

    rectangle("wall", 0.08, 0.08, 0.92, 0.95)
    rectangle("cornice", 0.06, 0.06, 0.94, 0.11)
    for y in (0.18, 0.4, 0.62):
        for x in (0.17, 0.35, 0.53, 0.71):
            rectangle("window", x, y, x + 0.11, y + 0.14)
            rectangle("sill", x - 0.015, y + 0.14, x + 0.125, y + 0.16)
    rectangle("door", 0.44, 0.8, 0.56, 0.95)
    pen.settle()
    pen.page.mouse.move(5, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=1180)
    parser.add_argument("--height", type=int, default=860)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    demo = create_demo()
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    with open_browser() as browser:
        scheme = "dark" if options.dark else "light"
        page = browser.new_page(viewport={"width": options.width, "height": options.height}, color_scheme=scheme)
        page.goto(url)
        pen = FilmedPen(page)
        draw_face(pen)
        pen.save(options.folder / "sketch.webp")
        page.screenshot(path=options.folder / "app.png")
        page.get_by_role("tab", name="Facade").click()
        paint_facade(Pen(page, "#facade-board"))
        page.screenshot(path=options.folder / "facade.png")
        page.get_by_role("tab", name="Segment").click()
        page.locator("#segment-view .seg-loaded").wait_for()
        page.screenshot(path=options.folder / "segment.png")
        page.get_by_role("tab", name="Mix").click()
        pen = Pen(page, "#mix-board")
        pen.board.locator(".mix-gallery img").last.wait_for()
        pen.settle()
        page.screenshot(path=options.folder / "mix.png")
        page.get_by_role("tab", name="Learn").click()
        page.get_by_role("tab", name="2 Patches").click()
        page.locator("#patch-view .learn-frame").first.wait_for()
        page.locator("#patch-view").scroll_into_view_if_needed()
        pen.page.wait_for_timeout(1000)
        page.screenshot(path=options.folder / "learn.png")
    demo.close()


if __name__ == "__main__":
    main()
