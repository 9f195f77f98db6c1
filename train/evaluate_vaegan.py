"""How well a VAE-GAN reconstructs held-out faces, and how much its samples are like drawn ones.

The held-out faces are those of DIR/val; where they are more than 1,000, so many of them, evenly chosen.

l1, ssim, sharpness_ratio: of their reconstructions, see `train.metrics.compare`.
active_units: of the latent, those whose mean varies by more than 0.01 over them (Burda et al., arXiv 1509.00519).
sliced_wasserstein: distance of 1,000 samples to as many real pictures; sliced_wasserstein_floor: of these to as many
others, which no model can be expected to beat. The real ones are the held-out ones and, where they are too few, some
of DIR/train. sharpness_ratio_samples: of the samples, to real pictures they are not meant to equal.
diversity: mean distance of two samples over that of two real pictures; 1 is as varied.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from gan_core import FaceMixer
from gan_core.image import open_picture, side_by_side, tile
from gan_core.mixer import MAX_FACES
from train.data import DataError, evenly, list_pictures
from train.metrics import as_batch, compare, gradient_energy, pairwise_distance, sliced_wasserstein
from train.vae_gan import ACTIVE

SAMPLES = 1000


def evaluate_vaegan(mixer: FaceMixer, data: Path, out: Path) -> dict[str, float]:
    """Writes `reconstructions.jpg`, `samples.jpg`, `blends.jpg` and `directions.jpg` to out. Returns the figures."""
    held_out = open_faces(data / "val", mixer.size, MAX_FACES)
    latents = np.stack([mixer.encode(face) for face in held_out])
    reconstructed = mixer.decode(latents)
    figures = {"pictures": len(held_out)} | compare(reconstructed, held_out)
    figures["active_units"] = int((latents.var(axis=0) > ACTIVE).sum())

    drawn = mixer.decode(mixer.sample(SAMPLES, seed=0))
    real = list(held_out)
    if len(real) < 2 * SAMPLES and (data / "train").is_dir():
        real += open_faces(data / "train", mixer.size, 2 * SAMPLES - len(real))
    halves = real[::2][:SAMPLES], real[1::2][:SAMPLES]
    figures |= {"samples": SAMPLES, "sliced_wasserstein": sliced_wasserstein(drawn, halves[0])}
    figures["sliced_wasserstein_floor"] = sliced_wasserstein(halves[1], halves[0])
    figures["diversity"] = pairwise_distance(drawn) / pairwise_distance(halves[0])
    energy, real_energy = (float(gradient_energy(as_batch(pictures))) for pictures in (drawn, halves[0]))
    figures["sharpness_ratio_samples"] = energy / real_energy

    reconstruction_sheet(held_out, reconstructed).save(out / "reconstructions.jpg", quality=92)
    tile(drawn[:100], 10).save(out / "samples.jpg", quality=92)
    blend_sheet(mixer, latents).save(out / "blends.jpg", quality=92)
    direction_sheet(mixer).save(out / "directions.jpg", quality=92)
    return figures


def open_faces(folder: Path, size: int, most: int) -> list[Image.Image]:
    """Up to `most` of the pictures in a folder, evenly chosen. Raises DataError if one is not size x size."""
    files = list_pictures(folder)
    files = [files[i] for i in evenly(len(files), most)]
    faces = [open_picture(path) for path in files]
    for face, path in zip(faces, files):
        if face.size != (size, size):
            raise DataError(f"{path} is not {size}x{size}. Run `python -m train.prepare anime` on the folder first.")
    return faces


def reconstruction_sheet(real: list[Image.Image], reconstructed: list[Image.Image]) -> Image.Image:
    """Rows of twelve real faces, each row over its reconstructions."""
    chosen = evenly(len(real), 48)
    return side_by_side(*([side[i] for i in chosen] for side in (real, reconstructed)), columns=12)


def blend_sheet(mixer: FaceMixer, latents: np.ndarray) -> Image.Image:
    """100 blends of three held-out faces, from random weights; the first three are the faces themselves."""
    three = latents[np.linspace(0, len(latents) - 1, 3).astype(int)]  # repeated if there are fewer
    weights = np.random.default_rng(0).dirichlet((1, 1, 1), size=100)
    weights[:3] = np.eye(3)
    return tile(mixer.decode(mixer.blend(three, weights)), 10)


def direction_sheet(mixer: FaceMixer, count: int = 8) -> Image.Image:
    """A row for each of the first principal directions: a sample, from -2 to 2 standard deviations along it.

    Not the mean face: nearly all faces lie far from it, so that no decoder has learnt to draw it well.
    """
    shares = np.linspace(-2, 2, 9, dtype=np.float32)
    pushes = mixer.deviations[:count, None] * mixer.directions[:count]  # (count, D)
    strips = mixer.sample(seed=1) + shares[None, :, None] * pushes[:, None]  # (count, 9, D)
    return tile(mixer.decode(strips.reshape(-1, mixer.latent)), len(shares))
