"""Trains the small nets of the Learn tab: twins that differ from one another in one thing.

    python -m train.lessons NAME --data DIR [--out RUN] [--to DIR] [--stop-at STEP]

NAME is one of FACADE_TWINS, with --data data/facades, or of FACE_TWINS, with --data data/anime. Beside the run, which
is one of train.pix2pix or train.vae_gan, it writes TO/NAME.safetensors: the net without what only its training needs,
and in its facts the figures on the held-out pictures that the tab shows.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gan_core import FaceMixer, checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.image import PictureError, open_picture, to_pictures, to_tensor
from gan_core.lessons import TWIN_SIDE
from gan_core.losses import kl_divergence
from gan_core.patchgan import PatchGANConfig
from gan_core.unet import UNetConfig, UNetGenerator
from gan_core.vae_gan import VAE, DiscriminatorConfig, VAEConfig
from train import pix2pix, vae_gan
from train.data import DataError, PairFolder, list_pictures
from train.lock import FolderInUse, locked
from train.metrics import as_batch, compare, gradient_energy, pairwise_distance, sliced_wasserstein
from train.pictures import PicturesInMemory
from train.pix2pix import Pix2PixConfig
from train.prepare import write_picture
from train.run import RunError, RunFolder, at_least, count_pictures, next_folder
from train.vae_gan import VAEGANConfig

FACE_SIDE = 48
CODES = 800  # of training pictures, kept to show where they lie

# The published layout at a quarter of the size: patches of 34 pixels, and no dropout, which would hide what skips do.
both = Pix2PixConfig(
    generator=UNetConfig(base_channels=12, depth=5, norm="batch", dropout=0.0),
    discriminator=PatchGANConfig(base_channels=8, halvings=2),
    epochs=8,
    batch_size=4,
    learning_rate=2e-3,
    learning_rate_d=1e-4,
    adversarial="least_squares",
    l1_weight=10.0,
    ema=0.99,
)
FACADE_TWINS = {
    "both": both,
    "l1": replace(both, gan_weight=0.0),
    "no_skips": replace(both, gan_weight=0.0, generator=replace(both.generator, skips=False)),
    "gan": replace(both, l1_weight=0.0),
}

# Two numbers for a face: far too few to draw it well, but all that they can say fits on one map.
kl = VAEGANConfig(
    vae=VAEConfig(latent=2, size=FACE_SIDE, widths=(16, 32, 64, 96), upsampling="mixed"),
    discriminator=DiscriminatorConfig(trunk="patch", widths=(32, 64, 96)),  # which is never asked
    epochs=2,
    batch_size=16,
    learning_rate=1e-3,
    decay=True,
    gan_weight=0.0,
    l1_weight=50.0,
    bce_weight=0.0,
    kl_weight=0.1,
    kl_ramp=0.1,
    gan_start=1.0,
    rotation=0.0,
)
FACE_TWINS = {
    "kl": kl,
    "reconstruction": replace(kl, kl_weight=0.0),
}


def shrink(data: Path, side: int) -> Path:
    """A folder beside `data` with all its pictures at side x side, label maps without new colours."""
    small = data.with_name(f"{data.name}-{side}")
    for split in ("train", "val"):
        for path in list_pictures(data / split):
            file = (small / path.relative_to(data)).with_suffix(".png")
            if not file.exists():
                is_map = path.parent.name == "source"
                filter = Image.Resampling.NEAREST if is_map else Image.Resampling.LANCZOS
                write_picture(file, open_picture(path).resize((side, side), filter))
    return small


@torch.inference_mode()
def facade_figures(generator: UNetGenerator, data: Path) -> dict[str, float]:
    """On the held-out pairs: see `train.metrics.compare`, and the distance of the small patches."""
    pairs = PairFolder(data / "val")
    sources, photos = zip(*(pairs.pair(i) for i in range(len(pairs))))
    generated = to_pictures(torch.cat([generator(to_tensor(source)) for source in sources]))
    figures = compare(generated, list(photos))
    return figures | {"sliced_wasserstein": sliced_wasserstein(generated, list(photos))}


@torch.inference_mode()
def face_facts(vae: VAE, data: Path) -> dict:
    """Figures on the held-out faces and on draws from the prior, and where training pictures lie in the latent."""
    held_out = PicturesInMemory(data / "val", vae.config.size)
    real = to_pictures(held_out.plain(slice(None)) * 2 - 1)
    mean, log_variance = vae.encoder(held_out.plain(slice(None)))
    figures = compare(FaceMixer(vae).decode(mean.numpy()), real)
    figures["kl"] = float(kl_divergence(mean, log_variance).sum())
    prior = np.random.default_rng(0).standard_normal((len(real), vae.config.latent))
    drawn = FaceMixer(vae).decode(prior)
    figures["prior_sliced_wasserstein"] = sliced_wasserstein(drawn, real)
    figures["prior_diversity"] = pairwise_distance(drawn) / pairwise_distance(real)
    figures["prior_sharpness_ratio"] = float(gradient_energy(as_batch(drawn)) / gradient_energy(as_batch(real)))
    train = PicturesInMemory(data / "train", vae.config.size)
    codes = vae_gan.encode_all(vae, train, CODES, torch.device("cpu"), "float32")
    return {"figures": rounded(figures), "codes": [[round(x, 2) for x in code] for code in codes.tolist()]}


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}


def make(name: str, data: Path, run: RunFolder, to: Path, stop_at: int | None = None) -> None:
    """Trains one net and writes `to/name.safetensors`."""
    loop = {"stop_at": stop_at, "sample_every": 500, "save_every": 1000, "workers": 0}
    if name in FACADE_TWINS:
        task, config, small = "facades", FACADE_TWINS[name], shrink(data, TWIN_SIDE)
        training = pix2pix.train(small, task, config, run, **loop)
        networks = {"generator": training.ema.module}
        facts = {"figures": rounded(facade_figures(training.ema.module, small))}
    else:
        task, config, small = "vaegan", FACE_TWINS[name], shrink(data, FACE_SIDE)
        training = vae_gan.train(small, config, run, **loop)
        networks = {"vae": training.ema.module.eval()}
        facts = face_facts(training.ema.module, small)
    facts |= {"recipe": asdict(config), "steps": training.step, "images": training.step * config.batch_size}
    checkpoint.save(to / f"{name}.safetensors", task, networks, facts)
    print(facts["figures"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.lessons", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("name", choices=[*FACADE_TWINS, *FACE_TWINS])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: the next number under runs/)")
    parser.add_argument("--to", type=Path, default=Path("assets/lessons"), metavar="DIR")
    parser.add_argument("--stop-at", type=at_least(1), metavar="STEP")
    options = parser.parse_args(arguments)
    try:
        count_pictures(options.data, "facades" if options.name in FACADE_TWINS else "vaegan")
        out = options.out or next_folder(options.name)
        with locked(out):
            make(options.name, options.data, RunFolder.create(out, options.name, {}), options.to, options.stop_at)
    except (CheckpointError, DataError, FolderInUse, OSError, PictureError, RunError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("Interrupted. It takes minutes: start it again, with another --out.") from None


if __name__ == "__main__":
    main()
