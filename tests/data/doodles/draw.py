"""Draws the face doodles of this folder: `python tests/data/doodles/draw.py`.

They stand in for what visitors draw. Each was composed by hand, as strokes with coordinates on a sheet of
100 x 100, in a style of its own; none is derived from a photo, and nothing here is shared with the random
drawings of training.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).parent


def curve(*points, closed=False):
    """A smooth line through points (Catmull-Rom)."""
    p = np.array(points, float)
    p = np.vstack([p[-1], p, p[0], p[1]]) if closed else np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = np.linspace(0, 1, 12, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:]):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.vstack([*parts, p[-2:-1]])


def lines(*points):
    return np.array(points, float)


def oval(x, y, rx, ry, start=0, stop=360):
    a = np.radians(np.linspace(start, stop, 48))
    return np.stack([x + rx * np.cos(a), y + ry * np.sin(a)], 1)


def both(stroke):
    """A stroke and its mirror image."""
    return [stroke, np.stack([100 - stroke[:, 0], stroke[:, 1]], 1)]


def scribble(x, y, rx, ry, turns, seed):
    rng = np.random.default_rng(seed)
    n = turns * 8
    a = np.linspace(0, 2 * np.pi * turns, n) + rng.normal(0, 0.25, n)
    r = rng.uniform(0.55, 1.05, n)
    return curve(*np.stack([x + rx * r * np.cos(a), y + ry * r * np.sin(a)], 1))


HEAD = oval(50, 54, 24, 31)
JAW = curve((26, 42), (27, 58), (34, 76), (44, 85), (50, 86), (56, 85), (66, 76), (73, 58), (74, 42))
DOTS = [oval(40.5, 47, 1, 1), oval(59.5, 47, 1, 1)]
SMILE = curve((39, 68), (45, 73), (55, 73), (61, 68))

# name: (strokes, pen width on the sheet of 100, unsteadiness, sheet size in pixels)
DOODLES = {
    "circle_smiley": ([oval(50, 52, 28, 28), *DOTS, curve((36, 62), (44, 70), (56, 70), (64, 62))], 1.2, 0.3, 512),
    "egg_and_ears": ([HEAD, *both(curve((26, 48), (21, 46), (21, 58), (27, 60))), *both(oval(40, 48, 4.5, 2.5)), *DOTS,
        lines((50, 50), (47, 60), (51, 61)), SMILE], 0.9, 0.4, 512),
    "long_hair": ([JAW, *both(curve((50, 20), (34, 22), (24, 38), (22, 62), (18, 88))), *both(curve((50, 21), (38, 30), (28, 44))),
        *both(curve((35, 48), (40, 45), (45, 48), (40, 50), closed=True)), *DOTS, *both(curve((34, 42), (40, 39), (46, 41))),
        curve((47, 60), (50, 62), (53, 60)), curve((41, 69), (46, 67.5), (50, 68.5), (54, 67.5), (59, 69), (50, 74), closed=True)], 0.8, 0.3, 512),
    "bob": ([JAW, curve((22, 70), (20, 45), (30, 22), (50, 17), (70, 22), (80, 45), (78, 70)), curve((28, 42), (40, 38), (60, 38), (72, 42)),
        *both(oval(40.5, 49, 4, 3)), *both(oval(40.5, 49, 1.6, 1.6)), lines((49, 53), (48, 61), (52, 61)), curve((42, 70), (50, 73), (58, 70))], 0.9, 0.3, 512),
    "bald_glasses": ([curve((27, 50), (28, 30), (50, 20), (72, 30), (73, 50)), JAW, *both(oval(39.5, 48, 8, 6)), lines((47.5, 47), (52.5, 47)),
        *both(lines((31.5, 47), (26, 45))), *DOTS, curve((48, 54), (46, 62), (54, 62)), lines((42, 72), (58, 71))], 0.8, 0.3, 512),
    "beard": ([curve((26, 46), (30, 26), (50, 20), (70, 26), (74, 46)), *both(curve((26, 46), (27, 62), (33, 80), (50, 92))),
        scribble(50, 80, 17, 9, 7, 1), *both(lines((35, 42), (45, 41))), *both(oval(40, 47, 3.5, 2)), *DOTS, lines((50, 48), (46, 61), (53, 62)), curve((43, 69), (50, 71), (57, 69))], 0.8, 0.4, 512),
    "moustache": ([HEAD, curve((30, 34), (40, 26), (60, 26), (70, 34)), *DOTS, *both(lines((36, 41), (45, 42))), lines((50, 47), (47, 60), (52, 61)),
        curve((38, 67), (44, 63), (50, 65), (56, 63), (62, 67)), curve((44, 71), (50, 72), (56, 71))], 1.1, 0.3, 512),
    "curls": ([JAW, *[oval(50 + 27 * np.cos(a), 44 - 22 * np.sin(a), 6, 6) for a in np.linspace(-0.3, np.pi + 0.3, 11)],
        *both(oval(40.5, 49, 4, 2.4)), *DOTS, curve((47, 61), (50, 63), (53, 61)), SMILE, curve((39, 68), (50, 70), (61, 68))], 0.8, 0.3, 512),
    "spiky_boy": ([JAW, lines((25, 44), (22, 30), (31, 33), (33, 18), (42, 27), (50, 13), (57, 26), (67, 18), (69, 33), (79, 30), (75, 44)),
        *both(oval(40.5, 50, 3.4, 3.8)), *DOTS, lines((50, 56), (48, 61), (51, 61)), curve((38, 67), (50, 76), (62, 67)), lines((38, 67), (62, 67))], 1.0, 0.3, 512),
    "thick_marker": ([HEAD, *DOTS, lines((50, 50), (48, 62), (52, 62)), SMILE, curve((28, 40), (38, 28), (62, 28), (72, 40))], 3.2, 0.3, 512),
    "very_thick_brush": ([oval(50, 52, 27, 33), oval(40, 46, 1.5, 1.5), oval(60, 46, 1.5, 1.5), curve((38, 68), (50, 75), (62, 68))], 5.5, 0.3, 512),
    "thin_pencil": ([HEAD, *both(curve((34, 47), (40, 44.5), (46, 47), (40, 49.5), closed=True)), *DOTS, *both(curve((34, 42), (40, 40), (46, 41.5))),
        curve((48, 50), (46.5, 60), (50, 62), (53, 60)), curve((41, 69), (50, 70.5), (59, 69)), curve((44, 74), (50, 75), (56, 74)),
        *both(curve((50, 18), (36, 22), (27, 36), (26, 48)))], 0.35, 0.25, 800),
    "small_canvas": ([HEAD, *DOTS, lines((50, 52), (48, 61)), SMILE], 1.6, 0.2, 128),
    "no_outline": ([*both(oval(40, 47, 5, 3)), *DOTS, *both(curve((33, 41), (40, 38), (47, 40))), lines((50, 50), (46, 61), (52, 62)), SMILE, curve((39, 68), (50, 71), (61, 68))], 0.9, 0.3, 512),
    "open_jaw_only": ([JAW, *both(lines((35, 48), (45, 48))), lines((50, 50), (50, 62)), lines((42, 71), (58, 71))], 1.0, 0.4, 512),
    "tie_and_collar": ([HEAD, curve((27, 44), (30, 26), (50, 22), (70, 26), (73, 44)), curve((30, 40), (44, 33), (66, 35), (71, 42)), *both(oval(40.5, 48, 3.6, 2)), *DOTS,
        lines((50, 50), (47, 61), (52, 61)), curve((41, 70), (50, 72), (59, 70)), *both(lines((42, 84), (41, 92), (50, 99))), *both(curve((41, 91), (24, 96), (12, 100))), lines((47, 96), (50, 100), (53, 96))], 0.9, 0.3, 512),
    "bun": ([JAW, oval(50, 14, 9, 7), curve((26, 46), (29, 28), (50, 21), (71, 28), (74, 46)), *both(curve((50, 23), (36, 32), (28, 44))), *both(curve((35, 49), (40, 46), (45, 49))),
        *both(lines((34, 43), (45, 42))), curve((48, 60), (50, 62), (52, 60)), curve((42, 69), (50, 74), (58, 69), (50, 70), closed=True), *both(oval(25, 63, 1.5, 2.5))], 0.8, 0.3, 512),
    "pigtails": ([oval(50, 52, 25, 27), *both(curve((26, 44), (14, 42), (10, 58), (16, 70), (21, 58))), curve((28, 38), (50, 30), (72, 38)), lines((50, 25), (50, 33)),
        *both(oval(40, 51, 3, 4)), *DOTS, oval(50, 59, 1.2, 0.8), curve((40, 65), (50, 72), (60, 65))], 1.0, 0.4, 512),
    "hat": ([lines((18, 34), (82, 34)), curve((30, 34), (32, 14), (50, 10), (68, 14), (70, 34)), curve((27, 35), (27, 58), (36, 80), (50, 86), (64, 80), (73, 58), (73, 35)),
        *both(oval(40.5, 47, 3.5, 2.2)), *DOTS, lines((50, 48), (47, 60), (52, 60)), SMILE], 0.9, 0.3, 512),
    "wide_eyes": ([HEAD, *both(oval(39.5, 48, 6.5, 6)), *both(oval(39.5, 48, 2.6, 2.6)), *both(curve((32, 38), (39, 35), (46, 38))), curve((48, 62), (50, 63), (52, 62)), oval(50, 71, 5, 3.5)], 0.9, 0.3, 512),
    "old_man": ([JAW, *both(scribble(25, 44, 5, 11, 4, 2)), *both(curve((34, 48), (40, 46), (46, 49))), *both(curve((34, 52), (40, 53.5), (45, 52))), *DOTS, *both(curve((33, 42), (40, 38), (46, 42))),
        curve((48, 48), (45, 61), (50, 64), (55, 61)), curve((40, 71), (50, 70), (60, 71)), *both(curve((43, 62), (38, 68), (36, 74))), lines((40, 33), (60, 33)), lines((42, 30), (58, 30))], 0.7, 0.35, 512),
    "sketchy": ([HEAD + (0.8, 0.5), HEAD * 0.98 + (1.2, 0.4), HEAD * 1.02 - (0.9, 1.2), *both(oval(40, 48, 4.6, 2.6)), *both(oval(40.3, 48.2, 4.2, 2.9)), *DOTS,
        lines((49.5, 50), (47, 61), (52, 61.5)), lines((50.2, 51), (47.4, 60)), SMILE, SMILE + (0.3, 0.8), curve((27, 42), (36, 27), (52, 22), (70, 30), (74, 44)), curve((26, 40), (40, 24), (60, 24), (74, 40))], 0.45, 0.5, 512),
    "leaning": ([np.stack([p[:, 0] + 0.16 * (60 - p[:, 1]), p[:, 1]], 1) for p in (HEAD, *DOTS, *both(oval(40.5, 47, 4, 2.5)), lines((50, 50), (47, 61), (52, 61)), SMILE, curve((28, 38), (42, 25), (60, 26), (72, 38)))], 0.9, 0.3, 512),
    "large": ([(p - 50) * 1.3 + 51 for p in (HEAD, *DOTS, *both(curve((35, 48), (40, 45), (45, 48), (40, 50.5), closed=True)), lines((50, 50), (47, 61), (52, 61)), SMILE, curve((28, 40), (50, 28), (72, 40)))], 0.9, 0.3, 512),
}  # fmt: skip
GREY = {"thin_pencil": 110}
CHALK = {"circle_smiley"}  # white on black


def draw(name):
    strokes, width, unsteadiness, size = DOODLES[name]
    rng = np.random.default_rng(len(name) * 7 + ord(name[0]))
    scale = 4 * size / 100
    sheet = Image.new("L", (4 * size, 4 * size), "white")
    pen = ImageDraw.Draw(sheet)
    for stroke in strokes:
        x = np.linspace(0, 1, len(stroke))
        shake = np.stack([np.interp(x, np.linspace(0, 1, 7), rng.normal(0, unsteadiness, 7)) for _ in range(2)], 1)
        points = [tuple(p) for p in (stroke + shake) * scale]
        pen.line(points, fill=GREY.get(name, 0), width=round(width * scale), joint="curve")
        radius = width * scale / 2
        for px, py in (points[0], points[-1]):
            pen.ellipse((px - radius, py - radius, px + radius, py + radius), fill=GREY.get(name, 0))
    sheet = sheet.resize((size, size), Image.Resampling.LANCZOS)
    return sheet.point(lambda v: 255 - v) if name in CHALK else sheet


if __name__ == "__main__":
    for name in DOODLES:
        draw(name).save(HERE / f"{name}.png", optimize=True)
