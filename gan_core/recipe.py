"""What a visitor mixes: read from what a page sends, which is never trusted, and turned into latents."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gan_core.image import crop_square, to_rgb
from gan_core.mixer import FaceMixer

MAX_SEED = 2**31 - 1
MOST_FACES = 6
DIRECTIONS = 8  # that have a slider
LARGEST_SHIFT = 3.0  # standard deviations
LARGEST_WEIGHT = 1_000_000  # from other programs; the pages' are shares
LARGEST_LATENT = 100.0  # no encoder comes near it
# Measured with the shipped model: 2 of 100 held-out drawn faces are doubted, 97 of 100 photos, and flat colours.
LEAST_LIKENESS, LARGEST_STRANGENESS = 0.5, 1.45


class RecipeError(ValueError):
    """The recipe cannot be followed; the message is meant for the visitor."""


@dataclass(frozen=True)
class Recipe:
    """K faces `(K, D)` as latents, their weights (from 0 up, only the proportions count), and what all blends share.

    shifts: standard deviations along the first principal directions. truncation: 0 is the mean face, 1 leaves a blend.
    """

    faces: np.ndarray
    weights: Sequence[float]
    shifts: Sequence[float]
    truncation: float

    def blend(self, mixer: FaceMixer, weights: np.ndarray | None = None) -> np.ndarray:
        """The latent `(1, D)` of this recipe; for other weights `(S, K)` those of S blends."""
        return self.finish(mixer, mixer.blend(self.faces, [self.weights] if weights is None else weights))

    def loop(self, mixer: FaceMixer, steps: int) -> np.ndarray:
        """`(steps, D)`: a film through the faces and back to the first."""
        return self.finish(mixer, mixer.loop(self.faces, steps))

    def finish(self, mixer: FaceMixer, latents: np.ndarray) -> np.ndarray:
        return mixer.push(mixer.truncate(latents, self.truncation), self.shifts)


def read_recipe(mixer: FaceMixer, data: dict) -> Recipe:
    """data: `faces` and `weights` of one length, `shifts`, `truncation`. Raises RecipeError, with a remedy."""
    faces = read_faces(mixer, data.get("faces"), MOST_FACES)
    weights = read_numbers(data.get("weights"), 0, 1, "weights")
    if len(weights) != len(faces):
        raise RecipeError(f"There are {len(faces)} faces and {len(weights)} weights. Reload the page.")
    shifts = read_numbers(data.get("shifts", []), -LARGEST_SHIFT, LARGEST_SHIFT, "directions")
    if len(shifts) > min(DIRECTIONS, mixer.latent):
        raise RecipeError(f"There are {len(shifts)} directions; at most {DIRECTIONS} can be moved. Reload the page.")
    (truncation,) = read_numbers([data.get("truncation", 1)], 0, 1, "character")
    return Recipe(faces, weights, shifts, truncation)


def read_faces(mixer: FaceMixer, faces: list[dict], most: int) -> np.ndarray:
    """Latents `(K, D)` of 1 to `most` faces, each `{"seed": n}` or `{"latent": text}`. Raises RecipeError."""
    if not isinstance(faces, list) or not 1 <= len(faces) <= most:
        raise RecipeError(f"Between 1 and {most} faces can be mixed. Reload the page.")
    return np.stack([read_face(mixer, face) for face in faces])


def read_face(mixer: FaceMixer, face: dict) -> np.ndarray:
    if not isinstance(face, dict):
        raise RecipeError("A face must have a seed or a latent. Reload the page.")
    if "latent" in face:
        return read_latent(face["latent"], mixer.latent)
    return mixer.sample(1, read_seed(face.get("seed")))[0]


def read_seed(seed: int) -> int:
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise RecipeError(f"A seed must be a whole number from 0 to {MAX_SEED}.")
    return seed


def read_numbers(values: list, lowest: float, largest: float, name: str) -> list[float]:
    if not isinstance(values, list) or not all(
        type(value) in (int, float) and lowest <= value <= largest for value in values
    ):
        raise RecipeError(f"The {name} must be numbers from {lowest:g} to {largest:g}. Reload the page.")
    return values


def write_latent(latent: np.ndarray) -> str:
    """A latent as text, for a page to keep: base64 of little-endian float32."""
    return base64.b64encode(latent.astype("<f4").tobytes()).decode("ascii")


def read_latent(text: str, size: int) -> np.ndarray:
    """The inverse of `write_latent`. Raises RecipeError."""
    damaged = RecipeError("Your own picture was damaged on its way here. Choose it again.")
    if not isinstance(text, str) or len(text) != 4 * -(-4 * size // 3):
        raise damaged
    try:
        latent = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise damaged from None
    if len(latent) != size or not (np.abs(latent) <= LARGEST_LATENT).all():
        raise damaged
    return latent


def random_weights(faces: int, count: int, seed: int) -> np.ndarray:
    """`(count, faces)` shares from a Dirichlet distribution, each row with the sum 1, in ten-thousandths.

    Its concentration is below 1, so that most rows lean towards a few of the faces: of six in equal parts all blends
    look the same.
    """
    return np.random.default_rng(seed).dirichlet(np.full(faces, 0.5), count).round(4)


def name_directions(mixer: FaceMixer) -> list[str]:
    """What the sliders of the first principal directions are called."""
    count = min(DIRECTIONS, mixer.latent)
    return [*mixer.direction_names, *(f"Direction {i + 1}" for i in range(len(mixer.direction_names), count))][:count]


def doubt(picture: Image.Image, face: Image.Image, strangeness: float) -> str:
    """Why a visitor may not find the own picture again in the face that came back from its latent, or "".

    strangeness: of the latent, see `FaceMixer.strangeness`.
    """
    width, height = picture.size
    if min(width, height) < face.width / 3:
        return f"This picture has only {width}x{height} pixels: too few for a face. Use a larger one."
    if likeness(picture, face) < LEAST_LIKENESS or strangeness > LARGEST_STRANGENESS:
        return (
            "This looks little like the faces this network knows, so it made the nearest one it could. "
            "A drawn face that fills a square works best."
        )
    if max(width, height) > 1.2 * min(width, height):
        return "Only the square in the middle was used. Crop the picture to the face for a better likeness."
    return ""


def likeness(picture: Image.Image, face: Image.Image) -> float:
    """How much of a picture came back, from 0 to 1: the share of its variance that the face explains.

    What the network has never seen comes back in little, and of one flat colour nothing can.
    """
    there = np.asarray(crop_square(to_rgb(picture), face.width), dtype=np.float32)
    error = np.asarray(face, dtype=np.float32) - there
    return float(np.clip(1 - (error**2).mean() / max(there.var(axis=(0, 1)).mean(), 1.0), 0, 1))
