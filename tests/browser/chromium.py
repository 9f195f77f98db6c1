"""Finds a Chromium to test with, and draws in it as a hand would."""

import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from tests.waiting import LONGEST, until

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FILLED = [  # of each tab what is there once it is complete, in their order
    "#sketch-board .pad-alive",
    "#facade-board .pad-alive",
    ".seg-loaded",
    "#mix-board .pad-alive",
    "#skip-levels img",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium(playwright: Playwright) -> str:
    """Path of the system's Chromium, else of the one that Playwright has or fetches; raises with the remedy."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    bundled = playwright.chromium.executable_path
    if not Path(bundled).exists():
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
    if not Path(bundled).exists():
        raise RuntimeError(
            "The browser tests need Chromium. Install it (Debian: apt-get install chromium), "
            "or run: python -m playwright install --with-deps chromium"
        )
    return bundled


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Pen:
    """A board of a page; coordinates are shares of the paper's side.

    board: its id. pictures, and the delays of all pointer moves, are counted in the page's `window`.
    """

    def __init__(self, page: Page, board: str = "#sketch-board"):
        self.page, self.board = page, page.locator(board)
        alive = self.board.locator(".pad-alive")
        alive.wait_for(state="attached", timeout=1000 * LONGEST)
        self.paper = self.board.locator(".pad-paper")
        alive.evaluate(
            """(board) => {
                window.delays = []; window.pictures = 0;
                board.addEventListener("picture", (event) => {
                    window.pictures += 1; window.delays.push(...event.detail.delays);
                });
            }"""
        )

    def click(self, action: str) -> None:
        """A button of the board: undo, clear, brush, compare ..."""
        self.board.locator(f"[data-action={action}]").click()

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.along([(x, y)])[0]

    def along(self, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Where the points of a line are on the page."""
        box = self.paper.bounding_box()
        return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]

    def stroke(self, points: list[tuple[float, float]], pause: float = 0.012, lift: bool = True) -> None:
        first, *others = self.along(points)
        self.page.mouse.move(*first)
        self.page.mouse.down()
        for place in others:
            self.page.mouse.move(*place)
            time.sleep(pause)
        if lift:
            self.page.mouse.up()

    def draw_until_pictures_come(self, points: list[tuple[float, float]], count: int = 2) -> None:
        """Draws along the points until so many pictures have come while the pen is down, and leaves it there."""
        before = self.pictures()
        first, *others = self.along(points)
        self.page.mouse.move(*first)
        self.page.mouse.down()
        for place in others:
            self.page.mouse.move(*place)
            time.sleep(0.03)
            if self.pictures() >= before + count:
                return
        raise AssertionError(f"no {count} pictures came before the pen was lifted")

    def face(self) -> None:
        """A plain face in the middle of the paper."""
        self.stroke(oval(0.5, 0.52, 0.25, 0.33))
        for x in (0.4, 0.6):
            self.stroke(oval(x, 0.46, 0.05, 0.028, 16))
            self.stroke(oval(x, 0.46, 0.01, 0.01, 6))
        self.stroke([(0.5, 0.5), (0.48, 0.6), (0.52, 0.61)])
        self.stroke([(0.4, 0.7), (0.45, 0.73), (0.55, 0.73), (0.6, 0.7)])

    def pictures(self) -> int:
        """How many pictures have come."""
        return self.page.evaluate("window.pictures")

    def settle(self) -> None:
        """Waits until the picture is the answer to the newest drawing."""
        self.board.locator(".pad-alive:not(.pad-busy)").wait_for(state="attached", timeout=1000 * LONGEST)

    def until(self, condition: Callable[[], object]) -> None:
        """Waits for what becomes true with the page's help."""
        until(condition, lambda seconds: self.page.wait_for_timeout(1000 * seconds))

    def wait_for_another(self, drawing: str | None) -> None:
        """Waits until the board has another drawing than this one, and its picture."""
        self.until(lambda: self.drawing_url() != drawing)
        self.settle()

    def ink(self) -> int:
        """Dark pixels on the paper."""
        return self.page.evaluate(
            """() => {
                const paper = document.querySelector(".pad-paper");
                const data = paper.getContext("2d").getImageData(0, 0, paper.width, paper.height).data;
                let dark = 0;
                for (let i = 0; i < data.length; i += 4) dark += data[i] < 128;
                return dark;
            }"""
        )

    def face_url(self) -> str:
        return self.board.locator(".pad-face").get_attribute("src")

    def paper_url(self, side: int = 256) -> str:
        """What is on the paper, at the size in which the page sends it."""
        return self.board.locator(".pad-paper").evaluate(
            """(paper, side) => {
                const small = Object.assign(document.createElement("canvas"), { width: side, height: side });
                const context = small.getContext("2d");
                context.imageSmoothingQuality = "high";
                context.drawImage(paper, 0, 0, side, side);
                return small.toDataURL("image/png");
            }""",
            side,
        )

    def drawing_url(self) -> str | None:
        """The drawing as a reload will find it, if there is one."""
        task = {"sketch-board": "sketch2face", "facade-board": "facades"}[self.board.get_attribute("id")]
        return self.page.evaluate(f"() => window.sessionStorage.getItem('board-{task}')")


def oval(x: float, y: float, rx: float, ry: float, steps: int = 40) -> list[tuple[float, float]]:
    angles = [2 * math.pi * i / steps for i in range(steps + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]
