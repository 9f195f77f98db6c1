"""Conditional PatchGAN: does each patch of this picture look real, given its source?

Isola et al. (arXiv 1611.07004), section 3.2.2 and appendix 6.1.2: C64-C128-C256-C512 and one more
convolution to a single channel. At 256x256 the answer is a 30x30 map of logits, each of which sees a
70x70 patch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_core.unet import NORMS, init_weights


@dataclass(frozen=True)
class PatchGANConfig:
    """The defaults are the published 70x70 discriminator.

    norm: "instance" (the paper's batch normalisation at batch size one), "batch", or "spectral"
        (Miyato et al., arXiv 1802.05957), which bounds the weights in place of the activations.
    """

    source_channels: int = 3
    target_channels: int = 3
    base_channels: int = 64
    halvings: int = 3
    norm: str = "instance"

    def __post_init__(self):
        if self.norm not in (*NORMS, "spectral"):
            raise ValueError(f"norm is {self.norm!r}; it must be one of {', '.join(NORMS)} or spectral")
        if not 1 <= self.halvings <= 12:
            raise ValueError(f"halvings is {self.halvings}; it must be 1 to 12")


class PatchDiscriminator(nn.Module):
    """Maps source `(N, S, H, W)` and target `(N, T, H, W)`, both in [-1, 1], to patch logits `(N, 1, h, w)`."""

    def __init__(self, config: PatchGANConfig):
        super().__init__()
        self.config = config
        widths = [config.base_channels * min(2**i, 8) for i in range(config.halvings + 1)]
        inputs = config.source_channels + config.target_channels
        blocks = []
        for i, outputs in enumerate(widths):
            stride = 2 if i < config.halvings else 1
            blocks.append(self._block(inputs, outputs, stride, normed=i > 0))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(inputs, 1, kernel_size=4, stride=1, padding=1)
        self.apply(init_weights)
        if config.norm == "spectral":
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    spectral_norm(module)

    def _block(self, inputs: int, outputs: int, stride: int, normed: bool) -> nn.Sequential:
        normed = normed and self.config.norm in NORMS
        layers = [nn.Conv2d(inputs, outputs, kernel_size=4, stride=stride, padding=1, bias=not normed)]
        if normed:
            layers.append(NORMS[self.config.norm](outputs))
        return nn.Sequential(*layers, nn.LeakyReLU(0.2))

    def features(self, source: Tensor, target: Tensor) -> list[Tensor]:
        """The activations after each block, then the logits; what feature matching compares."""
        x = torch.cat([source, target], dim=1)  # (N, S + T, H, W)
        features = []
        for block in self.blocks:
            x = block(x)  # (N, 64 * 2**i, H / 2**(i + 1), W / 2**(i + 1)); the last keeps the size, less one
            features.append(x)
        features.append(self.head(x))  # (N, 1, h, w)
        return features

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.features(source, target)[-1]
