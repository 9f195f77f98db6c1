"""The original kind of U-Net: convolutions, max-pooling, and back up with skip connections.

Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv 1505.04597),
with batch normalisation and padding, so that the answer has the size of the picture.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MaxPoolUNetConfig:
    """widths: channels of each stage, the bridge last; the picture is halved between two stages.

    convolutions: how many each stage has.
    """

    in_channels: int = 3
    out_channels: int = 3
    widths: tuple[int, ...] = (64, 128, 256)
    convolutions: int = 1

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))  # a list, when it comes from a checkpoint
        if len(self.widths) < 2:
            raise ValueError(f"widths are {self.widths}; the U-Net needs at least two stages")


class Stage(nn.Sequential):
    """(3x3 convolution, batch norm, ReLU) as often as the config says."""

    def __init__(self, inputs: int, outputs: int, config: MaxPoolUNetConfig):
        layers = []
        for i in range(config.convolutions):
            conv = nn.Conv2d(outputs if i else inputs, outputs, kernel_size=3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers)


class MaxPoolUNet(nn.Module):
    """Maps `(N, in_channels, H, W)` to scores `(N, out_channels, H, W)` of any range.

    Height and width must be multiples of 2**(stages - 1).
    """

    def __init__(self, config: MaxPoolUNetConfig):
        super().__init__()
        self.config = config
        widths = config.widths
        self.downs = nn.ModuleList(
            Stage(inputs, outputs, config) for inputs, outputs in zip((config.in_channels, *widths), widths)
        )
        deep_to_shallow = list(zip(widths[::-1], widths[-2::-1]))
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2) for inputs, outputs in deep_to_shallow
        )
        self.ups = nn.ModuleList(Stage(2 * outputs, outputs, config) for _, outputs in deep_to_shallow)
        self.head = nn.Conv2d(widths[0], config.out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        multiple = 2 ** (len(self.downs) - 1)
        if x.shape[-2] % multiple or x.shape[-1] % multiple:
            raise ValueError(f"the picture is {x.shape[-1]}x{x.shape[-2]}; both must be multiples of {multiple}")
        skips = []
        for down in self.downs:
            x = down(nn.functional.max_pool2d(x, 2) if skips else x)  # (N, widths[i], H / 2**i, W / 2**i)
            skips.append(x)
        skips.pop()
        for doubling, up in zip(self.doublings, self.ups):
            x = up(torch.cat([doubling(x), skips.pop()], dim=1))  # (N, widths[i], H / 2**i, W / 2**i)
        return self.head(x)  # (N, out_channels, H, W)
