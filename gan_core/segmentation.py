"""Photo -> palette picture: segmentation as image translation, and the discriminator that looks at its pictures.

Isola et al. (arXiv 1611.07004), section 4.3, try pix2pix on semantic segmentation; Luc, Couprie, Chintala and Verbeek:
Semantic Segmentation using Adversarial Networks (arXiv 1611.08408) train a classifier of pixels with a discriminator.
Here are both kinds of generator. The published one paints the three channels of the palette picture itself; the other
one gives a score to each class, and its palette picture is the mean of the class colours, weighed by the softmax.

Photos are in [-1, 1], as everywhere; palette pictures are in [0, 1], as published.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_core.maxpool_unet import MaxPoolUNet, MaxPoolUNetConfig
from gan_core.palette import VOC

VOID = 255  # what VOC's annotators left open: no class, never trained on, never counted
PAINTS = {"picture": 3, "classes": len(VOC)}


@dataclass(frozen=True)
class SegmentationConfig:
    """The defaults are the published generator.

    unet: its in_channels must be 3 * block**2, its out_channels 3 for a picture, 21 for classes.
    paints: "picture" (published) or "classes"; see above.
    block: the U-Net works on the pixels of each block x block square as channels, at 1/block of the size.
    size: the shorter side in pixels of the photos that it is made for.
    square: photos are squeezed into size x size (published); else they keep their shape.
    """

    unet: MaxPoolUNetConfig = field(default_factory=MaxPoolUNetConfig)
    paints: str = "picture"
    block: int = 1
    size: int = 224
    square: bool = True

    def __post_init__(self):
        if isinstance(self.unet, dict):  # when it comes from a checkpoint
            object.__setattr__(self, "unet", MaxPoolUNetConfig(**self.unet))
        if self.paints not in PAINTS:
            raise ValueError(f"paints is {self.paints!r}; it must be one of {', '.join(PAINTS)}")
        if not (1 <= self.size <= 1024 and 1 <= self.block <= 16):
            raise ValueError(f"size is {self.size} and block {self.block}; they must be 1 to 1024 and 1 to 16")
        channels, needed = (self.unet.in_channels, self.unet.out_channels), (3 * self.block**2, PAINTS[self.paints])
        if channels != needed:
            raise ValueError(
                f"the U-Net has {channels[0]} channels in and {channels[1]} out; with block {self.block} and "
                f"paints {self.paints!r} it needs {needed[0]} and {needed[1]}"
            )

    @property
    def multiple(self) -> int:
        """Height and width of a photo must be multiples of this."""
        return self.block * self.unet.multiple


class SegmentationGenerator(nn.Module):
    """Maps a photo `(N, 3, H, W)` in [-1, 1] to its palette picture `(N, 3, H, W)` in [0, 1].

    | | published, 224x224 | `best` preset, 224x224 |
    |---|---|---|
    | into the U-Net | 3 x 224 x 224 | 48 x 56 x 56 (blocks of 4x4) |
    | down | 64 x 224 x 224, 128 x 112 x 112 | 64 x 56 x 56, 128 x 28 x 28, 256 x 14 x 14; two residual blocks each |
    | bridge | 256 x 56 x 56 | 384 x 7 x 7, weighed by the context of the whole picture |
    | up | 128 x 112 x 112, 64 x 224 x 224 | 256 x 14 x 14, 128 x 28 x 28, 64 x 56 x 56 |
    | scores | 3 x 224 x 224 | 21 x 56 x 56, doubled twice |
    | palette picture | their sigmoid | colours of the classes, weighed by their softmax |
    """

    def __init__(self, config: SegmentationConfig):
        super().__init__()
        self.config = config
        self.unet = MaxPoolUNet(config.unet)
        self.register_buffer("colors", class_colors(), persistent=False)  # (21, 3)

    def forward(self, photo: Tensor) -> Tensor:
        return self.paint(enlarge(self.scores(photo), photo.shape[-2:]))  # (N, 3, H, W)

    def scores(self, photo: Tensor) -> Tensor:
        """Scores `(N, 3 or 21, H / block, W / block)` of any range."""
        return self.scores_and_presence(photo)[0]

    def scores_and_presence(self, photo: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `scores`, and logits `(N, 21)` of the classes that are anywhere in the photo, of nets with context."""
        blocks = F.pixel_unshuffle(photo * 0.5 + 0.5, self.config.block)  # (N, 3 * block**2, H / block, W / block)
        return self.unet.scores_and_presence(blocks.contiguous(memory_format=torch.channels_last))

    def paint(self, scores: Tensor) -> Tensor:
        """Scores of any size -> the palette picture of that size, `(N, 3, h, w)` in [0, 1]."""
        if self.config.paints == "picture":
            return torch.sigmoid(scores)
        return torch.einsum("nchw,ck->nkhw", scores.softmax(dim=1), self.colors.to(scores.dtype))

    def probabilities(self, scores: Tensor) -> Tensor:
        """Scores of any size -> the share of each class in each pixel, `(N, 21, h, w)`; 1 for the class of the nearest
        colour, where the generator paints a picture."""
        if self.config.paints == "classes":
            return scores.softmax(dim=1)
        picture = self.paint(scores)
        distances = (picture[:, None] - self.colors[None, :, :, None, None].to(scores.dtype)).square().sum(dim=2)
        return F.one_hot(distances.argmin(dim=1), len(VOC)).permute(0, 3, 1, 2).to(scores.dtype)


def class_colors() -> Tensor:
    """The colours of VOC's classes, `(21, 3)` in [0, 1]."""
    return torch.from_numpy(np.array(VOC.colors, dtype=np.float32) / 255)


def enlarge(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinearly, in float32; for what is of that size already, nothing is done."""
    scores = scores.float()
    return scores if scores.shape[-2:] == size else F.interpolate(scores, size=size, mode="bilinear")


@dataclass(frozen=True)
class PaletteDiscriminatorConfig:
    """The defaults are the published discriminator: all stages but the last halve the picture."""

    widths: tuple[int, ...] = (16, 32, 64, 128, 256)

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))  # a list, when it comes from a checkpoint


class PaletteDiscriminator(nn.Module):
    """Maps a palette picture `(N, 3, H, W)` in [0, 1] to patch logits `(N, 1, H / 16, W / 16)`: drawn by a person?

    It sees the palette picture alone, not the photo. Published, 224x224:

    | stage | 0 | 1 | 2 | 3 | 4 | head |
    |---|---|---|---|---|---|---|
    | channels | 16 | 32 | 64 | 128 | 256 | 1 |
    | size | 112 | 56 | 28 | 14 | 14 | 14 |
    """

    def __init__(self, config: PaletteDiscriminatorConfig):
        super().__init__()
        self.config = config
        layers, last = [], len(config.widths) - 1
        for i, (inputs, outputs) in enumerate(zip((3, *config.widths), config.widths)):
            stride = 2 if i < last else 1
            layers.append(nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=i == 0))
            layers += [nn.BatchNorm2d(outputs)] if i else []  # none on the picture itself, as in pix2pix
            layers.append(nn.LeakyReLU(0.2))
        self.stages = nn.Sequential(*layers)
        self.head = nn.Conv2d(config.widths[-1], 1, kernel_size=3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        return self.head(self.stages(picture))  # (N, 1, h, w)
