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
from gan_core.polylines import SIZE, Polyline, draw_polylines, resample, round_corners, trace
from gan_core.symbols import feature_lines, head_lines, inside_features

PHOTO_SIDE = 512  # of a framed face whose lines are drawn
SUPERSAMPLING = 3  # random pens draw at this multiple of the size, for smooth edges and fractional widths


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


# --- What hands draw: the randomised family ---------------------------------------------------------


def draw_like_a_hand(photo: np.ndarray, rng: np.random.Generator, layout: FaceLayout | None = None) -> np.ndarray:
    """One random drawing of a photo, for training: never twice the same.

    photo: uint8 RGB `(SIZE, SIZE, 3)`. layout: where eyes and mouth are, or the outlines of all;
    with it, part of the drawings are the symbols people put in place of what they see: an almond, a hook, an arc.
    Returns uint8 `(SIZE, SIZE)`, black on white.
    """
    if photo.shape != (SIZE, SIZE, 3):
        raise ValueError(f"the photo has shape {photo.shape}; line art for training needs {(SIZE, SIZE, 3)}")
    style = rng.choice(["observed", "mixed", "symbols", "sparse"], p=[0.38, 0.15, 0.37, 0.1])
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
        lines = [line for line in lines if not inside_features(line, layout)] + feature_lines(layout, rng)
    elif style == "symbols":
        lines = feature_lines(layout, rng) + head_lines(layout, rng)
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
    # Every other point: a pen sees no difference, and draws twice as fast.
    return [line[::2] for line in trace(edges) if len(line) > shortest]


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


def wobble(lines: list[Polyline], rng: np.random.Generator) -> list[Polyline]:
    """An unsteady hand: a smooth random field of displacements, and the whole drawing slightly off."""
    slow = rng.normal(0, rng.uniform(0, 2.2), (4, 4, 2))
    fast = rng.normal(0, rng.uniform(0, 0.9), (16, 16, 2))
    field = sum(
        cv2.resize(noise.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for noise in (slow, fast)
    )
    scale = rng.uniform(0.985, 1.015, 2)
    if not lines:
        return []
    points = np.concatenate(lines)
    x, y = points.round().astype(int).clip(0, SIZE - 1).T
    moved = (points + field[y, x] - SIZE / 2) * scale + SIZE / 2
    return np.split(moved.astype(np.float32), np.cumsum([len(line) for line in lines])[:-1])


def pen(lines: list[Polyline], rng: np.random.Generator) -> np.ndarray:
    """Draws with a random pen: width of the drawing, width of each line, gaps."""
    side = SIZE * SUPERSAMPLING
    paper = np.full((side, side), 255, np.uint8)
    middle = (SUPERSAMPLING - 1) / 2  # of the pixels that one becomes
    width = rng.uniform(0.9, 4.0) * SUPERSAMPLING
    variation = rng.uniform(0, 0.35)
    widths = (width * rng.lognormal(0, variation, len(lines))).round().clip(1, 5 * SUPERSAMPLING).astype(int)
    for thickness in np.unique(widths):
        alike = [line * SUPERSAMPLING + middle for line, its in zip(lines, widths) if its == thickness]
        draw_polylines(paper, alike, int(thickness), smooth=False)
    if lines and rng.random() < 0.4:
        for _ in range(rng.integers(1, 12)):
            line = lines[rng.integers(len(lines))]
            x, y = line[rng.integers(len(line))] * SUPERSAMPLING + middle
            cv2.circle(paper, (round(float(x)), round(float(y))), int(rng.uniform(2, 8) * SUPERSAMPLING), 255, -1)
    return cv2.resize(paper, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def random_doodle(seed: int) -> Image.Image:
    """A face drawn by rule alone, another one for each seed: "L", SIZE x SIZE, in a pen of two pixels.

    It fills the paper: of smaller heads the shipped model makes men in suits, for those it knows are framed wider.
    """
    rng = np.random.default_rng(seed)
    half, level = rng.uniform(32, 37), rng.uniform(112, 122)
    middle = SIZE / 2 + rng.normal(0, 4)
    layout = FaceLayout((middle - half, level), (middle + half, level), (middle, level + 2.2 * half))
    paper = np.full((SIZE, SIZE), 255, np.uint8)
    draw_polylines(paper, wobble(feature_lines(layout, rng) + head_lines(layout, rng), rng), thickness=2)
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
