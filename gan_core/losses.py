"""Losses as small pure functions. Logits are unnormalised scores of any shape; results are scalars."""

import torch
import torch.nn.functional as F
from torch import Tensor

ADVERSARIAL = ("bce", "least_squares", "hinge")


def discriminator_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """Real pairs are real, generated pairs are not; halved, to slow the discriminator (pix2pix, section 3.3).

    kind: "bce" (Goodfellow et al. 2014), "least_squares" (Mao et al., arXiv 1611.04076) or "hinge"
    (Lim and Ye, arXiv 1705.02894).
    """
    if kind == "bce":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    if kind == "least_squares":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    raise ValueError(f"adversarial loss {kind!r} is not one of {', '.join(ADVERSARIAL)}")


def generator_loss(fake: Tensor, kind: str) -> Tensor:
    """Generated pairs should be taken for real ("non-saturating" for bce)."""
    if kind == "bce":
        return F.softplus(-fake).mean()
    if kind == "least_squares":
        return (fake - 1).square().mean()
    if kind == "hinge":
        return -fake.mean()
    raise ValueError(f"adversarial loss {kind!r} is not one of {', '.join(ADVERSARIAL)}")


def feature_matching_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Mean absolute difference of the discriminator's activations (pix2pixHD, arXiv 1711.11585, equation 4).

    real, fake: activations of the same layers for the target and for the generated picture; the gradient
    flows through `fake` only.
    """
    return torch.stack([(f.float() - r.detach().float()).abs().mean() for r, f in zip(real, fake)]).mean()


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) of each latent unit, averaged over the batch, in nats: `(N, D)` twice -> `(D,)`.

    Kingma and Welling (arXiv 1312.6114), appendix B. The sum over the units is that of the whole latent.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(dim=0)


def structural_similarity(a: Tensor, b: Tensor, window: int = 7) -> Tensor:
    """SSIM of `(N, C, H, W)` in [0, 1] with square windows, every second one (Wang et al. 2004); 1 for equal pictures.

    As a loss beside L1, see Zhao et al. (arXiv 1511.08861): it asks for local contrast, which L1 gives away.
    """
    means = F.avg_pool2d(torch.cat([a, b, a * a, b * b, a * b], dim=1), window, stride=2)
    mean_a, mean_b, aa, bb, ab = means.chunk(5, dim=1)  # (N, C, h, w)
    variance_a, variance_b = aa - mean_a.square(), bb - mean_b.square()
    covariance = ab - mean_a * mean_b
    light = (2 * mean_a * mean_b + 1e-4) / (mean_a.square() + mean_b.square() + 1e-4)
    structure = (2 * covariance + 9e-4) / (variance_a + variance_b + 9e-4)
    return (light * structure).mean()
