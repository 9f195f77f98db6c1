"""Faces to latents and back, without torch in sight."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_core import checkpoint, latent
from gan_core.checkpoint import CheckpointError
from gan_core.image import crop_square, to_pictures, to_rgb, to_tensor
from gan_core.latent import LatentSpace, LatentSpaceConfig
from gan_core.predictor import compile_on_cpu, has_bfloat16, ready
from gan_core.tasks import TASKS
from gan_core.vae_gan import VAE, VAEConfig

TASK = "vaegan"
MAX_FACES = 1000  # decoded or sampled in one call
BATCH = 50


class FaceMixer:
    """Encodes, samples, decodes and mixes faces with a trained VAE-GAN.

    For people: `FaceMixer.from_checkpoint(path)`. For tests: the networks themselves.
    A latent is a float32 array `(D,)`, several are `(N, D)`. All methods may be called from several threads at
    once, and are deterministic.

    mean: the mean latent of the training set, `(D,)`. directions: its principal directions `(D, D)`, one a row, the
    most important first. deviations: the standard deviation along each, `(D,)`. A face pushed along the first
    direction by two standard deviations is `decode(push(z, [2]))`. direction_names: what the first of them change, as
    far as somebody has looked.
    """

    task = TASKS[TASK]

    def __init__(
        self,
        vae: VAE,
        space: LatentSpace | None = None,
        device: str | torch.device = "cpu",
        direction_names: Sequence[str] = (),
    ):
        self.direction_names = tuple(direction_names)
        self.device = torch.device(device)
        self.dtype = torch.bfloat16 if has_bfloat16(self.device) else torch.float32
        self.size, self.latent = vae.config.size, vae.config.latent
        # The encoder is small and what it says is kept; the decoder follows a slider.
        self.encoder = ready(vae.encoder, self.device, torch.float32)
        self.decoder = ready(vae.decoder, self.device, self.dtype)
        self._decode: Callable[[Tensor], Tensor] = self.decoder
        self.space = space or LatentSpace(LatentSpaceConfig(self.latent, 1))
        self.mean, self.directions, self.deviations = (
            x.numpy().copy() for x in (self.space.mean, self.space.directions, self.space.deviations)
        )

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu") -> "FaceMixer":
        """Raises CheckpointError if the file is missing, damaged, too new or for another task."""
        loaded = checkpoint.load(path, TASK)
        space = loaded.build("latents", LatentSpace, LatentSpaceConfig) if "latents" in loaded.weights else None
        vae = loaded.build("vae", VAE, VAEConfig)
        if space and space.config.size != vae.config.latent:
            raise CheckpointError(
                f"{path} has faces of {vae.config.latent} numbers and a latent space of {space.config.size}. "
                "Fetch it again, or train it again."
            )
        names = loaded.facts.get("direction_names")
        names = [str(name) for name in names] if isinstance(names, list) else []
        return cls(vae, space, device, names)

    def accelerate(self) -> bool:
        """As `Pix2PixPredictor.accelerate`, for the decoder."""
        graph = compile_on_cpu(self.decoder, torch.zeros(1, self.latent))
        self._decode = graph or self._decode
        return graph is not None

    @torch.inference_mode()
    def encode(self, face: Image.Image) -> np.ndarray:
        """A picture of any size and mode -> the mean of its latent, `(D,)`; its centred square is what counts.

        Raises PictureError if the picture has no pixels or too many, CheckpointError if the encoder overflows.
        """
        picture = to_tensor(crop_square(to_rgb(face), self.size)) * 0.5 + 0.5  # (1, 3, size, size) in [0, 1]
        mean, _ = self.encoder(picture.to(self.device).contiguous(memory_format=torch.channels_last))
        if not mean.isfinite().all():
            raise CheckpointError("The encoder of this checkpoint overflows. Fetch it again, or train it again.")
        return mean[0].float().cpu().numpy()

    def sample(self, count: int = 1, seed: int = 0, truncation: float = 1.0) -> np.ndarray:
        """`(count, D)` latents of faces nobody has drawn, from the mixture fitted to the training set.

        The same seed gives the same latents. truncation: from 0, the mean face, to 1, all variety.
        Raises ValueError if count is not in 0..MAX_FACES, or truncation not in [0, 1].
        """
        if not 0 <= count <= MAX_FACES:
            raise ValueError(f"count is {count}; at most {MAX_FACES} faces can be drawn at once")
        return self.space.sample(count, seed, truncation).numpy()

    @torch.inference_mode()
    def decode(self, z: np.ndarray) -> Image.Image | list[Image.Image]:
        """`(D,)` -> one RGB picture of size x size, `(N, D)` -> a list of N.

        Raises ValueError if the latents have another shape, are not finite, or are more than MAX_FACES.
        """
        latents = self._latents(z)
        if len(latents) > MAX_FACES:
            raise ValueError(f"there are {len(latents)} latents; at most {MAX_FACES} can be decoded at once")
        pictures = []
        for batch in latents.split(BATCH) if len(latents) else ():
            faces = self._decode(batch.to(self.device, self.dtype))  # (N, 3, size, size) in [0, 1]
            pictures += to_pictures(faces * 2 - 1)
        return pictures if np.ndim(z) > 1 else pictures[0]

    def mix(self, z: np.ndarray, weights: Sequence[float]) -> Image.Image:
        """The face between K faces `(K, D)`. Only the proportions of the K weights count; all zero: equal shares.

        Raises ValueError for weights that are negative or not K.
        """
        return self.decode(self.blend(z, weights))

    def blend(self, z: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
        """As `mix`, for the latent; weights `(S, K)` give S of them."""
        weights = torch.as_tensor(np.asarray(weights, dtype=np.float32))
        return latent.mix(self._latents(z), weights, torch.from_numpy(self.mean)).numpy()

    def interpolate(self, a: np.ndarray, b: np.ndarray, steps: int, spherical: bool = True) -> list[Image.Image]:
        """The film from face a to face b, both included. Raises ValueError if steps is not in 2..MAX_FACES."""
        if not 2 <= steps <= MAX_FACES:
            raise ValueError(f"steps is {steps}; between 2 and {MAX_FACES} pictures can be made")
        start, end = self._latents(a)[0], self._latents(b)[0]
        return self.decode(latent.interpolate(start, end, torch.linspace(0, 1, steps), spherical).numpy())

    def loop(self, z: np.ndarray, steps: int) -> np.ndarray:
        """`(steps, D)`: the latents of a film through K faces `(K, D)` and back to the first."""
        return latent.loop(self._latents(z), steps).numpy()

    def push(self, z: np.ndarray, shifts: Sequence[float]) -> np.ndarray:
        """Latents `(..., D)` moved along the first principal directions, each by so many standard deviations."""
        count = len(shifts)
        return z + (np.asarray(shifts, dtype=np.float32) * self.deviations[:count]) @ self.directions[:count]

    def truncate(self, z: np.ndarray, truncation: float) -> np.ndarray:
        """Latents `(..., D)` pulled towards the mean face: from 0, the mean face itself, to 1, which leaves them."""
        return latent.truncate(torch.from_numpy(z), torch.from_numpy(self.mean), truncation).numpy()

    def strangeness(self, z: np.ndarray) -> float:
        """How far a latent `(D,)` lies from those of the training set; about 1 for one of them.

        The root mean square of its standard deviations along the less important half of the principal directions:
        those are hardly used by what the network knows, and much by what it does not.
        """
        weak = self.space.coordinates(self._latents(z)[0])[self.latent // 2 :]
        return float(weak.square().mean().sqrt())

    def _latents(self, z: np.ndarray) -> Tensor:
        latents = np.atleast_2d(np.asarray(z, dtype=np.float32))
        if latents.ndim != 2 or latents.shape[1] != self.latent:
            raise ValueError(
                f"the latents have the shape {np.shape(z)}; it must be ({self.latent},) or (N, {self.latent})"
            )
        if not np.isfinite(latents).all():
            raise ValueError("the latents are not finite; take them from encode or sample")
        return torch.from_numpy(latents)
