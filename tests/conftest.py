"""What the tests share: small networks whose answers are worth comparing, and pictures drawn on the spot."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from gan_core import checkpoint
from gan_core.facades import random_facade
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import FACADES, VOC
from gan_core.patchgan import PatchDiscriminator, PatchGANConfig
from gan_core.segmentation import SegmentationConfig, SegmentationGenerator
from gan_core.tasks import TASKS, Task
from gan_core.unet import Noise, UNetConfig, UNetGenerator
from gan_core.vae_gan import VAE, VAEConfig
from tests.fake_hub import FakeHub
from train.mixture import fit_latent_space

# Files of few and slow tests begin first, so that the last of them does not keep one processor waiting for the other.
SLOW = ("test_export", "test_access", "test_hostile", "test_kills", "test_docs", "test_full_disk", "test_publish")

TINY_UNET = UNetConfig(in_channels=1, base_channels=4, norm="batch", upsampling="mixed", refine_channels=4)
TINY_PATCHGAN = PatchGANConfig(source_channels=1, base_channels=4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in SLOW)  # stable


def enliven(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and running statistics as of a trained net; fresh ones of N(0, 0.02) answer gray to everything."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=rng)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=rng)
            elif isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=rng)
                module.running_var.uniform_(0.5, 2.0, generator=rng)
                module.weight.uniform_(0.5, 1.5, generator=rng)
                module.bias.normal_(0, 0.3, generator=rng)
    return network


def draw_portrait(seed: int = 0, size: int = 256) -> Image.Image:
    """A colourful head and shoulders with soft shading: enough for edge detectors, no face of anybody."""
    rng = np.random.default_rng(seed)
    across = np.linspace(0, 1, size)
    shade = 90 + 70 * across[None, :, None] * np.array(rng.uniform(0.6, 1.0, 3)) + 40 * across[:, None, None]
    picture = Image.fromarray(shade.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)

    def box(left, top, right, bottom):
        return [round(value * size) for value in (left, top, right, bottom)]

    x = rng.uniform(-0.03, 0.03)
    skin = tuple(int(value) for value in rng.integers((190, 140, 110), (240, 190, 160)))
    hair = tuple(int(value) for value in rng.integers((20, 10, 5), (110, 80, 60)))
    draw.ellipse(box(0.1 + x, 0.78, 0.9 + x, 1.3), fill=tuple(int(value) for value in rng.integers(30, 220, 3)))
    draw.ellipse(box(0.22 + x, 0.1, 0.78 + x, 0.75), fill=hair)
    draw.ellipse(box(0.28 + x, 0.2, 0.72 + x, 0.88), fill=skin)
    for eye in (0.38, 0.56):
        draw.arc(box(eye - 0.02 + x, 0.36, eye + 0.08 + x, 0.44), 190, 350, fill=hair, width=max(1, size // 64))
        draw.ellipse(box(eye + x, 0.42, eye + 0.06 + x, 0.48), fill="white", outline="black")
        draw.ellipse(box(eye + 0.02 + x, 0.435, eye + 0.04 + x, 0.465), fill="black")
    draw.line(box(0.5 + x, 0.48, 0.48 + x, 0.6), fill=hair, width=max(1, size // 128))
    draw.chord(box(0.41 + x, 0.64, 0.59 + x, 0.74), 0, 180, fill=(170, 40, 50))
    return picture


@pytest.fixture(scope="session", autouse=True)
def compiled_graphs(tmp_path_factory):
    """A folder for what the predictors compile, and the apps that are started, instead of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        yield


@pytest.fixture
def task() -> Task:
    return TASKS["sketch2face"]


@pytest.fixture
def unet_config() -> UNetConfig:
    return TINY_UNET


@pytest.fixture
def patchgan_config() -> PatchGANConfig:
    return TINY_PATCHGAN


@pytest.fixture
def generator() -> UNetGenerator:
    return enliven(UNetGenerator(TINY_UNET)).eval()


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    return enliven(PatchDiscriminator(TINY_PATCHGAN), seed=1).eval()


@pytest.fixture(scope="session")
def lively():
    """`enliven`, for tests that build networks of their own."""
    return enliven


@pytest.fixture(scope="session")
def portrait():
    """`draw_portrait`, a picture for each seed."""
    return draw_portrait


@pytest.fixture(scope="session")
def mixer_folder(tmp_path_factory):
    """A folder with vaegan.safetensors: no faces, but colours that differ from seed to seed; one direction is named."""
    vae = enliven(VAE(VAEConfig(latent=16, widths=(8, 8, 16, 16, 16), upsampling="mixed", refine_channels=8)))
    vae.decoder.unfold.weight.data *= 12  # a fresh one gives nearly the same picture for all latents
    space = fit_latent_space(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)), clusters=2)
    folder = tmp_path_factory.mktemp("checkpoints")
    facts = {"direction_names": ["Hair dark or light"]}
    checkpoint.save(folder / "vaegan.safetensors", "vaegan", {"vae": vae, "latents": space}, facts)
    return folder


@pytest.fixture
def photo() -> Image.Image:
    return draw_portrait()


@pytest.fixture
def doodle() -> Image.Image:
    """A drawing by hand of another size than the networks': black pen on white, "L"."""
    picture = Image.new("L", (300, 300), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((70, 40, 230, 260), outline=0, width=4)
    draw.ellipse((110, 120, 130, 140), outline=0, width=4)
    draw.ellipse((170, 120, 190, 140), outline=0, width=4)
    draw.line((150, 150, 145, 190), fill=0, width=4)
    draw.arc((115, 190, 185, 230), 0, 180, fill=0, width=4)
    return picture


def draw_building(seed: int = 0, size: int = 256) -> tuple[Image.Image, Image.Image]:
    """A label map by rule, and a photo of it: each class in a muted tone of its own, lit from one side."""
    label_map = random_facade(seed).resize((size, size), Image.Resampling.NEAREST)
    rng = np.random.default_rng(1)
    tones = np.linspace(50, 180, len(FACADES))[:, None] + rng.uniform(0, 40, (len(FACADES), 3))
    light = np.linspace(0.85, 1.05, size)[None, :, None] + np.random.default_rng(seed).normal(0, 0.02, (size, size, 1))
    photo = (tones[FACADES.to_labels(label_map)] * light).clip(0, 255)
    return label_map, Image.fromarray(photo.astype(np.uint8))


@pytest.fixture(scope="session")
def face_outlines() -> dict[str, np.ndarray]:
    """A face in the middle of the picture that looks into the camera, as train/landmarks.py would outline it."""

    def ring(x, y, width, height, angles) -> np.ndarray:  # degrees from the right, by way of the chin
        angles = np.radians(angles)
        return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)

    def row(x0, y0, x1, y1, count) -> np.ndarray:
        return np.linspace((x0, y0), (x1, y1), count)

    outlines = {
        "left_eye": ring(103, 112, 12, 5, np.linspace(180, -180, 16, endpoint=False)),
        "right_eye": ring(153, 112, 12, 5, np.linspace(0, 360, 16, endpoint=False)),
        "left_brow": np.concatenate([row(86, 96, 118, 94, 5), row(118, 98, 86, 100, 5)]),
        "right_brow": np.concatenate([row(170, 96, 138, 94, 5), row(138, 98, 170, 100, 5)]),
        "pupils": row(103, 112, 153, 112, 2),
        "bridge": row(128, 108, 128, 148, 6),
        "nostrils": row(114, 152, 142, 152, 7),
        "lips": ring(128, 182, 26, 10, np.linspace(180, -180, 20, endpoint=False)),
        "opening": ring(128, 182, 22, 4, np.linspace(180, -180, 20, endpoint=False)),
        "oval": ring(128, 136, 60, 78, np.linspace(-90, 270, 36, endpoint=False)),
        "person": np.concatenate(
            [row(20, 319, 60, 200, 12), ring(128, 120, 68, 95, range(150, 391, 8)), row(196, 200, 236, 319, 12)]
        ),
    }
    return {name: outline.astype(np.float32) for name, outline in outlines.items()}


@pytest.fixture(scope="session")
def building():
    """`draw_building`, a label map and its photo for each seed."""
    return draw_building


@pytest.fixture
def noisy_generator() -> UNetGenerator:
    """As `generator`, with pixel noise that one can see."""
    net = enliven(UNetGenerator(replace(TINY_UNET, noise=True)))
    for module in net.modules():
        if isinstance(module, Noise):
            nn.init.constant_(module.weight, 0.5)
    return net.eval()


@pytest.fixture(scope="session")
def small_models(tmp_path_factory, mixer_folder):
    """A folder with a small checkpoint for each task."""
    folder = tmp_path_factory.mktemp("small")
    for task, channels in (("sketch2face", 1), ("facades", 3)):
        networks = {
            "generator": enliven(UNetGenerator(replace(TINY_UNET, in_channels=channels))),
            "discriminator": PatchDiscriminator(replace(TINY_PATCHGAN, source_channels=channels)),
        }
        checkpoint.save(folder / f"{task}.safetensors", task, networks, {"steps": 7, "recipe": {"epochs": 1}})
    unet = MaxPoolUNetConfig(12, len(VOC), widths=(8, 16), residual=1, context=True)
    classes = enliven(SegmentationGenerator(SegmentationConfig(unet, paints="classes", block=2, size=32)))
    checkpoint.save(folder / "segmentation.safetensors", "segmentation", {"generator": classes})
    (folder / "vaegan.safetensors").write_bytes((mixer_folder / "vaegan.safetensors").read_bytes())
    return folder


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    """The Hub on this computer, empty, and its cache with it. Nobody is logged in unless HF_TOKEN is set."""
    hub = FakeHub()
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.url)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield hub
    hub.close()
