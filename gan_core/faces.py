"""Where is the face? OpenCV's bundled cascades, and the framing that the face models are trained with.

Viola and Jones: Rapid Object Detection using a Boosted Cascade of Simple Features (CVPR 2001).
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gan_core.image import PictureError, to_gray, to_rgb
from gan_core.polylines import moved

FRAME = 1.95  # side of the square crop, in widths of the detected box
MIRRORED = {"left_eye": "right_eye", "right_eye": "left_eye", "left_brow": "right_brow", "right_brow": "left_brow"}
SEARCH_SIZE = 512  # faces are looked for in a copy whose longer side has at most this many pixels


class NoFaceError(PictureError):
    """No face was found in the photo."""


@dataclass(frozen=True)
class FaceLayout:
    """Points of one face in pixels of its picture, left and right as seen by the viewer.

    outlines: float32 `(K, 2)` each, as `train/landmarks.py` names them; empty if they are not known.
    """

    left_eye: tuple[float, float]
    right_eye: tuple[float, float]
    mouth: tuple[float, float]
    outlines: dict[str, np.ndarray] = field(default_factory=dict, compare=False)

    @property
    def points(self) -> list[tuple[float, float]]:
        return [self.left_eye, self.right_eye, self.mouth]

    @classmethod
    def of_outlines(cls, outlines: dict[str, list]) -> "FaceLayout":
        outlines = {name: np.asarray(outline, np.float32) for name, outline in outlines.items()}
        left, right = outlines["pupils"].tolist()
        return cls(tuple(left), tuple(right), tuple(outlines["opening"].mean(axis=0).tolist()), outlines)

    def moved(self, matrix: np.ndarray) -> "FaceLayout":
        """Where everything is after an affine map `(2, 3)` of the picture, as cv2.warpAffine takes it."""
        left, right, mouth = map(tuple, moved(np.array(self.points), matrix).tolist())
        outlines = {name: moved(line, matrix) for name, line in self.outlines.items()}
        if np.linalg.det(matrix[:, :2]) > 0:
            return FaceLayout(left, right, mouth, outlines)
        outlines = {MIRRORED.get(name, name): line for name, line in outlines.items()}
        if outlines:
            outlines["pupils"] = outlines["pupils"][::-1]
        return FaceLayout(right, left, mouth, outlines)


@cache
def _cascade(name: str) -> "cv2.CascadeClassifier":
    return cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / f"haarcascade_{name}.xml"))


def find_face(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """The largest frontal face as (left, top, width, height) in pixels, or None."""
    gray = np.asarray(to_gray(picture))
    scale = min(1.0, SEARCH_SIZE / max(gray.shape))
    size = [max(1, round(side * scale)) for side in (gray.shape[1], gray.shape[0])]
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA) if scale < 1 else gray
    smallest = max(24, min(small.shape) // 10)
    boxes = _cascade("frontalface_default").detectMultiScale(
        small, scaleFactor=1.1, minNeighbors=5, minSize=(smallest, smallest)
    )
    if len(boxes) == 0:
        return None
    left, top, width, height = max(boxes, key=lambda box: box[2] * box[3])
    return round(left / scale), round(top / scale), round(width / scale), round(height / scale)


def crop_face(picture: Image.Image, size: int = 256) -> Image.Image:
    """The face, framed as the models know it: a square of FRAME box widths, moved into the picture.

    Raises NoFaceError if no frontal face is found.
    """
    picture = to_rgb(picture)
    box = find_face(picture)
    if box is None:
        raise NoFaceError(
            "No face was found in this photo. Use one in which a single face looks into the camera, "
            "upright, in even light and large enough to see the eyes."
        )
    left, top, width, height = box
    side = min(round(FRAME * width), *picture.size)
    x = min(max(round(left + width / 2 - side / 2), 0), picture.width - side)
    y = min(max(round(top + height / 2 - side / 2), 0), picture.height - side)
    return picture.resize((size, size), Image.Resampling.LANCZOS, box=(x, y, x + side, y + side), reducing_gap=2.0)


def find_eyes(picture: Image.Image, box: tuple[int, int, int, int]) -> list[tuple[float, float] | None]:
    """The eyes that the eye cascade sees in the box of a face, left and right as seen by the viewer."""
    left, top, width, height = box
    upper = np.asarray(to_gray(picture))[top : top + int(0.62 * height), left : left + width]
    found = _cascade("eye").detectMultiScale(upper, 1.05, 4, minSize=(width // 8, width // 8))
    eyes = []
    for side, usual in ((0, 0.305), (1, 0.695)):
        half = [
            (x + w / 2, y + h / 2)
            for x, y, w, h in found
            if (x + w / 2 > width / 2) == bool(side)
            and 0.12 < abs((x + w / 2) / width - 0.5) < 0.33
            and 0.25 < (y + h / 2) / height < 0.52
        ]
        best = min(half, key=lambda eye: abs(eye[0] - width * usual) + abs(eye[1] - 0.39 * height), default=None)
        eyes.append(best and (left + float(best[0]), top + float(best[1])))
    return eyes


def find_layout(face: Image.Image) -> FaceLayout | None:
    """Eyes and mouth of a picture framed by `crop_face`, or None if its face is not found.

    The eyes come from the eye cascade where it sees both, else from the proportions of the face box;
    the mouth is the darkest row in the place where a mouth must be.
    """
    box = find_face(face)
    if box is None:
        return None
    left, top, width, height = box
    gray = np.asarray(to_gray(face))
    defaults = [(left + width * share, top + 0.39 * height) for share in (0.305, 0.695)]
    eyes = [found or default for found, default in zip(find_eyes(face, box), defaults)]
    (x0, y0), (x1, y1) = eyes
    across = np.array([x1 - x0, y1 - y0])
    down = np.array([-across[1], across[0]])
    # The mouth: the darkest of some rows about 1.1 eye distances below the eyes.
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    steps = np.linspace(0.85, 1.3, 24)
    widths = np.linspace(-0.25, 0.25, 16)
    points = centre + steps[:, None, None] * down + widths[None, :, None] * across  # (24, 16, 2)
    columns = points[..., 0].round().astype(int).clip(0, gray.shape[1] - 1)
    rows = points[..., 1].round().astype(int).clip(0, gray.shape[0] - 1)
    darkness = gray[rows, columns].mean(axis=1) + 40 * np.abs(steps - 1.08)
    mouth = centre + steps[int(darkness.argmin())] * down
    return FaceLayout(eyes[0], eyes[1], (float(mouth[0]), float(mouth[1])))
