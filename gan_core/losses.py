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
