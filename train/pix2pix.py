"""Trains pix2pix.

    python -m train.pix2pix sketch2face --data data/faces [--preset best] [--out RUN] [--resume RUN]

`python -m train.pix2pix segmentation` is in train/segmentation.py.

Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks (arXiv 1611.07004).
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from gan_core import checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.image import PictureError, open_picture, side_by_side, to_pictures, to_tensor
from gan_core.lineart import draw_like_a_hand, draw_lines
from gan_core.losses import discriminator_loss, feature_matching_loss, generator_loss
from gan_core.patchgan import PatchDiscriminator, PatchGANConfig
from gan_core.unet import UNetConfig, UNetGenerator
from train.data import DataError, EpochBatches, FacePhotos, PairFolder, list_pictures
from train.run import EMA, RunError, RunFolder, add_options, autocast, batches, given_options, linear_decay


@dataclass(frozen=True)
class Pix2PixConfig:
    """Everything that decides what a run computes. The defaults are the published recipe (section 3.3, 6.2).

    fade_ink: share of dark pixels in the source below which the discriminator's say fades, down to none for
        empty paper. What is not drawn has no right answer: there the model shall be calm rather than inventive.
    """

    generator: UNetConfig = field(default_factory=UNetConfig)
    discriminator: PatchGANConfig = field(default_factory=PatchGANConfig)
    epochs: int = 200
    batch_size: int = 1
    learning_rate: float = 2e-4
    learning_rate_d: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    adversarial: str = "bce"
    l1_weight: float = 100.0
    feature_weight: float = 0.0
    fade_ink: float = 0.0
    ema: float = 0.0
    zoom: float = 1.0
    seed: int = 0
    precision: str = "auto"

    @classmethod
    def from_dict(cls, options: dict) -> "Pix2PixConfig":
        networks = {
            "generator": UNetConfig(**options["generator"]),
            "discriminator": PatchGANConfig(**options["discriminator"]),
        }
        return cls(**options | networks)


PRESETS: dict[str, dict[str, Pix2PixConfig]] = {
    "sketch2face": {
        "paper": Pix2PixConfig(),
        # Half the channels for the CPU of a laptop; batch normalisation over small batches, which folds into the
        # convolutions; bilinear doubling and a last look at the drawing at full resolution, against checkerboards;
        # pixel noise, for hair and skin; pix2pixHD's least squares and feature matching; EMA; little L1, which blurs,
        # and a slow discriminator, which else wins.
        "best": Pix2PixConfig(
            generator=UNetConfig(
                in_channels=1, base_channels=32, norm="batch", upsampling="mixed", refine_channels=16, noise=True
            ),
            discriminator=PatchGANConfig(source_channels=1, base_channels=32),
            epochs=30,
            batch_size=4,
            learning_rate_d=5e-5,
            adversarial="least_squares",
            l1_weight=5.0,
            feature_weight=5.0,
            fade_ink=0.02,
            ema=0.999,
            zoom=0.72,
        ),
    },
    "facades": {
        # Least squares for the paper's cross-entropy, and a tenth of its epochs.
        "paper": Pix2PixConfig(epochs=20, adversarial="least_squares"),
        # As for faces; crops, because there are but 400 buildings.
        "best": Pix2PixConfig(
            generator=UNetConfig(base_channels=32, norm="batch", upsampling="mixed", refine_channels=16, noise=True),
            discriminator=PatchGANConfig(base_channels=32),
            epochs=80,
            batch_size=4,
            learning_rate_d=1e-4,
            adversarial="least_squares",
            l1_weight=5.0,
            feature_weight=5.0,
            ema=0.999,
            zoom=0.7,
        ),
    },
}


def open_dataset(data: Path, split: str, config: Pix2PixConfig) -> Dataset:
    """Photos to draw on the fly, or the pairs in `source/` and `target/` if the folder has them."""
    folder = data / split
    if (folder / "source").is_dir():
        return PairFolder(folder, config.generator.in_channels == 1, config.seed, config.zoom)
    return FacePhotos(folder, seed=config.seed, zoom=config.zoom)


class Training:
    """Networks, optimisers and averages of one run, and the step that changes them."""

    def __init__(self, config: Pix2PixConfig, total_steps: int, device: torch.device):
        torch.manual_seed(config.seed)
        self.config, self.total_steps, self.device = config, total_steps, device
        self.step = 0
        self.generator = UNetGenerator(config.generator).to(device, memory_format=torch.channels_last)
        self.discriminator = PatchDiscriminator(config.discriminator).to(device, memory_format=torch.channels_last)
        self.ema = EMA(self.generator, config.ema)
        adam = {"betas": (config.beta1, config.beta2), "fused": True}
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), config.learning_rate, **adam)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), config.learning_rate_d, **adam)

    def train_step(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """One step on a batch: source `(N, C, H, W)`, target `(N, 3, H, W)`, in [-1, 1]."""
        config = self.config
        decay = linear_decay(self.step, self.total_steps)
        self.optimizer_g.param_groups[0]["lr"] = config.learning_rate * decay
        self.optimizer_d.param_groups[0]["lr"] = config.learning_rate_d * decay

        with autocast(self.device, config.precision):
            fake = self.generator(source)

            # Discriminator: real pairs are real, generated pairs are not.
            real_features = self.discriminator.features(source, target)
            fake_logits = self.discriminator(source, fake.detach())
        loss_d = discriminator_loss(real_features[-1].float(), fake_logits.float(), config.adversarial)
        self.optimizer_d.zero_grad(set_to_none=True)
        loss_d.backward()
        self.optimizer_d.step()

        # Generator: fool the discriminator, and stay close to the target.
        self.discriminator.requires_grad_(False)
        with autocast(self.device, config.precision):
            fake_features = self.discriminator.features(source, fade_gradient(fake, source, config.fade_ink))
        loss_gan = generator_loss(fake_features[-1].float(), config.adversarial)
        loss_l1 = (fake.float() - target).abs().mean()
        loss_g = loss_gan + config.l1_weight * loss_l1
        losses = {"d": loss_d, "gan": loss_gan, "l1": loss_l1}
        if config.feature_weight:
            losses["features"] = feature_matching_loss(real_features[:-1], fake_features[:-1])
            loss_g = loss_g + config.feature_weight * losses["features"]
        self.optimizer_g.zero_grad(set_to_none=True)
        loss_g.backward()
        self.optimizer_g.step()
        self.discriminator.requires_grad_(True)

        self.ema.update(self.generator, self.step)
        self.step += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def start_from(self, loaded: checkpoint.Checkpoint) -> str:
        """Takes over the weights of a checkpoint that fit, for fine-tuning. Returns what was taken, in words."""
        counts = []
        for name in ("generator", "discriminator"):
            network, weights = getattr(self, name), loaded.weights.get(name, {})
            own = network.state_dict()
            fitting = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
            network.load_state_dict(own | fitting)
            counts.append(f"{len(fitting)} of {len(own)} tensors of the {name}")
        self.ema = EMA(self.generator, self.config.ema)
        return " and ".join(counts)

    def _parts(self) -> dict:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "ema": self.ema.module,
            "optimizer_g": self.optimizer_g,
            "optimizer_d": self.optimizer_d,
        }

    def state_dict(self) -> dict:
        """All that an exact resume needs."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"step": self.step, "rng": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]
        torch.set_rng_state(state["rng"])
        if "cuda_rng" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)


def as_numbers(record: dict) -> dict[str, float]:
    return {name: round(float(x), 5) if isinstance(x, Tensor) else x for name, x in record.items()}


def fade_gradient(fake: Tensor, source: Tensor, fade_ink: float) -> Tensor:
    """The same pictures; their gradient shrinks with the ink of their source, once it is below fade_ink."""
    if not fade_ink:
        return fake
    ink = (source < 0).float().mean(dim=(1, 2, 3), keepdim=True)  # (N, 1, 1, 1)
    return torch.lerp(fake.detach(), fake, (ink / fade_ink).clamp(max=1).to(fake.dtype))


def fixed_drawings(data: Path, config: Pix2PixConfig, count: int = 8) -> tuple[Tensor, Tensor]:
    """The held-out drawings of the sample grid: clean line art of some faces, then a random hand's."""
    if (data / "val" / "source").is_dir():
        pairs = PairFolder(data / "val", config.generator.in_channels == 1)
        chosen = [pairs.pair(int(i)) for i in np.linspace(0, len(pairs) - 1, min(2 * count, len(pairs)))]
        return tuple(torch.cat([to_tensor(picture) for picture in side]) for side in zip(*chosen))
    held_out = FacePhotos(data / "val")
    sources, targets = [], []
    for hand in (False, True):
        for i in np.linspace(0, len(held_out) - 1, min(count, len(held_out))).astype(int):
            photo = open_picture(held_out.files[i])
            rng = np.random.default_rng(int(i))
            drawing = draw_like_a_hand(np.asarray(photo), rng, held_out.layout(i)) if hand else draw_lines(photo)
            sources.append(to_tensor(drawing))
            targets.append(to_tensor(photo))
    return torch.cat(sources), torch.cat(targets)


@torch.inference_mode()
def sample_grid(generator: UNetGenerator, source: Tensor, target: Tensor):
    """Rows of drawing, generated, real, eight faces wide."""
    fake = torch.cat([generator(as_input(x, generator.config)) for x in source.split(4)])
    return side_by_side(to_pictures(source), to_pictures(fake), to_pictures(target))


def as_input(source: Tensor, config: UNetConfig) -> Tensor:
    """Repeats a one-channel drawing for a generator that was published for RGB."""
    return source.expand(-1, config.in_channels, -1, -1).contiguous(memory_format=torch.channels_last)


def train(
    data: Path,
    task: str,
    config: Pix2PixConfig,
    run: RunFolder,
    *,
    resume: bool = False,
    init: Path | None = None,
    stop_at: int | None = None,
    sample_every: int = 200,
    save_every: int = 500,
    workers: int = 1,
    device: str = "cpu",
    tensorboard: bool = False,
) -> Training:
    """Trains to the end, or up to step `stop_at`. Returns the training as it stands then."""
    device = torch.device(device)
    dataset = open_dataset(data, "train", config)
    total = config.epochs * EpochBatches(len(dataset), config.batch_size).steps_per_epoch
    training = Training(config, total, device)
    if init and not resume:
        print(f"Starting from {init}: {training.start_from(checkpoint.load(init, task))}.")
    if resume:
        training.load_state_dict(run.load_state())
        run.trim_log(training.step)
    end = min(total, stop_at or total)
    if training.step >= end:
        print(f"{run.path} has finished its {total} steps already. Give more --epochs to train on.")
        return training
    drawings, photos = fixed_drawings(data, config)
    writer = None
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(run.path / "tensorboard")

    unlogged: list[dict] = []
    progress = tqdm(
        total=end * config.batch_size, initial=training.step * config.batch_size, unit="image", smoothing=0.05
    )
    started, before = time.perf_counter(), training.step
    for source, target in batches(dataset, config.batch_size, config.seed, training.step, workers, device):
        losses = training.train_step(as_input(source, config.generator), target)
        step = training.step
        progress.update(config.batch_size)

        # The losses of each step are kept where they are, and read in bulk: a GPU need not wait for them.
        unlogged.append({"step": step, "seconds": round(time.perf_counter() - started, 1)} | losses)
        if step % 20 == 0 or step % save_every == 0 or step == end:
            records = [as_numbers(record) for record in unlogged]
            unlogged = []
            run.log(records)
            if bad := next((record for record in records if not all(map(np.isfinite, record.values()))), None):
                raise RunError(
                    f"the losses at step {bad['step']} are {bad}. The last good state is in {run.path}; "
                    "resume it with lower --learning-rate and --learning-rate-d, or with --precision float32."
                )
            last = {name: records[-1][name] for name in losses}
            progress.set_postfix(last, refresh=False)
            if writer:
                for name, value in last.items():
                    writer.add_scalar(f"loss/{name}", value, step)
        if step % sample_every == 0 or step == end:
            grid = sample_grid(training.ema.module, drawings.to(device), photos)
            run.save_sample(grid, step)
            if writer:
                writer.add_image("samples", np.asarray(grid), step, dataformats="HWC")
        if step % save_every == 0 or step == end:
            run.save_state(training.state_dict())
            run.plot_losses()
            facts = {"recipe": asdict(config), "steps": step, "images": step * config.batch_size}
            facts["images_per_second"] = round((step - before) * config.batch_size / (time.perf_counter() - started), 2)
            facts |= {"data": f"{len(dataset)} pictures", "init": init and init.name}
            networks = {"generator": training.ema.module, "discriminator": training.discriminator}
            checkpoint.save(run.path / f"{task}.safetensors", task, networks, facts)
        if step >= end:
            break
    progress.close()
    if writer:
        writer.close()
    return training


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["segmentation"]:
        from train import segmentation  # it builds on this module

        return segmentation.main(arguments[1:])
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m train.pix2pix",
        description=__doc__.split("\n\n")[0],
        epilog="segmentation has options of its own: python -m train.pix2pix segmentation --help",
    )
    parser.add_argument("task", choices=sorted(PRESETS))
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/ and val/")
    parser.add_argument("--preset", default="best", choices=("paper", "best"))
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: the next number under runs/)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run, exactly")
    parser.add_argument("--init", type=Path, metavar="FILE", help="fine-tune: start from the weights of a checkpoint")
    parser.add_argument("--stop-at", type=int, metavar="STEP", help="stop here; the rate still decays towards --epochs")
    parser.add_argument("--sample-every", type=int, default=200, metavar="STEPS")
    parser.add_argument("--save-every", type=int, default=500, metavar="STEPS")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw line art")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--tensorboard", action="store_true", help="log to RUN/tensorboard too (pip install tensorboard)"
    )
    add_options(parser.add_argument_group("recipe (overrides the preset)"), Pix2PixConfig)
    options = parser.parse_args(arguments)
    overrides = given_options(options, Pix2PixConfig)
    loop = {
        name: getattr(options, name)
        for name in ("init", "stop_at", "sample_every", "save_every", "workers", "device", "tensorboard")
    }
    run = None
    try:
        list_pictures(options.data / "train")
        list_pictures(options.data / "val")
        if options.resume:
            run, earlier = RunFolder.open(options.resume)
            if earlier["task"] != options.task:
                raise RunError(f"{options.resume} is a run of {earlier['task']}, not of {options.task}.")
            config = replace(Pix2PixConfig.from_dict(earlier["config"]), **overrides)
            loop["init"] = Path(earlier["init"]) if earlier.get("init") else None
            run.write_options(earlier | {"config": asdict(config)})
        else:
            config = replace(PRESETS[options.task][options.preset], **overrides)
            init = str(options.init) if options.init else None
            started = {"task": options.task, "init": init, "config": asdict(config)}
            run = RunFolder.create(options.out, options.task, started)
        print(f"Run folder: {run.path}")
        train(options.data, options.task, config, run, resume=bool(options.resume), **loop)
    except (CheckpointError, DataError, PictureError, RunError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(f"Interrupted. Go on with --resume {run.path}" if run else "Interrupted.") from None
    print(f"Done. See it in the app: python app.py --checkpoints {run.path}")


if __name__ == "__main__":
    main()
