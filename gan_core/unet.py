"""U-Net generator of pix2pix: picture in, picture of the same size out.

Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks
(CVPR 2017, arXiv 1611.07004), section 3.2.1 and appendix 6.1.1:

    encoder  C64-C128-C256-C512-C512-C512-C512-C512
    decoder  CD512-CD512-CD512-C512-C256-C128-C64

Layer i of the encoder is joined by a skip connection to layer n - i of the decoder.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.doubling import DoubledConv


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation with learnt scales: a group norm of one channel each.

    torch's InstanceNorm2d takes pictures out of their memory format, and the backward pass of group norm takes a
    processor ten to twenty times as long as that of batch norm. So if there is to be one, each picture is made a batch
    of its own.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not x.requires_grad or x[0, 0].numel() == 1:  # batch norm refuses single values
            return super().forward(x)
        norm = partial(F.batch_norm, running_mean=None, running_var=None, training=True, eps=self.eps)
        return torch.cat([norm(item, weight=self.weight, bias=self.bias) for item in x.split(1)])


NORMS = {"batch": nn.BatchNorm2d, "instance": InstanceNorm}


@dataclass(frozen=True)
class UNetConfig:
    """The defaults are the published generator.

    norm: "instance" is the paper's batch normalisation at its batch size of one, with the statistics of
        the picture itself at test time too (section 3.3). "batch" keeps running statistics: it is for
        larger batches, and can be folded into the convolutions at inference.
    upsampling: "transposed" is the published 4x4 transposed convolution at every stage. "mixed" keeps it for the
        three innermost stages, which must lay out a picture from a single pixel, and doubles bilinearly before a
        3x3 convolution at the others, which leaves no checkerboard (Odena et al., Distill 2016).
    refine_channels: the last decoder stage keeps this many channels and sees the source picture once more
        at full resolution before it paints; 0 is the published single transposed convolution.
    noise: add pixel noise, scaled for each channel, after the stages that lay out texture (StyleGAN, Karras et al.,
        arXiv 1812.04948, section 2). Hair and skin need randomness; where the source is empty paper there is
        none, and a generator pressed for detail turns the kinks of its ReLUs into contour lines instead.
    skips: False is the encoder-decoder that the paper compares the U-Net with (section 4.2, figure 5).
    """

    in_channels: int = 3
    out_channels: int = 3
    base_channels: int = 64
    depth: int = 8
    norm: str = "instance"
    dropout: float = 0.5
    upsampling: str = "transposed"
    refine_channels: int = 0
    noise: bool = False
    skips: bool = True

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}; it must be one of {', '.join(NORMS)}")
        if self.upsampling not in ("transposed", "mixed"):
            raise ValueError(f"upsampling is {self.upsampling!r}; it must be transposed or mixed")
        if not 5 <= self.depth <= 12:
            raise ValueError(f"depth is {self.depth}; the U-Net needs 5 to 12 halvings")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be a share from 0 to below 1")
        if self.refine_channels and not self.skips:
            raise ValueError("refine_channels is a skip from the source; without skips it must be 0")

    @property
    def stage_channels(self) -> list[int]:
        """Channels after each halving: 64, 128, 256, 512, 512, ... in the published net."""
        return [self.base_channels * min(2**i, 8) for i in range(self.depth)]

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return 2**self.depth


class Down(nn.Sequential):
    """(LeakyReLU), convolution that halves the picture, (norm)."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig, *, first: bool, innermost: bool):
        # The first stage has no norm (appendix 6.1.1); the innermost one has none either, because
        # the statistics of a single pixel would erase it.
        normed = not (first or innermost)
        bias = not normed
        layers = [] if first else [nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=bias))
        if normed:
            layers.append(NORMS[config.norm](outputs))
        super().__init__(*layers)


class Noise(nn.Module):
    """Adds `weight * noise`, one noise for all channels: fresh in training mode, always the same in eval mode."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("fixed", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        if self.training:
            noise = torch.randn(count, 1, height, width, device=x.device, dtype=x.dtype)
        else:
            if self.fixed is None or self.fixed.shape[-2:] != (height, width):
                with torch.inference_mode(False):  # else it could not be used in training any more
                    rng = torch.Generator().manual_seed(height)
                    self.fixed = torch.randn(1, 1, height, width, generator=rng).to(x.device, x.dtype)
            noise = self.fixed
        return torch.addcmul(x, self.weight.to(x.dtype), noise.to(x.dtype))


class Up(nn.Sequential):
    """ReLU, doubling of the picture, norm, (noise), (dropout)."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig, *, transposed: bool, dropout: bool):
        norm = NORMS[config.norm](outputs)
        if transposed:
            layers = [nn.ReLU(), _transposed(inputs, outputs, bias=False), norm]
        else:
            # Two layers, as checkpoints count them.
            layers = [nn.ReLU(), nn.Identity(), DoubledConv(inputs, outputs, bias=False), norm]
            if config.noise:
                layers.append(Noise(outputs))
        if dropout:
            layers.append(nn.Dropout(config.dropout))
        super().__init__(*layers)


class Paint(nn.Module):
    """Last stage: features at half resolution -> the picture in [-1, 1]."""

    def __init__(self, inputs: int, config: UNetConfig):
        super().__init__()
        channels = config.refine_channels or config.out_channels
        if config.upsampling == "transposed":
            self.up = nn.Sequential(nn.ReLU(), _transposed(inputs, channels))
        else:
            doubling = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            self.up = nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, channels, kernel_size=3, padding=1), doubling)
        if config.noise:
            self.up.append(Noise(channels))
        self.refine = None
        if config.refine_channels:
            self.refine = nn.Sequential(
                nn.Conv2d(channels + config.in_channels, channels, kernel_size=3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(channels, config.out_channels, kernel_size=3, padding=1),
            )

    def forward(self, features: Tensor, source: Tensor) -> Tensor:
        x = self.up(features)  # (N, out_channels or refine_channels, H, W)
        if self.refine is not None:
            x = self.refine(torch.cat([x, source], dim=1))  # (N, out_channels, H, W)
        return torch.tanh(x)


def _transposed(inputs: int, outputs: int, bias: bool = True) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=bias)


class UNetGenerator(nn.Module):
    """Maps `(N, in_channels, H, W)` in [-1, 1] to `(N, out_channels, H, W)` in [-1, 1].

    Published net, 256x256:

    | stage | size | encoder channels | decoder channels (skip included) |
    |---|---|---|---|
    | 0 | 128x128 | 64 | 128 |
    | 1 | 64x64 | 128 | 256 |
    | 2 | 32x32 | 256 | 512 |
    | 3 | 16x16 | 512 | 1024 |
    | 4 | 8x8 | 512 | 1024, dropout |
    | 5 | 4x4 | 512 | 1024, dropout |
    | 6 | 2x2 | 512 | 1024, dropout |
    | 7 | 1x1 | 512 | |
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        channels = config.stage_channels
        last = config.depth - 1
        self.downs = nn.ModuleList(
            Down(
                channels[i - 1] if i else config.in_channels,
                channels[i],
                config,
                first=i == 0,
                innermost=i == last,
            )
            for i in range(config.depth)
        )
        joined = 2 if config.skips else 1
        # From the bottom up. All but the innermost receive the skip of their own size too.
        self.ups = nn.ModuleList(
            Up(
                channels[i] if i == last else joined * channels[i],
                channels[i - 1],
                config,
                transposed=config.upsampling == "transposed" or last - i < 3,
                dropout=last - i < 3,
            )
            for i in range(last, 0, -1)
        )
        self.paint = Paint(joined * channels[0], config)
        self.apply(init_weights)

    def forward(self, source: Tensor) -> Tensor:
        height, width = source.shape[-2:]
        if height % self.config.multiple or width % self.config.multiple:
            raise ValueError(
                f"the picture is {width}x{height}; with {self.config.depth} halvings both sides must be "
                f"multiples of {self.config.multiple}"
            )
        x = source  # (N, in_channels, H, W)
        skips = []
        for down in self.downs:
            x = down(x)  # (N, channels[i], H / 2**(i + 1), W / 2**(i + 1))
            skips.append(x)
        skips.pop()
        for up in self.ups:
            x, skip = up(x), skips.pop()  # (N, channels[i - 1], H / 2**i, W / 2**i) both
            if self.config.skips:
                x = torch.cat([x, skip], dim=1)  # (N, 2 * channels[i - 1], H / 2**i, W / 2**i)
        return self.paint(x, source)  # (N, out_channels, H, W)


def init_weights(module: nn.Module) -> None:
    """Weights from N(0, 0.02), scales of norms from N(1, 0.02) (pix2pix, section 6.2)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
