"""What one can do with latents: mix them, walk between them, draw new ones, and push them along the main directions.

Latents are float tensors `(..., D)`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def mix(latents: Tensor, weights: Tensor, mean: Tensor | None = None) -> Tensor:
    """The weighted mean: latents `(K, D)`, weights `(..., K)` -> `(..., D)`.

    Only the proportions of the weights count: they are scaled to sum to 1. All zero, as sliders may be, means
    equal shares. Raises ValueError for weights that are negative, infinite or not K.

    mean: `(D,)`, of all latents. If given, the mix is moved out to where the mixed latents are: as far from the mean as
    they are on average. Of latents that are drawn independently the weighted mean lies much closer to it than any of
    them, where no picture has ever been encoded (White, arXiv 1609.04468, section 2.1).
    """
    weights = torch.as_tensor(weights, dtype=latents.dtype)
    if weights.shape[-1:] != latents.shape[:1]:
        raise ValueError(f"there are {len(latents)} latents and weights of shape {tuple(weights.shape)}; give one each")
    if not weights.isfinite().all() or (weights < 0).any():
        raise ValueError(f"the weights are {weights.tolist()}; each must be a number from 0 up")
    largest = weights.amax(dim=-1, keepdim=True)
    weights = torch.where(largest > 0, weights / largest, torch.ones_like(weights))  # no overflow in the sum
    weights = weights / weights.sum(dim=-1, keepdim=True)
    if mean is None:
        return weights @ latents
    offsets = latents - mean
    mixed = weights @ offsets  # (..., D)
    growth = (weights @ offsets.norm(dim=-1)) / mixed.norm(dim=-1).clamp(min=1e-6)  # (...)
    # Independent latents ask for sqrt(K) at most; opposite ones would ask for anything.
    return mean + mixed * growth.clamp(max=len(latents) ** 0.5)[..., None]


def interpolate(a: Tensor, b: Tensor, shares: Tensor, spherical: bool = True) -> Tensor:
    """From a at share 0 to b at share 1: `(D,)` twice and `(steps,)` -> `(steps, D)`.

    spherical: along a great circle, with the length changing evenly (White, arXiv 1609.04468): draws from a
    normal distribution lie near a sphere, and so does the way between them then. Latents that point the same
    way, opposite ways or nowhere have no one circle; the way is straight then.
    """
    shares = torch.as_tensor(shares, dtype=a.dtype)[:, None]  # (steps, 1)
    straight = a + (b - a) * shares
    length_a, length_b = a.norm(), b.norm()
    cosine = (a @ b / (length_a * length_b).clamp(min=1e-12)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if not spherical or angle.sin() < 2e-3 or min(length_a, length_b) < 1e-6:
        return straight
    toward_a, toward_b = torch.sin((1 - shares) * angle), torch.sin(shares * angle)
    direction = (toward_a * (a / length_a) + toward_b * (b / length_b)) / angle.sin()  # of length 1
    return direction * (length_a + (length_b - length_a) * shares)


def loop(latents: Tensor, steps: int) -> Tensor:
    """A walk through latents `(K, D)` in their order and back to the first: `(steps, D)`, which begins at the first.

    It slows down at each of them, and closes without a jump.
    """
    places = torch.arange(steps, dtype=latents.dtype) * (len(latents) / steps)  # from 0 to almost K
    legs = places.long().clamp(max=len(latents) - 1)
    shares = (1 - torch.cos(torch.pi * (places - legs))) / 2
    return torch.cat(
        [interpolate(a, b, shares[legs == i]) for i, (a, b) in enumerate(zip(latents, latents.roll(-1, dims=0)))]
    )


def truncate(latents: Tensor, mean: Tensor, truncation: float) -> Tensor:
    """Pulls latents towards the mean: 1 leaves them, 0 gives the mean (Karras et al., arXiv 1812.04948, appendix B).

    Raises ValueError if truncation is not in [0, 1].
    """
    if not 0 <= truncation <= 1:
        raise ValueError(f"truncation is {truncation}; it must be from 0, the mean face, to 1, all variety")
    return mean + (latents - mean) * truncation


def principal_directions(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Principal component analysis of latents `(N, D)`: mean `(D,)`, directions `(D, D)`, deviations `(D,)`.

    The rows of directions have length 1 and are orthogonal; the first is the one along which the latents vary most,
    with the standard deviation deviations[0]. Of the two signs of each, that with the largest entry positive.
    """
    latents = latents.double()
    mean = latents.mean(dim=0)
    variances, vectors = torch.linalg.eigh(torch.cov(latents.T).reshape(len(mean), len(mean)))  # ascending
    directions = vectors.T.flip(0)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    directions = directions * largest.sign()
    deviations = variances.flip(0).clamp(min=0).sqrt()
    return mean.float(), directions.float(), deviations.float()


@dataclass(frozen=True)
class LatentSpaceConfig:
    """size: D, of a latent. clusters: of the mixture."""

    size: int = 256
    clusters: int = 16


class LatentSpace(nn.Module):
    """Where the encoded pictures of a data set lie; stored in the checkpoint beside the networks.

    Their mean, their principal directions with standard deviations, and a Gaussian mixture with diagonal
    covariances along these directions, from which one samples (Ghosh et al., arXiv 1903.12436, section 4). A fresh one
    is the prior: N(0, 1). `train.mixture` fits it.
    """

    def __init__(self, config: LatentSpaceConfig):
        super().__init__()
        self.config = config
        size, clusters = config.size, config.clusters
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("directions", torch.zeros(size, size).fill_diagonal_(1))  # a row each
        self.register_buffer("deviations", torch.ones(size))
        self.register_buffer("cluster_weights", torch.full((clusters,), 1 / clusters))
        self.register_buffer("cluster_means", torch.zeros(clusters, size))  # along the directions, in deviations
        self.register_buffer("cluster_deviations", torch.ones(clusters, size))

    def coordinates(self, latents: Tensor) -> Tensor:
        """`(..., D)` latents -> along the principal directions, in standard deviations."""
        return (latents - self.mean) @ self.directions.T / self.deviations.clamp(min=1e-4)

    def latents(self, coordinates: Tensor) -> Tensor:
        """The inverse of `coordinates`."""
        return self.mean + (coordinates * self.deviations) @ self.directions

    def sample(self, count: int, seed: int, truncation: float = 1.0) -> Tensor:
        """`(count, D)` latents from the mixture, the same for the same seed; the first do not depend on count."""
        rng = torch.Generator().manual_seed(seed)
        # One after the other, so that more of them begin with the same.
        draws = [(torch.rand(1, generator=rng), torch.randn(self.config.size, generator=rng)) for _ in range(count)]
        if not draws:
            return self.mean.new_zeros(0, self.config.size)
        chances, noise = (torch.stack(column) for column in zip(*draws))  # (count, 1), (count, D)
        bounds = self.cluster_weights.cumsum(0) / self.cluster_weights.sum()
        cluster = torch.searchsorted(bounds, chances[:, 0]).clamp(max=self.config.clusters - 1)
        coordinates = self.cluster_means[cluster] + self.cluster_deviations[cluster] * noise
        return truncate(self.latents(coordinates), self.mean, truncation)
