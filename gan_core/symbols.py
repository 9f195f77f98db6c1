"""The symbols that people draw in place of a face that they see: an almond, a hook, an arc.

Where the outlines of the face are known (train/landmarks.py), each feature is traced, or becomes the symbol that fits
it. Where only eyes and mouth are known, symbols are made up around them.
"""

import cv2
import numpy as np

from gan_core.faces import FaceLayout
from gan_core.polylines import SIZE, Polyline, arc, blob, closed, moved, moved_all, pieces, resample

OPEN_MOUTH = 0.07  # between the lips, in distances between the eyes
LONG_HAIR = 1.3  # of the figure at the height of the mouth, in widths of the face
LEAST_HAIR = 0.08  # between face and outline, in distances from the middle of the face


def feature_lines(layout: FaceLayout, rng: np.random.Generator) -> list[Polyline]:
    """Eyes, brows, nose and mouth, each in one of the ways in which people draw them, some left out."""
    return fitted_features(layout, rng) if layout.outlines else invented_features(layout, rng)


def head_lines(layout: FaceLayout, rng: np.random.Generator) -> list[Polyline]:
    """Outline of the head, and perhaps ears, hair, neck and shoulders."""
    return fitted_head(layout, rng) if layout.outlines else invented_head(layout, rng)


# --- Made up around eyes and mouth ------------------------------------------------------------------
# Coordinates of the face: (0, 0) between the eyes, u to the right and v down the face, in units of the
# distance between the eyes. The eyes are at (-0.5, 0) and (0.5, 0), the mouth near (0, 1.1).


def face_frame(layout: FaceLayout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origin and the two axes of the face, in pixels."""
    left, right = np.array(layout.left_eye), np.array(layout.right_eye)
    across = right - left
    return (left + right) / 2, across, np.array([-across[1], across[0]])


def face_coordinates(points: np.ndarray, origin, across, down) -> tuple[np.ndarray, np.ndarray]:
    unit = (across**2).sum()
    relative = points - origin
    return relative @ across / unit, relative @ down / unit


def inside_features(line: Polyline, layout: FaceLayout) -> bool:
    """Whether most of a line lies where eyes, nose and mouth are."""
    origin, across, down = face_frame(layout)
    u, v = face_coordinates(line, origin, across, down)
    return ((np.abs(u) < 0.85) & (v > -0.45) & (v < 1.45)).mean() > 0.5


def invented_features(layout: FaceLayout, rng: np.random.Generator) -> list[Polyline]:
    origin, across, down = face_frame(layout)
    _, v_mouth = face_coordinates(np.array(layout.mouth), origin, across, down)
    shapes: list[np.ndarray] = []
    if rng.random() < 0.96:
        shapes += _eyes(rng)
    if rng.random() < 0.65:
        shapes += _brows(rng)
    if rng.random() < 0.85:
        shapes += _nose(rng, v_mouth * rng.uniform(0.5, 0.62))
    if rng.random() < 0.94:
        shapes += _mouth(rng, float(v_mouth))
    return _place(shapes, origin, across, down)


def invented_head(layout: FaceLayout, rng: np.random.Generator) -> list[Polyline]:
    width, chin, top = rng.uniform(1.05, 1.35), rng.uniform(1.65, 2.0), rng.uniform(1.0, 1.5)
    middle = rng.uniform(0.1, 0.4)
    shapes: list[np.ndarray] = []
    if rng.random() < 0.92:
        below = arc((0, middle), (width, chin - middle), 0, 180)
        above = arc((0, middle), (width, top + middle), 180, 360)
        if rng.random() < 0.3:  # a pointed or a square jaw
            below[:, 0] *= np.abs(np.sin(np.linspace(0, np.pi, len(below)))) * rng.uniform(-0.25, 0.15) + 1
        shapes.append(below if rng.random() < 0.4 else np.concatenate([below, above]))
    if rng.random() < 0.4:
        for side in (-1, 1):
            shapes.append(arc((side * width, 0.25), (0.22, 0.35), -80 if side > 0 else 100, 80 if side > 0 else 260))
    shapes += _hair(rng, width, top, middle)
    if rng.random() < 0.5:
        for side in (-1, 1):
            neck = side * width * rng.uniform(0.5, 0.75)
            shapes.append(np.array([(neck, chin - 0.25), (neck, chin + 0.3)]))
            if rng.random() < 0.7:
                shapes.append(np.array([(neck, chin + 0.3), (side * 1.6, chin + 0.6), (side * 2.1, chin + 1.4)]))
    return _place(shapes, *face_frame(layout))


def _place(shapes, origin, across, down) -> list[Polyline]:
    return [resample((origin + s[:, :1] * across + s[:, 1:] * down).astype(np.float32)) for s in shapes]


def _eyes(rng: np.random.Generator) -> list[np.ndarray]:
    kind = rng.choice(["almond", "circle", "dot", "arc", "lids"])
    width, height = rng.uniform(0.16, 0.27), rng.uniform(0.07, 0.15)
    shapes = []
    for side in (-0.5, 0.5):
        centre = (side, rng.normal(0, 0.02))
        if kind == "almond":
            shapes.append(arc(centre, (width, height), 0, 360))
        elif kind == "circle":
            shapes.append(arc(centre, (height * 1.4, height * 1.4), 0, 360))
        elif kind == "arc":
            shapes.append(arc(centre, (width, height), 180, 360))
        elif kind == "lids":
            shapes.append(arc((side, height * 0.6), (width, height * 1.6), 200, 340))
            shapes.append(arc((side, -height * 0.6), (width, height * 1.6), 20, 160))
        if kind == "dot" or (kind != "arc" and rng.random() < 0.75):
            shapes.append(blob(centre, rng.uniform(0.03, 0.09)))
    return shapes


def _brows(rng: np.random.Generator) -> list[np.ndarray]:
    above, bend, tilt = rng.uniform(0.24, 0.42), rng.uniform(0, 0.12), rng.uniform(-0.08, 0.08)
    u = np.linspace(-0.27, 0.27, 7)
    return [
        np.stack([side * 0.5 + u, -above - bend * (1 - (u / 0.27) ** 2) + side * tilt * u * 4], axis=1)
        for side in (-1, 1)
    ]


def _nose(rng: np.random.Generator, tip: float) -> list[np.ndarray]:
    kind, width = rng.choice(["hook", "base", "dots", "triangle", "line"]), rng.uniform(0.1, 0.24)
    side = rng.choice([-1, 1])
    if kind == "hook":
        return [np.array([(0.02 * side, 0.1), (side * width, tip), (-side * width * 0.4, tip + 0.03)])]
    if kind == "base":
        return [arc((0, tip - 0.05), (width, 0.1), 0, 180)]
    if kind == "dots":
        return [blob((s * width * 0.5, tip), 0.04) for s in (-1, 1)]
    if kind == "triangle":
        return [np.array([(0, 0.15), (width, tip), (-width, tip), (0, 0.15)])]
    return [np.array([(0.03 * side, 0.05), (0.06 * side, tip)])]


def _mouth(rng: np.random.Generator, v: float) -> list[np.ndarray]:
    kind, width = rng.choice(["smile", "line", "open", "lips"]), rng.uniform(0.3, 0.55)
    depth = rng.uniform(0.08, 0.25)
    if kind == "smile":
        return [arc((0, v - depth * 0.6), (width, depth), 0, 180)]
    if kind == "line":
        return [np.array([(-width, v), (0, v + rng.normal(0, 0.04)), (width, v)])]
    if kind == "open":
        shapes = [arc((0, v), (width, depth), 0, 360)]
        if rng.random() < 0.5:
            shapes.append(np.array([(-width, v), (width, v)]))
        return shapes
    u = np.linspace(-width, width, 9)
    upper = v - depth * 0.6 * (1 - (u / width) ** 2) + 0.05 * np.exp(-((u / 0.1) ** 2))
    lower = v + depth * (1 - (u / width) ** 2)
    return [np.stack([u, edge], axis=1) for edge in (upper, np.full(9, v), lower)]


def _hair(rng: np.random.Generator, width: float, top: float, middle: float) -> list[np.ndarray]:
    kind = rng.choice(["none", "cap", "fringe", "spikes", "long", "scribble"])
    over = rng.uniform(1.05, 1.3)
    if kind == "none":
        return []
    crown = arc((0, middle), (width * over, (top + middle) * over), 180, 360)
    if kind == "cap":
        return [crown, arc((0, middle - 0.2), (width, (top + middle) * 0.55), 190, 350)]
    if kind == "fringe":
        u = np.linspace(-width, width, 13)
        return [crown, np.stack([u, -top * 0.55 + 0.12 * rng.standard_normal(13)], axis=1)]
    if kind == "spikes":
        spikes = crown.copy()
        spikes[1::2] = (spikes[1::2] - (0, middle)) * rng.uniform(1.1, 1.3) + (0, middle)
        return [spikes]
    if kind == "long":
        down = rng.uniform(1.2, 2.4)
        sides = [np.array([(s * width * over, middle), (s * width * over * 1.1, down)]) for s in (-1, 1)]
        parting = (
            np.array([(rng.uniform(-0.4, 0.4), -top), (-width * 0.85, 0.0)]),
            np.array([(0, -top), (width * 0.85, 0.0)]),
        )
        return [crown, *sides, *parting]
    angles = np.radians(rng.uniform(205, 335, 40))  # above the eyes
    radii = rng.uniform(0.75, 1.15, 40)[:, None]
    return [np.stack([np.cos(angles) * width, np.sin(angles) * (top + middle)], axis=1) * radii + (0, middle)]


# --- Fitted to the outlines of the face --------------------------------------------------------------


# The order of the points is that of train/landmarks.py: lips and opening from a corner by way of the lower lip, the
# oval from the forehead, brows along their upper edge and back.


def fitted_features(layout: FaceLayout, rng: np.random.Generator) -> list[Polyline]:
    layout, back = levelled(layout)
    outlines, unit = layout.outlines, layout.right_eye[0] - layout.left_eye[0]
    shapes: list[Polyline] = []
    if rng.random() < 0.97:
        kind = rng.choice(["traced", "ellipse", "circle", "dot", "arc"], p=[0.3, 0.25, 0.15, 0.15, 0.15])
        swell, spot = rng.uniform(0.9, 1.5), rng.uniform(0.03, 0.08) * unit
        with_pupil = kind == "dot" or rng.random() < 0.8
        for side, pupil in zip(("left_eye", "right_eye"), outlines["pupils"]):
            shapes += _fitted_eye(outlines[side], kind, swell, unit) + [blob(pupil, spot)] * with_pupil
    if rng.random() < 0.75:
        kind = rng.choice(["stroke", "traced", "straight"], p=[0.6, 0.2, 0.2])
        for side in ("left_brow", "right_brow"):
            upper, lower = outlines[side][:5], outlines[side][9:4:-1]
            middle = (upper + lower) / 2
            shapes.append({"stroke": middle, "traced": closed(outlines[side]), "straight": middle[[0, -1]]}[kind])
    if rng.random() < 0.88:
        shapes += _fitted_nose(outlines, unit, rng)
    if rng.random() < 0.95:
        shapes += _fitted_mouth(outlines, unit, rng)
    # A hand puts each a little beside its place.
    return [resample(moved(shape + rng.normal(0, 0.02 * unit, 2), back)) for shape in shapes]


def levelled(layout: FaceLayout) -> tuple[FaceLayout, np.ndarray]:
    """The face turned so that its eyes are level, and the affine map `(2, 3)` back."""
    (x0, y0), (x1, y1) = layout.left_eye, layout.right_eye
    turn = cv2.getRotationMatrix2D(((x0 + x1) / 2, (y0 + y1) / 2), np.degrees(np.arctan2(y1 - y0, x1 - x0)), 1)
    return layout.moved(turn), cv2.invertAffineTransform(turn)


def _fitted_eye(eye: Polyline, kind: str, swell: float, unit: float) -> list[Polyline]:
    centre, (width, height) = eye.mean(axis=0), np.ptp(eye, axis=0) / 2
    height = max(height, 0.05 * unit)
    if kind == "dot":
        return []
    if kind == "circle":
        return [arc(centre, np.full(2, width * 0.75 * swell), 0, 360)]
    if kind == "ellipse":
        return [arc(centre, np.array([width, height * 1.2]) * swell, 0, 360)]
    if kind == "arc":
        return [arc(centre, np.array([width, height]) * swell, 180, 360)]
    return [closed((eye - centre) * swell + centre)]


def _fitted_nose(outlines: dict[str, Polyline], unit: float, rng: np.random.Generator) -> list[Polyline]:
    bridge, base = outlines["bridge"], outlines["nostrils"]
    kind, side = rng.choice(["hook", "base", "dots", "triangle", "line", "traced"]), rng.choice([0, -1])
    if kind == "hook":
        return [np.stack([bridge[int(rng.integers(0, 3))], base[side] + (0, 0.05 * unit), base[3]])]
    if kind == "base":
        return [base]
    if kind == "dots":
        return [blob(base[i], 0.04 * unit) for i in (1, -2)]
    if kind == "triangle":
        return [np.stack([bridge[1], base[0], base[-1], bridge[1]])]
    return [bridge] if kind == "line" else [bridge, base]


def _fitted_mouth(outlines: dict[str, Polyline], unit: float, rng: np.random.Generator) -> list[Polyline]:
    """A single line is a closed mouth, or the lower edge of an open one: what is drawn alike shall look alike."""
    lips, opening = outlines["lips"], outlines["opening"]
    under, over = opening[:11], closed(opening)[:9:-1]  # each from corner to corner
    if under[5, 1] - over[5, 1] < OPEN_MOUTH * unit:
        kind = rng.choice(["line", "lips", "outline"], p=[0.65, 0.25, 0.1])
        between = (under + over) / 2
        return {"line": [between], "lips": [closed(lips), between], "outline": [closed(lips)]}[kind]
    kind = rng.choice(["under", "lips", "open", "teeth"], p=[0.3, 0.15, 0.35, 0.2])
    shape = closed(opening)
    return {"under": [under], "lips": [closed(lips), shape], "open": [shape], "teeth": [shape, shape[[0, 10]]]}[kind]


def fitted_head(layout: FaceLayout, rng: np.random.Generator) -> list[Polyline]:
    """Hair that is long is always drawn: of a head without it, nobody could tell which of both it has."""
    level, back = levelled(layout)
    oval = level.outlines["oval"]
    (left, top), (right, chin) = oval.min(axis=0), oval.max(axis=0)
    middle, width, height = (left + right) / 2, (right - left) / 2, (chin - top) / 2
    person = resample(closed(level.outlines["person"])) if "person" in level.outlines else np.empty((0, 2))
    above = person[np.abs(person[:, 0] - middle) < 0.6 * width]
    crown = above[:, 1].min() if len(above) else top - 0.3 * height
    beside_the_mouth = np.abs(person[np.abs(person[:, 1] - level.mouth[1]) < 4, 0] - middle)
    has_long_hair = beside_the_mouth.max(initial=0) > LONG_HAIR * width
    shapes: list[Polyline] = []
    kind = rng.choice(["jaw", "face", "head", "none"], p=[0.35, 0.2, 0.37, 0.08])
    if kind == "jaw":
        beside = int(rng.integers(8, 13))
        shapes.append(oval[18 - beside : 19 + beside])  # around the chin
    elif kind == "face":
        shapes.append(closed(oval))
    elif kind == "head":
        shapes.append(arc((middle, (crown + chin) / 2), (width * rng.uniform(1.0, 1.15), (chin - crown) / 2), 0, 360))
    if rng.random() < 0.4:  # the hair begins where the forehead ends
        shapes.append(oval[[*range(36 - int(rng.integers(4, 9)), 36), *range(int(rng.integers(4, 9)))]])
    if has_long_hair or rng.random() < (0.8 if kind in ("jaw", "none") else 0.5):
        # All of the figure that is in the picture, or hair down to some height.
        lowest = np.inf if rng.random() < 0.5 else chin - height * rng.uniform(-0.2, 0.2 if has_long_hair else 0.8)
        inside = ((moved(person, back) >= 0) & (moved(person, back) < SIZE)).all(axis=1)
        shapes += pieces(person, inside & (person[:, 1] < lowest))
    tolerance = float(rng.uniform(0.5, 4))
    lines = [cv2.approxPolyDP(shape[:, None], tolerance, False)[:, 0] for shape in moved_all(shapes, back)]
    if len(person) and rng.random() < 0.3:
        lines += moved_all(_fitted_hair(oval, person, 50 if has_long_hair else 0, rng), back)
    return [resample(line) for line in lines]


def _fitted_hair(oval: Polyline, person: Polyline, below: float, rng: np.random.Generator) -> list[Polyline]:
    """Strokes between face and outline, where hair is: above the ears, and so many degrees below."""
    centre = (oval.min(axis=0) + oval.max(axis=0)) / 2
    angles = np.radians(np.arange(180 - below, 360 + below, 3.0))  # clockwise from the left
    inner, outer = reach(closed(oval), centre, angles), reach(person, centre, angles)
    outer = np.minimum(outer, 2.2 * inner)
    kind = rng.choice(["zigzag", "scribble", "strands", "curls"])
    if kind in ("zigzag", "scribble"):
        at = np.linspace(angles[0], angles[-1], int(rng.integers(25, 70)))
        depth = np.arange(len(at)) % 2 if kind == "zigzag" else rng.random(len(at))
        at = (at + rng.normal(0, 0.1, len(at)) * (kind == "scribble")).clip(angles[0], angles[-1])
        strokes = [(at, depth)]
    elif kind == "strands":
        at = rng.choice(angles, int(rng.integers(8, 26)))
        drift, ends = rng.normal(0, 0.12), np.sort(rng.random((len(at), 2)))
        strokes = [(np.array([a, a + drift]).clip(angles[0], angles[-1]), end) for a, end in zip(at, ends)]
    else:
        at = angles[:: int(rng.integers(4, 8))]
        strokes = [(np.full(1, a), np.full(1, 0.5)) for a in at]
    shapes = []
    for at, depth in strokes:
        low, high = (np.interp(at, angles, radii) for radii in (inner, outer))
        points = centre + (low + depth * (high - low))[:, None] * np.stack([np.cos(at), np.sin(at)], axis=1)
        there = high - low > LEAST_HAIR * low
        if kind == "curls":
            shapes += [arc(points[0], np.full(2, rng.uniform(0.3, 0.5) * (high - low)[0]), 0, 360)] * bool(there[0])
        else:
            shapes += pieces(points.astype(np.float32), there)
    return shapes


def reach(line: Polyline, centre: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """How far a line that runs around the centre is from it, in these directions; 0 where it does not go."""
    x, y = (resample(line, 1.0) - centre).T
    number = np.round(np.degrees(np.arctan2(y, x)) / 3).astype(int) % 120
    farthest = np.zeros(120)
    np.maximum.at(farthest, number, np.hypot(x, y))
    return farthest[np.round(np.degrees(angles) / 3).astype(int) % 120]
