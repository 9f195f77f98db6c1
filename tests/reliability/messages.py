"""What a page may send to a board in place of what the board asks for."""

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tests.reliability.pictures import encode, portrait

GOOD_URL = "data:image/png;base64," + base64.b64encode(encode(portrait(), "PNG")).decode()
FACES = [{"seed": 1}, {"seed": 2}]
RECIPE = {"faces": FACES, "weights": [1, 0.5], "shifts": [0.0] * 8, "truncation": 1, "seed": 3, "job": "1-2"}
LATENT = base64.b64encode(np.zeros(16, "<f4").tobytes()).decode()


def nested(depth: int, kind: str = "[") -> list | dict:
    value: list | dict = [] if kind == "[" else {}
    for _ in range(depth):
        value = [value] if kind == "[" else {"a": value}
    return value


def wrong_values() -> Iterator[object]:
    """Of every JSON type, and what Python's JSON reads beyond the standard."""
    yield from (None, True, False, 0, 1, -1, 7, 2**31, 2**31 - 1, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e-320, 1e308)
    yield from (math.nan, math.inf, -math.inf)
    yield from (
        "",
        " ",
        "0",
        "1",
        "NaN",
        "null",
        "true",
        "[]",
        "a\0b",
        "\ud800",
        "\u202e",
        "🙂",
        "١٢٣",
        "１",
        "é" * 999,
    )
    yield from (
        "x" * 100_000,
        "__proto__",
        "constructor",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "file:///etc",
    )
    yield from ("{{7*7}}", "' OR 1=1 --", "%s%n", "data:,", "http://127.0.0.1:1/a.png", "__class__", "self", "\x1b[2J")
    yield from ([], {}, [[]], [{}], [None], [math.nan], {"a": 1}, {"seed": None}, {"latent": None}, {"seed": 1})
    yield from ([1] * 10_000, [[1, 2], [3]], nested(100), nested(100, "{"), {"path": "/etc/passwd"}, {"": ""})
    yield from ({"__type__": "update"}, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}})


def wrong_urls() -> Iterator[str]:
    body = GOOD_URL.partition(",")[2]
    for head in ("data:image/png;base64,", "data:image/jpeg;base64,", "data:image/webp;base64,"):
        yield from (head, head + "=", head + "@@@@", head + body[:-3], head + " " + body, head + "A" * 4_100_000)
        yield from (head + body[:50], head + body.replace("A", "\n"), head + "é", head + "-_-_", head + body + "\ud800")
    for head in (
        "data:image/svg+xml;base64,",
        "data:text/html;base64,",
        "data:image/png,",
        "data:image/gif;base64,",
        "data:image/png;charset=utf-8;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:image/png;base64;base64,",
        "data:;base64,",
        " data:image/png;base64,",
        "data:image/png\n;base64,",
        "blob:http://127.0.0.1/",
        "file:///etc/passwd#",
        "https://example.com/",
        "//example.com/",
    ):
        yield head + body


def wrong_latents() -> Iterator[object]:
    for values in (
        np.full(16, np.nan),
        np.full(16, np.inf),
        np.full(16, 101),
        np.full(16, 3e38),
        np.zeros(15),
        np.zeros(17),
        np.zeros(0),
        np.zeros(10_000),
        np.full(16, 1e-45),
        np.full(16, 100),
    ):
        yield base64.b64encode(values.astype("<f4").tobytes()).decode()
    yield from (LATENT[:-1], LATENT[:-4], LATENT + "AAAA", "=" * len(LATENT), "@" * len(LATENT), "é" * len(LATENT))
    yield from ("-" * len(LATENT), " " * len(LATENT), "\ud800" * len(LATENT), "A" * 1_000_000)


@dataclass(frozen=True)
class BadMessage:
    """kind: function of a board. data: what it is called with."""

    kind: str
    name: str
    data: object

    @property
    def key(self) -> str:
        return f"{self.kind} {json.dumps(self.data, default=repr)}"


GOOD = {
    "redraw": {"drawing": GOOD_URL, "realism": True},
    "variants": {"drawing": GOOD_URL, "seed": 3},
    "blend": RECIPE,
    "faces": {"faces": FACES},
    "encode": {"picture": GOOD_URL},
    "sheet": RECIPE,
    "film": RECIPE,
    "film_progress": {"job": "1-2"},
    "examples": {},
}
BOARDS = {
    "pix2pix": ("redraw", "variants", "examples"),
    "mix": ("blend", "faces", "encode", "sheet", "film", "film_progress"),
}


def bad_messages(board: str) -> Iterator[BadMessage]:
    """board: "pix2pix" (both boards to draw on) or "mix"."""
    for function in BOARDS[board]:
        good = GOOD[function]
        for value in wrong_values():
            yield BadMessage(function, f"{value!r:.40}", value)
            for key in good:
                yield BadMessage(function, f"{key}: {value!r:.40}", good | {key: value})
        for key in good:
            yield BadMessage(function, f"no {key}", {k: v for k, v in good.items() if k != key})
        yield BadMessage(function, "more keys", good | {"": 1, "self": 2, "__class__": {}, "request": None})
        if "drawing" in good or "picture" in good:
            for i, url in enumerate(wrong_urls()):
                key = "drawing" if "drawing" in good else "picture"
                yield BadMessage(function, f"URL {i}", good | {key: url})
    if board == "pix2pix":
        return
    for value in (*wrong_values(), *wrong_latents()):
        for name, face in (("seed", {"seed": value}), ("latent", {"latent": value}), ("face", value)):
            yield BadMessage("blend", f"{name} {value!r:.40}", RECIPE | {"faces": [face, {"seed": 1}]})
        for key in ("weights", "shifts"):
            yield BadMessage("blend", f"one of the {key} {value!r:.40}", RECIPE | {key: [value, 0.5]})
    for count in (0, 1, 7, 1000, 100_000):
        yield BadMessage("blend", f"{count} faces", RECIPE | {"faces": FACES[:1] * count, "weights": [1] * count})
        yield BadMessage("faces", f"{count} faces", {"faces": FACES[:1] * count})
        yield BadMessage("blend", f"{count} shifts", RECIPE | {"shifts": [1] * count})
        yield BadMessage("film", f"{count} weights", RECIPE | {"weights": [1] * count})
    yield BadMessage("blend", "no weight at all", RECIPE | {"weights": [0, 0]})
    yield BadMessage("blend", "tiny weights", RECIPE | {"weights": [5e-324, 1e-323]})
    opposite = [base64.b64encode(np.full(16, x, "<f4").tobytes()).decode() for x in (100, -100)]
    yield BadMessage("film", "opposite faces", RECIPE | {"faces": [{"latent": text} for text in opposite]})
