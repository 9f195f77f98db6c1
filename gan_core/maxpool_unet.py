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

    convolutions: how many each stage has. The rest is not in the paper, and off by default:

    residual: how many residual blocks (He et al., arXiv 1512.03385) follow them in each stage of the encoder.
    context: what the picture shows as a whole, pooled at the bridge, weighs the channels of the bridge, and says which
        classes are there at all (Zhang et al.: Context Encoding for Semantic Segmentation, arXiv 1803.08904).
    dropout: share of the bridge's channels that are silent in a step of training.
    """

    in_channels: int = 3
    out_channels: int = 3
    widths: tuple[int, ...] = (64, 128, 256)
    convolutions: int = 1
    residual: int = 0
    context: bool = False
    dropout: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))  # a list, when it comes from a checkpoint
        if not 2 <= len(self.widths) <= 8:
            raise ValueError(f"widths are {self.widths}; the U-Net needs at least two stages, and at most eight")
        if not (1 <= self.convolutions <= 16 and 0 <= self.residual <= 16):
            raise ValueError(
                f"a stage has {self.convolutions} convolutions and {self.residual} residual blocks; "
                "it may have 1 to 16 and 0 to 16"
            )

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (len(self.widths) - 1)


class Stage(nn.Sequential):
    """(3x3 convolution, batch norm, ReLU) as often as the config says."""

    def __init__(self, inputs: int, outputs: int, config: MaxPoolUNetConfig):
        layers = []
        for i in range(config.convolutions):
            conv = nn.Conv2d(outputs if i else inputs, outputs, kernel_size=3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers)


class ResidualBlock(nn.Module):
    """Two convolutions whose answer is added to what went in."""

    def __init__(self, channels: int):
        super().__init__()
        self.change = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.change(x))  # (N, channels, h, w)


class Context(nn.Module):
    """Pools the bridge over the whole picture; weighs its channels, and tells which classes are present."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.summary = nn.Sequential(nn.Linear(channels, channels), nn.ReLU())
        self.weights = nn.Linear(channels, channels)
        self.presence = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        summary = self.summary(x.mean(dim=(2, 3)))  # (N, channels)
        weights = torch.sigmoid(self.weights(summary))[:, :, None, None]  # (N, channels, 1, 1)
        return x * weights, self.presence(summary)  # (N, channels, h, w), (N, classes)


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
        for down, width in zip(self.downs, widths):
            down.extend(ResidualBlock(width) for _ in range(config.residual))
        self.dropout = nn.Dropout2d(config.dropout)
        self.context = Context(widths[-1], config.out_channels) if config.context else None
        deep_to_shallow = list(zip(widths[::-1], widths[-2::-1]))
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2) for inputs, outputs in deep_to_shallow
        )
        self.ups = nn.ModuleList(Stage(2 * outputs, outputs, config) for _, outputs in deep_to_shallow)
        self.head = nn.Conv2d(widths[0], config.out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores_and_presence(x)[0]

    def scores_and_presence(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The scores, and logits `(N, out_channels)` of the classes that are anywhere in the picture (with context)."""
        multiple = self.config.multiple
        if x.shape[-2] % multiple or x.shape[-1] % multiple:
            raise ValueError(f"the picture is {x.shape[-1]}x{x.shape[-2]}; both must be multiples of {multiple}")
        skips = []
        for down in self.downs:
            x = down(nn.functional.max_pool2d(x, 2) if skips else x)  # (N, widths[i], H / 2**i, W / 2**i)
            skips.append(x)
        x, presence = self.dropout(skips.pop()), None
        if self.context is not None:
            x, presence = self.context(x)  # (N, widths[-1], h, w), (N, out_channels)
        for doubling, up in zip(self.doublings, self.ups):
            x = up(torch.cat([doubling(x), skips.pop()], dim=1))  # (N, widths[i], H / 2**i, W / 2**i)
        return self.head(x), presence  # (N, out_channels, H, W)
