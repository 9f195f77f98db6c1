"""Trains pix2pix.

    python -m train.pix2pix sketch2face --data data/faces [--preset best] [--out RUN] [--resume RUN]

`python -m train.pix2pix segmentation` is in train/segmentation.py.

Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks (arXiv 1611.07004).
"""

import argparse
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_core import checkpoint
from gan_core.image import side_by_side, to_pictures, to_tensor
from gan_core.lineart import SIZE, draw_like_a_hand, draw_lines
from gan_core.losses import ADVERSARIAL, discriminator_loss, feature_matching_loss, generator_loss
from gan_core.patchgan import PatchDiscriminator, PatchGANConfig
from gan_core.unet import UNetConfig, UNetGenerator
from train import parallel
from train.data import DataError, EpochBatches, FacePhotos, PairFolder, evenly, read_picture
from train.graph import Graph, set_rate
from train.profile import Profile, plain_span
from train.run import (
    EMA,
    PRECISIONS,
    LossLog,
    RunFolder,
    add_run_options,
    autocast,
    batches,
    check_choice,
    check_graph,
    check_least,
    descend,
    fit_weights,
    linear_decay,
    memory_format,
    open_device,
    open_run,
    pack_state,
    set_off,
    training_facts,
    unpack_state,
)
from train.shards import Shards, is_sharded, layout_of_row, open_stream, pair_in_row, photo_of_row


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
    gan_weight: float = 1.0
    l1_weight: float = 100.0
    feature_weight: float = 0.0
    fade_ink: float = 0.0
    ema: float = 0.0
    zoom: float = 1.0
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self):
        check_choice("adversarial", self.adversarial, ADVERSARIAL)
        check_choice("precision", self.precision, PRECISIONS)
        check_least(self, epochs=1, batch_size=1)

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
        # As for faces; crops, because there are but 400 buildings. Crops are enlarged, hence blurred: to finish sharp,
        # go on from the result with --init, --zoom 1 and a fifth of the L1 weight (assets/checkpoints/README.md).
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


def open_dataset(data: Path, config: Pix2PixConfig) -> Dataset:
    """Photos to draw on the fly, or the pairs in `source/` and `target/` if the folder has them. Or their shards."""
    if is_sharded(data):
        return open_stream(data, config.generator.in_channels == 1, config.seed, config.zoom)
    if (data / "train" / "source").is_dir():
        return open_pairs(data / "train", config, config.zoom)
    return FacePhotos(data / "train", seed=config.seed, zoom=config.zoom)


def open_pairs(folder: Path, config: Pix2PixConfig, zoom: float = 1.0) -> PairFolder:
    """Pairs of any size, scaled to that of the network; small networks, as of train.lessons, take them as they are."""
    return PairFolder(
        folder, config.generator.in_channels == 1, config.seed, zoom, scale=config.generator.multiple == SIZE
    )


class Training:
    """Networks, optimisers and averages of one run, and the step that changes them.

    accumulate: parts that a process sees its batch in. compiled: a mode of --compile. span: names the parts of a step
    for whoever measures them.
    """

    def __init__(
        self,
        config: Pix2PixConfig,
        total_steps: int,
        device: torch.device,
        accumulate: int = 1,
        compiled: str | None = None,
    ):
        torch.manual_seed(config.seed)
        self.config, self.total_steps, self.device, self.accumulate = config, total_steps, device, accumulate
        self.step, self.span = 0, plain_span
        self.memory_format = memory_format(device, config.precision)
        self.generator = UNetGenerator(config.generator).to(device, memory_format=self.memory_format)
        self.discriminator = PatchDiscriminator(config.discriminator).to(device, memory_format=self.memory_format)
        self.ema = EMA(self.generator, config.ema)
        adam = {"betas": (config.beta1, config.beta2), "fused": True}
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), config.learning_rate, **adam)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), config.learning_rate_d, **adam)
        for network in (self.generator, self.discriminator):
            parallel.share_norms(network)
        self.graph = None
        if compiled == "graph":
            check_graph(device, accumulate)
            self.graph = Graph(device, self.optimizer_g, self.optimizer_d)
        elif compiled:
            self.generator.compile(mode=compiled)
            self.discriminator.features = torch.compile(self.discriminator.features, mode=compiled)

    def train_step(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """One step on a batch: source `(N, C, H, W)`, target `(N, 3, H, W)`, in [-1, 1]."""
        config = self.config
        source, target = (x.contiguous(memory_format=self.memory_format) for x in (source, target))
        decay = linear_decay(self.step, self.total_steps)
        set_rate(self.optimizer_g, config.learning_rate * decay)
        set_rate(self.optimizer_d, config.learning_rate_d * decay)
        parallel.own_dice(config.seed, self.step)
        learn = self.gan_step if config.gan_weight else self.l1_step
        if self.graph:
            with self.span("CUDA graph"):
                losses = self.graph(learn, source, target)
        else:
            losses = learn(source, target)
        with self.span("moving average"):
            self.ema.update(self.generator, self.step)
        self.step += 1
        return parallel.mean_losses(losses)

    def gan_step(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Both networks learn from a batch, laid out as they are. Returns the losses."""
        config = self.config
        with self.span("generator"), autocast(self.device, config.precision):
            fake = self.generate(source)

        # Discriminator: real pairs are real, generated pairs are not.
        with self.span("discriminator"), autocast(self.device, config.precision):
            real_features = self.judge(source, target)
            fake_logits = self.judge(source, fake.detach())[-1]
        loss_d = discriminator_loss(real_features[-1].float(), fake_logits.float(), config.adversarial)
        descend(loss_d, self.optimizer_d, self.span, "discriminator")

        # Generator: fool the discriminator, and stay close to the target.
        self.discriminator.requires_grad_(False)
        with self.span("generator's losses"), autocast(self.device, config.precision):
            fake_features = self.judge(source, fade_gradient(fake, source, config.fade_ink))
        loss_gan = generator_loss(fake_features[-1].float(), config.adversarial)
        loss_l1 = (fake.float() - target).abs().mean()
        loss_g = config.gan_weight * loss_gan + config.l1_weight * loss_l1
        losses = {"d": loss_d, "gan": loss_gan, "l1": loss_l1}
        if config.feature_weight:
            losses["features"] = feature_matching_loss(real_features[:-1], fake_features[:-1])
            loss_g = loss_g + config.feature_weight * losses["features"]
        descend(loss_g, self.optimizer_g, self.span, "generator")
        self.discriminator.requires_grad_(True)
        return losses

    def generate(self, source: Tensor) -> Tensor:
        """The generator; its parts of a batch one after the other, if there are several."""
        return parallel.in_parts(self.accumulate, self.generator, self.generator, source)

    def judge(self, source: Tensor, target: Tensor) -> list[Tensor]:
        """The discriminator's activations, then its logits; likewise."""
        return parallel.in_parts(self.accumulate, self.discriminator, self.discriminator.features, source, target)

    def l1_step(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """As gan_step, but nobody asks the discriminator: what L1 alone gives (section 4.2)."""
        with self.span("generator"), autocast(self.device, self.config.precision):
            fake = self.generate(source)
        loss = (fake.float() - target).abs().mean()
        descend(self.config.l1_weight * loss, self.optimizer_g, self.span, "generator")
        return {"l1": loss}

    def start_from(self, loaded: checkpoint.Checkpoint) -> str:
        """Takes over the weights of a checkpoint that fit, for fine-tuning. Returns what was taken, in words."""
        taken = fit_weights({"generator": self.generator, "discriminator": self.discriminator}, loaded.weights)
        self.ema.module.load_state_dict(self.generator.state_dict())
        return taken

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
        return pack_state(self._parts(), self.device, step=self.step)

    def load_state_dict(self, state: dict) -> None:
        unpack_state(self._parts(), self.device, state)
        self.step = state["step"]


def fade_gradient(fake: Tensor, source: Tensor, fade_ink: float) -> Tensor:
    """The same pictures; their gradient shrinks with the ink of their source, once it is below fade_ink."""
    if not fade_ink:
        return fake
    ink = (source < 0).float().mean(dim=(1, 2, 3), keepdim=True)  # (N, 1, 1, 1)
    return torch.lerp(fake.detach(), fake, (ink / fade_ink).clamp(max=1).to(fake.dtype))


def fixed_drawings(data: Path, config: Pix2PixConfig, count: int = 8) -> tuple[Tensor, Tensor]:
    """The held-out drawings of the sample grid: clean line art of some faces, then a random hand's."""
    if is_sharded(data):
        return fixed_rows(data, config, count)
    if (data / "val" / "source").is_dir():
        pairs = open_pairs(data / "val", config)
        chosen = [pairs.pair(i) for i in evenly(len(pairs), 2 * count)]
        return tuple(torch.cat([to_tensor(picture) for picture in side]) for side in zip(*chosen))
    held_out = FacePhotos(data / "val")
    sources, targets = [], []
    for hand in (False, True):
        for i in evenly(len(held_out), count):
            photo = read_picture(held_out.files[i])
            rng = np.random.default_rng(i)
            drawing = draw_like_a_hand(np.asarray(photo), rng, held_out.layout(i)) if hand else draw_lines(photo)
            sources.append(to_tensor(drawing))
            targets.append(to_tensor(photo))
    return torch.cat(sources), torch.cat(targets)


def fixed_rows(data: Path | str, config: Pix2PixConfig, count: int) -> tuple[Tensor, Tensor]:
    """As `fixed_drawings`, of the first rows of the shards; of those to train on, if none are held out."""
    try:
        shards = Shards(data, "val")
    except DataError:
        print(f"{data} holds out nothing: samples show what is trained on.")
        shards = Shards(data, "train")
    sources, targets = [], []
    for i, row in enumerate(shards.first_rows(2 * count)):
        if "source" in shards.columns:
            source, photo = pair_in_row(row, config.generator.in_channels == 1)
        else:
            photo, rng = photo_of_row(row), np.random.default_rng(i)
            hand = i >= count
            source = draw_like_a_hand(np.asarray(photo), rng, layout_of_row(row)) if hand else draw_lines(photo)
        sources.append(to_tensor(source))
        targets.append(to_tensor(photo))
    return torch.cat(sources), torch.cat(targets)


@torch.inference_mode()
def sample_grid(generator: UNetGenerator, source: Tensor, target: Tensor):
    """Rows of drawing, generated, real, eight faces wide."""
    fake = torch.cat([generator(as_input(x, generator.config)) for x in source.split(4)])
    return side_by_side(to_pictures(source), to_pictures(fake), to_pictures(target))


def as_input(source: Tensor, config: UNetConfig) -> Tensor:
    """Repeats a one-channel drawing for a generator that was published for RGB."""
    return source.expand(-1, config.in_channels, -1, -1)


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
    device: str | torch.device = "cpu",
    tensorboard: bool = False,
    accumulate: int = 1,
    compile: str | None = None,
    profile: Profile | None = None,
) -> Training:
    """Trains to the end, or up to step `stop_at`. Returns the training as it stands then."""
    device = open_device(device)
    dataset = open_dataset(data, config)
    total = config.epochs * EpochBatches(len(dataset), config.batch_size).steps_per_epoch
    training = Training(config, total, device, accumulate, compile)
    span = training.span = profile.span if profile else plain_span
    end = set_off(training, run, task, total, resume=resume, init=init, stop_at=stop_at)
    if training.step >= end:
        return training
    if parallel.first():
        run.trim_log(training.step)
        drawings, photos = fixed_drawings(data, config)
    log = LossLog(run, training.step, end, config.batch_size, tensorboard)
    if profile:
        profile.time_items(dataset, config.batch_size)

    order = config.batch_size, config.seed, training.step, end
    with closing(batches(dataset, *order, workers, device, span)) as feed:
        for source, target in feed:
            losses = training.train_step(as_input(source, config.generator), target)
            step = training.step
            leaving = log.leaving(step)
            if not parallel.first():
                if leaving:
                    log.leave()
                continue
            saving = leaving or step % save_every == 0 or step == end
            with span("log"):
                log.add(step, losses)
                if saving or step % 20 == 0:
                    log.flush()
            if step % sample_every == 0 or step == end:
                with span("samples", sample_every):
                    grid = sample_grid(training.ema.module, drawings.to(device), photos)
                    run.save_sample(grid, step)
                    log.picture(grid, step)
            if saving:
                with span("saving", save_every):
                    run.plot_losses()
                    facts = training_facts(config, step, len(dataset), log.images_per_second(), init)
                    networks = {"generator": training.ema.module, "discriminator": training.discriminator}
                    checkpoint.save(run.path / f"{task}.safetensors", task, networks, facts)
                    run.save_state(training.state_dict())
            if leaving:
                log.leave()
    log.close()
    return training


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["segmentation"]:
        from train import segmentation  # here, because its torchmetrics takes a second to import, in workers too

        return segmentation.main(arguments[1:])
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m train.pix2pix",
        description=__doc__.split("\n\n")[0],
        epilog="segmentation has options of its own: python -m train.pix2pix segmentation --help",
    )
    parser.add_argument("task", choices=sorted(PRESETS))
    add_run_options(
        parser,
        Pix2PixConfig,
        ("paper", "best"),
        sample_every=200,
        workers=1,
        workers_help="processes that draw line art",
    )
    options = parser.parse_args(arguments)
    with open_run(options, options.task, PRESETS[options.task][options.preset]) as (run, config, loop):
        train(options.data, options.task, config, run, **loop)


if __name__ == "__main__":
    main()
