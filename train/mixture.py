"""Fits a latent space to encoded pictures: principal directions, and a Gaussian mixture along them.

    python -m train.mixture CHECKPOINT NAME [NAME ...]

names the first directions, for the sliders of the Mix tab. `train.evaluate vaegan` shows what each changes, in
directions.jpg.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from gan_core import checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.latent import LatentSpace, LatentSpaceConfig, principal_directions

LEAST_VARIANCE = 0.01  # of a cluster, against the whole data's; a cluster of one picture would have none


def fit_latent_space(latents: Tensor, clusters: int = 16, seed: int = 0) -> LatentSpace:
    """latents: `(N, D)`, N at least 2; fewer clusters are made where there are few pictures.

    Raises ValueError if the latents are not finite, or fewer than two.
    """
    if len(latents) < 2 or not latents.isfinite().all():
        raise ValueError(f"there are {len(latents)} latents to fit, finite: {bool(latents.isfinite().all())}")
    latents = latents.float().cpu()
    space = LatentSpace(LatentSpaceConfig(latents.shape[1], max(1, min(clusters, len(latents) // 50))))
    space.mean, space.directions, space.deviations = principal_directions(latents)
    weights, means, variances = fit_mixture(space.coordinates(latents), space.config.clusters, seed)
    space.cluster_weights, space.cluster_means, space.cluster_deviations = weights, means, variances.sqrt()
    return space


def fit_mixture(points: Tensor, clusters: int, seed: int = 0, rounds: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Expectation maximisation for diagonal covariances (Bishop 2006, section 9.2), from a k-means++ start.

    points: `(N, D)`. Returns weights `(K,)`, means `(K, D)` and variances `(K, D)`.
    """
    rng = torch.Generator().manual_seed(seed)
    means = spread_out(points, clusters, rng)
    nearest = torch.cdist(points, means).argmin(dim=1)
    shares = torch.nn.functional.one_hot(nearest, clusters).to(points.dtype)  # (N, K): of each cluster in each point
    for _ in range(rounds):
        counts = shares.sum(dim=0).clamp(min=1e-6)  # (K,)
        weights, means = counts / counts.sum(), (shares.T @ points) / counts[:, None]
        variances = (shares.T @ points.square()) / counts[:, None] - means.square()
        variances = variances.clamp(min=LEAST_VARIANCE)
        # log N(x | mean, variance), up to a constant: the square is multiplied out, so that no (N, K, D) is needed.
        distances = points.square() @ (1 / variances).T - 2 * points @ (means / variances).T
        distances = distances + (means.square() / variances).sum(dim=1)
        logs = weights.log() - 0.5 * (distances + variances.log().sum(dim=1))
        before, shares = shares, logs.softmax(dim=1)
        if (shares - before).abs().mean() < 1e-5:
            break
    return weights, means, variances


def spread_out(points: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """`count` of the points, each drawn with a chance that grows with its distance from those before it (k-means++)."""
    chosen = [points[torch.randint(len(points), (1,), generator=rng)[0]]]
    distances = torch.full((len(points),), float("inf"))
    for _ in range(count - 1):
        distances = distances.minimum((points - chosen[-1]).square().sum(dim=1))
        chosen.append(points[torch.multinomial(distances.clamp(min=1e-12), 1, generator=rng)[0]])
    return torch.stack(chosen)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.mixture", description="Names the directions of a VAE-GAN."
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("names", nargs="+", metavar="NAME", help="of the first, the second ... direction")
    options = parser.parse_args(arguments)
    try:
        checkpoint.load(options.checkpoint, "vaegan")  # add_facts takes a checkpoint of any task
        checkpoint.add_facts(options.checkpoint, direction_names=options.names)
    except CheckpointError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
