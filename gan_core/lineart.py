"""Photo -> line drawing, with OpenCV.

Three things live here. `draw_lines` is the one clean style in which visitors see their photos.
`draw_like_a_hand` is the randomised family a generator is trained on: edge maps of photos are not what
people draw, and a generator that has seen one detector fails on everything else. `normalise_drawing`
brings whatever a visitor draws or uploads into the range that the family covers.

Lines are traced into polylines first and then drawn with a pen of our own, so that width, wobble, gaps
and missing pieces are those of a pen and not of an edge detector.
"""

import cv2
import numpy as np
from PIL import Image

from gan_core.faces import FaceLayout, crop_face
from gan_core.image import fit, to_gray

PHOTO_SIDE = 512  # of a framed face whose lines are drawn
SIZE = 256  # side of the drawings the networks see; all lengths below are pixels at this size
SHIFT = 3  # fractional bits of the coordinates handed to OpenCV
SUPERSAMPLING = 2  # random pens draw at this multiple of the size, for smooth and fractional widths

Polyline = np.ndarray  # float32 (K, 2), x and y in pixels


# --- One clean style for visitors -------------------------------------------------------------------


def draw_lines(photo: Image.Image, detail: float = 0.5) -> Image.Image:
    """Draws a photo as black lines on white, in one clean deterministic style.

    detail: 0 keeps only the strongest outlines, 1 keeps hair and wrinkles.
    Returns an "L" picture of the photo's size. Raises ValueError if detail is outside [0, 1].
    """
    if not 0 <= detail <= 1:
        raise ValueError(f"detail is {detail}; it must lie between 0 and 1")
    gray = np.asarray(to_gray(photo))
    height, width = gray.shape
    scale = min(1.0, 1.5 * SIZE / max(height, width))
    if scale < 1:
        small = max(1, round(width * scale)), max(1, round(height * scale))
        gray = cv2.resize(gray, small, interpolation=cv2.INTER_AREA)
    unit = max(gray.shape) / SIZE
    smooth = cv2.bilateralFilter(gray, d=0, sigmaColor=40 - 20 * detail, sigmaSpace=1.5 * unit)
    smooth = cv2.GaussianBlur(smooth, (0, 0), (1.9 - 0.8 * detail) * unit)
    high = 110 - 60 * detail
    edges = cv2.Canny(equalise(smooth), high * 0.4, high, L2gradient=True)
    shortest = (44 - 26 * detail) * unit
    lines = [round_corners(line) for line in trace(edges) if cv2.arcLength(line, False) > shortest]
    paper = np.full((height, width), 255, np.uint8)
    thickness = max(1, round(max(height, width) / SIZE))
    draw_polylines(paper, [line / scale for line in lines], thickness)
    return Image.fromarray(paper)


def equalise(gray: np.ndarray) -> np.ndarray:
    """Evens out light and shade, so that the same thresholds fit a dark photo and a bright one."""
    return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4)).apply(gray)


# --- From pixels to polylines and back --------------------------------------------------------------


def trace(edges: np.ndarray) -> list[Polyline]:
    """Follows the thin lines of a binary map; each comes back as a loop around its line."""
    contours, _ = cv2.findContours(edges, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0, :].astype(np.float32) for contour in contours]


def round_corners(line: Polyline, sigma: float = 1.5) -> Polyline:
    """Smooths the staircase of the pixel grid out of a line."""
    if len(line) < 5:
        return line
    return cv2.GaussianBlur(line, (1, 9), sigmaX=0.1, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE)


def draw_polylines(paper: np.ndarray, lines: list[Polyline], thickness: int, ink: int = 0) -> None:
    """Draws on uint8 `(H, W)` paper, in place."""
    fixed = [np.round(line * (1 << SHIFT)).astype(np.int32) for line in lines]
    cv2.polylines(paper, fixed, False, ink, thickness, cv2.LINE_AA, SHIFT)


# --- What hands draw: the randomised family ---------------------------------------------------------


def draw_like_a_hand(photo: np.ndarray, rng: np.random.Generator, layout: FaceLayout | None = None) -> np.ndarray:
    """One random drawing of a photo, for training: never twice the same.

    photo: uint8 RGB `(SIZE, SIZE, 3)`. layout: where eyes and mouth are; with it, part of the drawings
    are the symbols people put in place of what they see: an almond, a hook, an arc.
    Returns uint8 `(SIZE, SIZE)`, black on white.
    """
    if photo.shape != (SIZE, SIZE, 3):
        raise ValueError(f"the photo has shape {photo.shape}; line art for training needs {(SIZE, SIZE, 3)}")
    style = rng.choice(["observed", "mixed", "symbols", "sparse"], p=[0.5, 0.2, 0.18, 0.12])
    if layout is None and style in ("mixed", "symbols"):
        style = "observed"
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    if style == "observed":
        lines = observed_lines(gray, rng)
        lines = drop_pieces(lines, rng, share=rng.uniform(0, 0.3))
        if rng.random() < 0.35:
            lines = drop_background(lines, rng)
    elif style == "mixed":
        lines = drop_background(coarse_lines(gray, rng), rng)
        lines = [line for line in lines if not inside_features(line, layout)] + symbol_lines(layout, rng)
    elif style == "symbols":
        lines = symbol_lines(layout, rng) + head_lines(layout, rng)
    else:
        lines = sparse_lines(gray, rng)
    lines = wobble(lines, rng)
    return pen(lines, rng)


def observed_lines(gray: np.ndarray, rng: np.random.Generator) -> list[Polyline]:
    """The lines one of several detectors finds, at random settings."""
    if rng.random() < 0.5:
        gray = equalise(gray)
    sigma = rng.uniform(0.7, 2.2)
    if rng.random() < 0.5:
        gray = cv2.bilateralFilter(gray, d=5, sigmaColor=float(rng.uniform(20, 60)), sigmaSpace=3)
    detector = rng.choice(["canny", "dog", "adaptive"], p=[0.6, 0.25, 0.15])
    if detector == "canny":
        high = float(rng.uniform(35, 130))
        edges = cv2.Canny(cv2.GaussianBlur(gray, (0, 0), sigma), high * rng.uniform(0.3, 0.6), high, L2gradient=True)
    elif detector == "dog":
        # Difference of Gaussians: dark lines, as in Winnemoeller et al., XDoG (2012), section 2.
        narrow = cv2.GaussianBlur(gray, (0, 0), sigma).astype(np.int16)
        wide = cv2.GaussianBlur(gray, (0, 0), sigma * 1.6).astype(np.int16)
        edges = ((wide - narrow) > rng.uniform(2.0, 6.0)).astype(np.uint8) * 255
    else:
        smooth = cv2.GaussianBlur(gray, (0, 0), sigma)
        block = 2 * int(rng.integers(4, 9)) + 1
        edges = cv2.adaptiveThreshold(
            smooth, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY_INV, block, float(rng.uniform(4, 9))
        )
    shortest = rng.uniform(8, 45)
    return [line for line in trace(edges) if len(line) > shortest]


def coarse_lines(gray: np.ndarray, rng: np.random.Generator) -> list[Polyline]:
    """Few long outlines with the corners cut: hair, jaw and shoulders as someone in a hurry draws them."""
    smooth = cv2.GaussianBlur(gray, (0, 0), rng.uniform(2.5, 4.5))
    high = float(rng.uniform(20, 50))
    edges = cv2.Canny(smooth, high * 0.5, high, L2gradient=True)
    lines = [line for line in trace(edges) if len(line) > rng.uniform(40, 90)]
    tolerance = float(rng.uniform(1.0, 4.0))
    return [resample(cv2.approxPolyDP(line[:, None, :], tolerance, False)[:, 0, :]) for line in lines]


def sparse_lines(gray: np.ndarray, rng: np.random.Generator) -> list[Polyline]:
    """Hardly anything, or nothing: the first strokes of a drawing, or a scribble that is none."""
    kind = rng.integers(3)
    if kind == 0:
        return []
    if kind == 1:
        lines = observed_lines(gray, rng)
        keep = rng.integers(1, 4)
        return [lines[i] for i in rng.permutation(len(lines))[:keep]]
    points = rng.uniform(0.1 * SIZE, 0.9 * SIZE, (int(rng.integers(2, 14)), 2)).astype(np.float32)
    return [round_corners(resample(points), sigma=3.0)]


def drop_pieces(lines: list[Polyline], rng: np.random.Generator, share: float) -> list[Polyline]:
    return [line for line, fate in zip(lines, rng.random(len(lines))) if fate >= share]


def drop_background(lines: list[Polyline], rng: np.random.Generator) -> list[Polyline]:
    """Keeps what lies mostly inside an ellipse around head and shoulders."""
    centre = SIZE * np.array([rng.uniform(0.47, 0.53), rng.uniform(0.48, 0.58)])
    radii = SIZE * np.array([rng.uniform(0.32, 0.44), rng.uniform(0.40, 0.55)])
    return [line for line in lines if (((line - centre) / radii) ** 2).sum(axis=1).mean() < 1]


def inside_features(line: Polyline, layout: FaceLayout) -> bool:
    """Whether most of a line lies where eyes, nose and mouth are."""
    origin, across, down = face_frame(layout)
    u, v = face_coordinates(line, origin, across, down)
    return ((np.abs(u) < 0.85) & (v > -0.45) & (v < 1.45)).mean() > 0.5


def resample(points: Polyline, step: float = 3.0) -> Polyline:
    """The same line with a point about every `step` pixels, so that wobble can bend it."""
    lengths = np.hypot(*np.diff(points, axis=0).T)
    distance = np.concatenate([[0], np.cumsum(lengths)])
    if distance[-1] < step:
        return points
    at = np.linspace(0, distance[-1], int(distance[-1] / step) + 2)
    return np.stack([np.interp(at, distance, points[:, i]) for i in (0, 1)], axis=1).astype(np.float32)


def wobble(lines: list[Polyline], rng: np.random.Generator) -> list[Polyline]:
    """An unsteady hand: a smooth random field of displacements, and the whole drawing slightly off."""
    slow = rng.normal(0, rng.uniform(0, 2.2), (4, 4, 2))
    fast = rng.normal(0, rng.uniform(0, 0.9), (16, 16, 2))
    field = sum(
        cv2.resize(noise.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for noise in (slow, fast)
    )
    scale = rng.uniform(0.985, 1.015, 2)
    moved = []
    for line in lines:
        x, y = line.round().astype(int).clip(0, SIZE - 1).T
        moved.append(((line + field[y, x] - SIZE / 2) * scale + SIZE / 2).astype(np.float32))
    return moved


def pen(lines: list[Polyline], rng: np.random.Generator) -> np.ndarray:
    """Draws with a random pen: width of the drawing, width of each line, gaps."""
    side = SIZE * SUPERSAMPLING
    paper = np.full((side, side), 255, np.uint8)
    width = rng.uniform(0.9, 4.0) * SUPERSAMPLING
    variation = rng.uniform(0, 0.35)
    groups: dict[int, list[Polyline]] = {}
    for line, factor in zip(lines, rng.lognormal(0, variation, len(lines))):
        groups.setdefault(int(np.clip(round(width * factor), 1, 5 * SUPERSAMPLING)), []).append(line * SUPERSAMPLING)
    for thickness, group in groups.items():
        draw_polylines(paper, group, thickness)
    if lines and rng.random() < 0.4:
        for _ in range(rng.integers(1, 12)):
            line = lines[rng.integers(len(lines))]
            x, y = line[rng.integers(len(line))] * SUPERSAMPLING
            cv2.circle(paper, (round(float(x)), round(float(y))), int(rng.uniform(2, 8) * SUPERSAMPLING), 255, -1)
    return cv2.resize(paper, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


# --- Symbols of a face ------------------------------------------------------------------------------
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


def arc(centre, radii, start: float, stop: float) -> np.ndarray:
    """Part of an ellipse, angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, max(4, int(abs(stop - start) / 12))))
    return np.asarray(centre) + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii


def blob(centre, radius: float) -> np.ndarray:
    """A filled spot, as a spiral."""
    turns = np.linspace(0, 1, 30)
    angles = turns * 6 * np.pi
    return np.asarray(centre) + np.stack([np.cos(angles), np.sin(angles)], axis=1) * (radius * turns)[:, None]


def symbol_lines(layout: FaceLayout, rng: np.random.Generator) -> list[Polyline]:
    """Eyes, brows, nose and mouth, each in one of the ways in which people draw them, some left out."""
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


def head_lines(layout: FaceLayout, rng: np.random.Generator) -> list[Polyline]:
    """Outline of the head, and perhaps ears, hair, neck and shoulders."""
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
    angles = np.radians(rng.uniform(185, 355, 40))
    radii = rng.uniform(0.75, 1.15, 40)[:, None]
    return [np.stack([np.cos(angles) * width, np.sin(angles) * (top + middle)], axis=1) * radii + (0, middle)]


def random_doodle(seed: int) -> Image.Image:
    """A face drawn by rule alone, another one for each seed: "L", SIZE x SIZE, in a pen of two pixels."""
    rng = np.random.default_rng(seed)
    half, level = rng.uniform(24, 30), rng.uniform(104, 118)
    middle = SIZE / 2 + rng.normal(0, 4)
    layout = FaceLayout((middle - half, level), (middle + half, level), (middle, level + 2.2 * half))
    paper = np.full((SIZE, SIZE), 255, np.uint8)
    draw_polylines(paper, wobble(symbol_lines(layout, rng) + head_lines(layout, rng), rng), thickness=2)
    return Image.fromarray(paper)


# --- Visitors' drawings -----------------------------------------------------------------------------


def is_drawing(picture: Image.Image) -> bool:
    """Whether an upload is a drawing already, and not a photo: mostly paper or board, no colour, a bit of ink."""
    colours = np.asarray(picture.convert("RGB").resize((128, 128), Image.Resampling.BOX)).astype(np.int16)
    gray = colours.mean(axis=2)
    paper = np.median(gray)
    flat = (np.abs(gray - paper) < 18).mean()
    colourless = (colours.max(axis=2) - colours.min(axis=2)).mean() < 14
    return bool(colourless and flat > 0.62 and (paper > 170 or paper < 60))


def read_drawing(picture: Image.Image, detail: float = 0.5) -> Image.Image:
    """A drawing as it is; of a photo the lines of its face, see `draw_lines`. Raises NoFaceError."""
    return picture if is_drawing(picture) else draw_lines(crop_face(picture, PHOTO_SIDE), detail)


def normalise_drawing(drawing: Image.Image) -> Image.Image:
    """Brings a drawing into the range of the training drawings: black pen on white, lines of 1 to 5 pixels.

    Handles white on black, grey pencil, uneven light on paper, fat brushes and filled areas (of which
    the outline remains). A drawing without contrast becomes empty paper.
    Returns an "L" picture of SIZE x SIZE.
    """
    gray = to_gray(drawing)
    step = max(1, max(gray.size) // SIZE)
    board = int(np.median(np.asarray(gray)[::step, ::step]))
    gray = np.asarray(fit(gray, SIZE, board))
    if board < 100:
        gray = 255 - gray
    # Paper is what is bright in the neighbourhood; the middle of a filled area is paper again.
    paper = cv2.GaussianBlur(cv2.dilate(gray, np.ones((25, 25), np.uint8)), (0, 0), 6)
    ink = cv2.subtract(paper, gray)
    darkest = int(np.percentile(ink, 99.9))
    if darkest < 24:
        return Image.new("L", (SIZE, SIZE), "white")
    ink = cv2.convertScaleAbs(ink, alpha=255 / darkest)
    ink[ink < 20] = 0
    return Image.fromarray(255 - thin(ink))


def thin(ink: np.ndarray, widest: float = 5.0) -> np.ndarray:
    """Slims the lines of a drawing whose typical line is wider than `widest` pixels; leaves any other alone."""
    mask = (ink > 127).astype(np.uint8)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    ridge = (distance >= cv2.dilate(distance, np.ones((3, 3), np.uint8))) & (mask > 0)
    half = float(np.median(distance[ridge])) if ridge.any() else 0.0
    excess = int(half - widest / 4)  # leaves half of the widest line
    if half <= widest / 2 or excess < 1:
        return ink
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * excess + 1, 2 * excess + 1))
    return cv2.erode(ink, disc)
