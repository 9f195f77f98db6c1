"""Lines as lists of points: from pixels, back to pixels, and the few shapes that drawings are made of."""

import cv2
import numpy as np

SIZE = 256  # side of the drawings the networks see; all lengths are pixels at this size
SHIFT = 3  # fractional bits of the coordinates handed to OpenCV

Polyline = np.ndarray  # float32 (K, 2), x and y in pixels


def trace(edges: np.ndarray) -> list[Polyline]:
    """Follows the thin lines of a binary map; each comes back as a loop around its line."""
    contours, _ = cv2.findContours(edges, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0, :].astype(np.float32) for contour in contours]


def round_corners(line: Polyline, sigma: float = 1.5) -> Polyline:
    """Smooths the staircase of the pixel grid out of a line."""
    if len(line) < 5:
        return line
    return cv2.GaussianBlur(line, (1, 9), sigmaX=0.1, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE)


def draw_polylines(paper: np.ndarray, lines: list[Polyline], thickness: int, smooth: bool = True) -> None:
    """Draws in black on uint8 `(H, W)` paper, in place. smooth: with gray edges, which takes several times as long."""
    fixed = [np.round(line * (1 << SHIFT)).astype(np.int32) for line in lines]
    cv2.polylines(paper, fixed, False, 0, thickness, cv2.LINE_AA if smooth else cv2.LINE_8, SHIFT)


def resample(points: Polyline, step: float = 3.0) -> Polyline:
    """The same line with a point about every `step` pixels, so that wobble can bend it."""
    lengths = np.hypot(*np.diff(points, axis=0).T)
    distance = np.concatenate([[0], np.cumsum(lengths)])
    if distance[-1] < step:
        return points
    at = np.linspace(0, distance[-1], int(distance[-1] / step) + 2)
    return np.stack([np.interp(at, distance, points[:, i]) for i in (0, 1)], axis=1).astype(np.float32)


def arc(centre, radii, start: float, stop: float) -> np.ndarray:
    """Part of an ellipse, angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, max(4, int(abs(stop - start) / 12))))
    return np.asarray(centre) + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii


def blob(centre, radius: float) -> np.ndarray:
    """A filled spot, as a spiral."""
    turns = np.linspace(0, 1, 30)
    angles = turns * 6 * np.pi
    return np.asarray(centre) + np.stack([np.cos(angles), np.sin(angles)], axis=1) * (radius * turns)[:, None]


def closed(line: Polyline) -> Polyline:
    return np.concatenate([line, line[:1]])


def moved(line: Polyline, matrix: np.ndarray) -> Polyline:
    """Where a line is after an affine map `(2, 3)` of the picture, as cv2.warpAffine takes it."""
    return (line @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def moved_all(lines: list[Polyline], matrix: np.ndarray) -> list[Polyline]:
    """As `moved`, of those lines that are more than a point."""
    return [moved(line, matrix) for line in lines if len(line) > 1]


def pieces(line: Polyline, keep: np.ndarray) -> list[Polyline]:
    """The runs of a line's points that are to be kept."""
    if not len(line):
        return []
    cuts = np.flatnonzero(np.diff(keep)) + 1
    return [piece for piece, kept in zip(np.split(line, cuts), np.split(keep, cuts)) if kept[0]]
