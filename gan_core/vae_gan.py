"""VAE-GAN: pictures to latents and back, and a discriminator that says whether a picture was drawn or decoded.

Kingma, Welling: Auto-Encoding Variational Bayes (arXiv 1312.6114).
Larsen, Sønderby, Larochelle, Winther: Autoencoding beyond pixels using a learned similarity metric (arXiv 1512.09300).

Published networks, for pictures of 96x96:

| encoder | size | channels | decoder | size | channels |
|---|---|---|---|---|---|
| picture | 96x96 | 3 | latent | | 256 |
| convolution | 48x48 | 32 | linear | 3x3 | 512 |
| convolution | 24x24 | 64 | transposed convolution | 6x6 | 256 |
| convolution | 12x12 | 128 | transposed convolution | 12x12 | 128 |
| convolution | 6x6 | 256 | transposed convolution | 24x24 | 64 |
| convolution | 3x3 | 512 | transposed convolution | 48x48 | 32 |
| two linear heads | | 256 each | transposed convolution, sigmoid | 96x96 | 3 |

The discriminator is the trunk of ResNet-50 (He et al., arXiv 1512.03385) and one convolution to a 3x3 map of logits.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_core.doubling import DoubledConv
from gan_core.unet import init_weights


@dataclass(frozen=True)
class VAEConfig:
    """The defaults are the published networks.

    widths: channels after each halving of the encoder, and backwards in the decoder.
    residual: blocks of two 3x3 convolutions with a shortcut (He et al.) at a stage: of the encoder, where the picture
        is at most 24x24 and not yet at its smallest; of the decoder, before the last doubling.
    upsampling: "transposed" is the published transposed convolution at every stage. "mixed" keeps it for the three
        innermost stages and doubles bilinearly at the others, which leaves no checkerboard.
    refine_channels: the last stage keeps this many channels at full size for one more convolution; 0 is the
        published net.
    """

    size: int = 96
    latent: int = 256
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    residual: int = 0
    upsampling: str = "transposed"
    refine_channels: int = 0

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))  # a list, when it comes from a checkpoint
        if self.upsampling not in ("transposed", "mixed"):
            raise ValueError(f"upsampling is {self.upsampling!r}; it must be transposed or mixed")
        if not (1 <= len(self.widths) <= 8 and 0 <= self.residual <= 16):
            raise ValueError(
                f"there are {len(self.widths)} widths and {self.residual} residual blocks at a stage; "
                "there may be 1 to 8 and 0 to 16"
            )
        if self.size % 2 ** len(self.widths):
            raise ValueError(
                f"size is {self.size}; with {len(self.widths)} halvings it must be a multiple of "
                f"{2 ** len(self.widths)}"
            )

    @property
    def smallest(self) -> int:
        """Side of the innermost feature map: 3 in the published nets."""
        return self.size // 2 ** len(self.widths)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; it starts as the shortcut alone."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(x + self.body(x), 0.2)  # (N, channels, H, W)


def start_as_shortcut(module: nn.Module) -> None:
    if isinstance(module, Residual):
        nn.init.zeros_(module.body[-1].weight)


class Encoder(nn.Module):
    """Maps pictures `(N, 3, size, size)` in [0, 1] to mean and log-variance of their latents, `(N, latent)` each."""

    LARGEST = 10.0  # of the log-variance, either way: no healthy run comes near it, and its exponential stays finite

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        blocks, size = [], config.size
        for inputs, outputs in zip((3, *config.widths), config.widths):
            size //= 2
            conv = nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=False)
            residuals = [Residual(outputs) for _ in range(config.residual if config.smallest < size <= 24 else 0)]
            blocks.append(nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2), *residuals))
        self.blocks = nn.Sequential(*blocks)
        features = config.widths[-1] * config.smallest**2
        self.mean, self.log_variance = nn.Linear(features, config.latent), nn.Linear(features, config.latent)
        self.apply(init_weights)
        self.apply(start_as_shortcut)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(picture)  # (N, 512, 3, 3)
        x = x.flatten(1)  # (N, 4608)
        return self.mean(x), self.log_variance(x).clamp(-self.LARGEST, self.LARGEST)  # (N, 256) each


class Decoder(nn.Module):
    """Maps latents `(N, latent)` to pictures `(N, 3, size, size)` in [0, 1], float32."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        widths = config.widths[::-1]
        self.unfold = nn.Linear(config.latent, widths[0] * config.smallest**2)
        ups = []
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            layers = doubling(inputs, outputs, config.upsampling == "transposed" or i < 3)
            residuals = [Residual(outputs) for _ in range(config.residual)]
            ups.append(nn.Sequential(*layers, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2), *residuals))
        self.ups = nn.Sequential(*ups)
        transposed, last = config.upsampling == "transposed", config.refine_channels or 3
        if transposed:
            layers = doubling(widths[-1], last, transposed, bias=True)
        else:  # a convolution is four times cheaper before the doubling; with refine_channels another looks again
            upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            layers = [nn.Conv2d(widths[-1], last, kernel_size=3, padding=1), upsample]
        if config.refine_channels:
            layers += [nn.LeakyReLU(0.2), nn.Conv2d(last, 3, kernel_size=3, padding=1)]
        self.paint = nn.Sequential(*layers)
        self.apply(init_weights)
        self.apply(start_as_shortcut)

    def forward(self, latents: Tensor) -> Tensor:
        side = self.config.smallest
        x = self.unfold(latents).unflatten(1, (-1, side, side))  # (N, 512, 3, 3)
        x = self.ups(x.contiguous(memory_format=torch.channels_last))  # (N, 32, 48, 48)
        return torch.sigmoid(self.paint(x).float())  # (N, 3, 96, 96)


def doubling(inputs: int, outputs: int, transposed: bool, bias: bool = False) -> list[nn.Module]:
    """Layers that double height and width: a transposed convolution, or bilinear doubling and a 3x3 one."""
    if transposed:
        return [nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=bias)]
    return [nn.Identity(), DoubledConv(inputs, outputs, bias)]  # two layers, as checkpoints count them


class VAE(nn.Module):
    """Encoder and decoder. Calling it reconstructs pictures from the means of their latents, without noise."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def forward(self, picture: Tensor) -> Tensor:
        mean, _ = self.encoder(picture)
        return self.decoder(mean)


def draw_latents(mean: Tensor, log_variance: Tensor) -> Tensor:
    """z = mean + exp(log-variance / 2) * noise (Kingma and Welling, section 2.4)."""
    return mean + (log_variance / 2).exp() * torch.randn_like(mean)


# --- Discriminator ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The defaults are the published discriminator.

    trunk: "resnet50"; or "patch", a PatchGAN of 4x4 convolutions of stride 2 with these widths, each bounded by
        spectral normalisation (Miyato et al., arXiv 1802.05957), for a CPU and for gradients that stay useful.
    """

    trunk: str = "resnet50"
    widths: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.trunk not in ("resnet50", "patch"):
            raise ValueError(f"trunk is {self.trunk!r}; it must be resnet50 or patch")


class Discriminator(nn.Module):
    """Maps pictures `(N, 3, H, W)` in [0, 1] to a map of logits: `(N, 1, 3, 3)` for 96x96 and the published trunk."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        resnet = config.trunk == "resnet50"
        self.stages = resnet50_stages() if resnet else patch_stages(config.widths)
        channels = 2048 if resnet else config.widths[-1]
        self.head = nn.Conv2d(channels, 1, kernel_size=1 if resnet else 3, padding=0 if resnet else 1)
        if not resnet:
            self.apply(init_weights)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    spectral_norm(module)

    def features(self, picture: Tensor) -> list[Tensor]:
        """The activations after each stage, then the logits; Larsen et al. compare pictures by them."""
        x = picture * 2 - 1  # (N, 3, H, W) in [-1, 1]
        features = []
        for stage in self.stages:
            x = stage(x)  # resnet50: (N, 256, H / 4, W / 4) ... (N, 2048, H / 32, W / 32); patch: halved each time
            features.append(x)
        features.append(self.head(x))  # (N, 1, h, w)
        return features

    def forward(self, picture: Tensor) -> Tensor:
        return self.features(picture)[-1]


def patch_stages(widths: tuple[int, ...]) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2))
        for inputs, outputs in zip((3, *widths), widths)
    )


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut (He et al., section 4.1); the 3x3 one has the stride."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, kernel_size=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, outputs, kernel_size=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))  # (N, 4 * width, H / stride, W / stride)


def resnet50_stages() -> nn.ModuleList:
    """The stem with the first of the four stages, and the other three: H / 4, H / 8, H / 16, H / 32."""
    stem = [
        nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    ]
    stages, inputs = nn.ModuleList(), 64
    for i, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        layers = [] if i else stem
        for j in range(depth):
            layers.append(Bottleneck(inputs, width, stride=2 if i and not j else 1))
            inputs = 4 * width
        stages.append(nn.Sequential(*layers))
    for module in stages.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return stages
