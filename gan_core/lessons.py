"""What the Learn tab shows: how a trained network does what it does. Nothing here is needed to use one.

Isola et al. (arXiv 1611.07004): skip connections in section 3.2.1, patches in 3.2.2, noise in 3.1, losses in 4.1.
Kingma, Welling (arXiv 1312.6114): the divergence from the prior in section 2.3 and appendix B.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from gan_core import checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.facades import read_label_map
from gan_core.image import to_pictures, to_tensor
from gan_core.losses import kl_divergence
from gan_core.mixer import FaceMixer
from gan_core.patchgan import PatchGANConfig
from gan_core.predictor import Pix2PixPredictor, share_weights
from gan_core.tasks import TASKS
from gan_core.unet import Noise, UNetConfig, UNetGenerator
from gan_core.vae_gan import VAE, VAEConfig

FILLS = ("zero", "mean")
TWIN_SIDE = 64  # of the pictures of the small facade nets
PAPER, SIGNAL, RING = (255, 255, 255), (79, 70, 229), (217, 45, 32)

# --- Skip connections --------------------------------------------------------------------------------


def skip_levels(config: UNetConfig) -> list[int]:
    """The ways from the encoder to the decoder, from the finest to the coarsest: level k is H / 2**k high.

    Level 0 is the source itself, which the last stage sees if the net has `refine_channels`; the last one is the
    innermost feature map, which is no skip but the way through all layers.
    """
    finest = 0 if config.refine_channels else 1
    return [*range(finest, config.depth)] * config.skips + [config.depth]


@torch.inference_mode()
def predict_through(
    predictor: Pix2PixPredictor, picture: Image.Image, opens: Sequence[Collection[int]], fill: str = "zero"
) -> list[Image.Image]:
    """What a generator paints if only some of its levels reach the decoder; a picture for each of `opens`.

    opens: for each the levels (see `skip_levels`) that pass. A cut one carries zeros, or, as "mean", the mean
    of each of its channels over the picture: still what is in it, no longer where. (The innermost level of one pixel is
    its own mean.) Raises ValueError for another fill, or a net without skips.
    """
    if fill not in FILLS:
        raise ValueError(f"fill is {fill!r}; it must be one of {', '.join(FILLS)}")
    if not predictor.generator.config.skips:
        raise ValueError("this generator was built without skips: there is nothing to cut")
    generator = predictor.generator
    levels = [predictor._sources([picture])]
    for down in generator.downs:
        levels.append(down(levels[-1]))  # (1, channels[i], H / 2**(i + 1), W / 2**(i + 1))
    joined = []
    for level, x in enumerate(levels):
        cut = torch.zeros_like(x) if fill == "zero" else x.mean(dim=(2, 3), keepdim=True).expand_as(x)
        joined.append(torch.cat([x if level in open_levels else cut for open_levels in opens]))
    x = joined[-1]
    for up, skip in zip(generator.ups, joined[-2:0:-1]):
        x = torch.cat([up(x), skip], dim=1)
    return to_pictures(generator.paint(x, joined[0]))


@dataclass(frozen=True)
class Twin:
    """One of the small nets that `train.lessons` makes.

    figures: on held-out pictures. images: that it was trained on. codes: latents of some of them, `(N, 2)`, of a VAE.
    """

    model: Pix2PixPredictor | FaceMixer
    figures: dict[str, float]
    images: int
    codes: np.ndarray | None = None


def load_twin(path: str | Path) -> Twin:
    """Raises CheckpointError if it is missing, damaged or not made by `train.lessons`."""
    loaded = checkpoint.load(path)
    if loaded.task == "facades":
        generator = loaded.build("generator", UNetGenerator, UNetConfig)
        model = Pix2PixPredictor(generator, replace(TASKS["facades"], size=TWIN_SIDE, read_source=read_small_map))
    else:
        model = FaceMixer(loaded.build("vae", VAE, VAEConfig))
    try:
        codes = np.array(loaded.facts["codes"]) if "codes" in loaded.facts else None
        return Twin(model, loaded.facts["figures"], loaded.facts["images"], codes)
    except KeyError as error:
        raise CheckpointError(f"{path} has no {error} among its facts. Make it by python -m train.lessons.") from error


def read_small_map(picture: Image.Image) -> Image.Image:
    return read_label_map(picture).resize((TWIN_SIDE, TWIN_SIDE), Image.Resampling.NEAREST)


# --- Patches -----------------------------------------------------------------------------------------


def receptive_field(config: PatchGANConfig) -> tuple[int, int, int]:
    """What one logit of the discriminator sees, in pixels along each side: (size, stride, start).

    Logit i sees the pixels from `start + i * stride` on, `size` of them; what lies outside of the picture is padding.
    The published net: 70, 8, -23. (Instance normalisation tells each logit the contrast of the whole picture, too.)
    """
    size, stride, start = 1, 1, 0
    for step in [2] * config.halvings + [1, 1]:  # the last two are the last block and the head
        size += (4 - 1) * stride
        start -= stride
        stride *= step
    return size, stride, start


# --- Noise -------------------------------------------------------------------------------------------


@torch.inference_mode()
def noisy_answers(
    predictor: Pix2PixPredictor,
    picture: Image.Image,
    count: int,
    seed: int,
    dropout: float = 0.5,
    pixels: bool = False,
) -> list[Image.Image]:
    """Several answers to one picture, the same for the same seed.

    dropout: share of the features that is dropped at test time (section 3.1); 0 for none. pixels: add fresh pixel
    noise, where the net has it, in place of the fixed one.
    """
    noisy = share_weights(predictor.generator)
    for module in noisy.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
            module.train()
        elif isinstance(module, Noise):
            module.train(pixels)
    sources = predictor._sources([picture]).expand(count, -1, -1, -1)
    with predictor.seeded(seed):
        return to_pictures(noisy(sources))


def spread(pictures: Sequence[Image.Image]) -> np.ndarray:
    """By how much the pictures differ at each pixel: `(H, W)`, the standard deviation in levels of 0 to 255.

    Of the three colours the mean.
    """
    return np.stack([np.asarray(picture, np.float32) for picture in pictures]).std(axis=0).mean(axis=-1)


# --- Latents -----------------------------------------------------------------------------------------


def plane(half: float, count: int) -> np.ndarray:
    """`(count * count, 2)`: the middles of square cells that fill [-half, half] twice; up is where y grows."""
    middles = ((np.arange(count) + 0.5) / count * 2 - 1) * half
    x, y = np.meshgrid(middles, middles[::-1])
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def draw_codes(codes: np.ndarray, half: float, side: int) -> Image.Image:
    """Where encoded pictures lie, `(N, 2)`, as dots; the rings hold 39 % and 86 % of what N(0, 1) draws."""
    canvas = np.full((side, side, 3), PAPER, np.uint8)
    place = ((np.asarray(codes) * (1, -1) / half + 1) / 2 * side).round().astype(int)
    for x, y in place:
        cv2.circle(canvas, (int(x), int(y)), max(1, side // 160), SIGNAL, -1, cv2.LINE_AA)
    for radius in (1, 2):
        cv2.circle(canvas, (side // 2, side // 2), round(radius / half * side / 2), RING, 2, cv2.LINE_AA)
    return Image.fromarray(canvas)


@torch.inference_mode()
def kl_per_unit(mixer: FaceMixer, faces: Sequence[Image.Image]) -> np.ndarray:
    """What each unit of the latent says about a face, in nats, on average over some: `(D,)`."""
    pictures = torch.cat([to_tensor(face) for face in faces]) * 0.5 + 0.5  # (N, 3, size, size) in [0, 1]
    return kl_divergence(*mixer.encoder(pictures.to(mixer.device))).float().cpu().numpy()


def draw_bars(values: np.ndarray, width: int = 768, height: int = 200) -> Image.Image:
    """A bar for each value, from the first on the left; the line is 0, the tallest bar the largest value."""
    canvas = np.full((height, width, 3), PAPER, np.uint8)
    edges = np.linspace(0, width, len(values) + 1).round().astype(int)
    tops = (values / max(float(np.max(values)), 1e-9) * (height - 12)).round().astype(int)
    for left, right, top in zip(edges, edges[1:], tops):
        gap = 1 if right - left > 2 else 0
        cv2.rectangle(canvas, (int(left), height - 1 - int(top)), (int(right) - 1 - gap, height - 1), SIGNAL, -1)
    return Image.fromarray(canvas)
