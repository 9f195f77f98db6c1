"""Trains segmentation as image translation: photo -> palette picture.

    python -m train.pix2pix segmentation --data data/voc [--preset best] [--out RUN] [--resume RUN]

DIR/train and DIR/val come from `train.prepare voc`. For the papers see gan_core/segmentation.py.
"""

import argparse
import math
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from gan_core import checkpoint
from gan_core.image import side_by_side, to_pictures
from gan_core.losses import discriminator_loss, generator_loss
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import VOC
from gan_core.segmentation import (
    VOID,
    PaletteDiscriminator,
    PaletteDiscriminatorConfig,
    SegmentationConfig,
    SegmentationGenerator,
    enlarge,
)
from train import parallel
from train.data import EpochBatches, evenly
from train.metrics import confusion, segmentation_scores
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
    check_least,
    descend,
    fit_weights,
    open_device,
    open_run,
    pack_state,
    set_off,
    training_facts,
    unpack_state,
)
from train.voc import LabelledPhotos, Views

TASK = "segmentation"


@dataclass(frozen=True)
class SegmentationRecipe:
    """Everything that decides what a run computes. The defaults are the published recipe.

    beta1_d: of the discriminator's Adam; beta2 and no weight decay are shared.
    schedule: "constant", or "one_cycle": up in a twentieth of the run, then down to 0 along a cosine.
    mae_weight: mean absolute error of the palette picture.
    class_weight: cross-entropy of the classes, with label_smoothing; each counts by the root of its rarity, the
        rarest at most `balance` times as much as the commonest.
    jaccard_weight, presence_weight: see jaccard_loss and presence_loss.
    adversarial_from: share of the run after which the discriminator has its say.
    views: the photos are seen at random, as train.voc.Views has it (size to paste_least); else whole, at the size of
        the generator. grow_from: share of the epochs after which they are seen in grown_size.
    validate_every: epochs from one validation phase to the next.
    """

    generator: SegmentationConfig = field(default_factory=SegmentationConfig)
    discriminator: PaletteDiscriminatorConfig = field(default_factory=PaletteDiscriminatorConfig)
    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = 2e-4
    learning_rate_d: float = 2e-4
    beta1: float = 0.5
    beta1_d: float = 0.5
    beta2: float = 0.999
    weight_decay: float = 0.0
    schedule: str = "constant"
    mae_weight: float = 100.0
    class_weight: float = 0.0
    label_smoothing: float = 0.0
    balance: float = 1.0
    jaccard_weight: float = 0.0
    presence_weight: float = 0.0
    adversarial_weight: float = 1.0
    adversarial_from: float = 0.0
    views: bool = False
    size: int = 128
    grown_size: int = 224
    grow_from: float = 0.8
    least: float = 0.75
    most: float = 1.75
    turn: float = 10.0
    colour: float = 1.0
    paste: float = 0.5
    paste_least: float = 0.375
    ema: float = 0.0
    validate_every: int = 1
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self):
        check_choice("schedule", self.schedule, ("constant", "one_cycle"))
        check_choice("precision", self.precision, PRECISIONS)
        check_least(self, epochs=1, batch_size=1, validate_every=1)
        presence = self.presence_weight if self.generator.unet.context else 0
        judged = self.adversarial_weight and self.adversarial_from <= 0
        if not (self.mae_weight or self.class_weight or self.jaccard_weight or presence or judged):
            raise ValueError("nothing is learnt from the first step on; give a --class-weight or a --mae-weight")

    @classmethod
    def from_dict(cls, options: dict) -> "SegmentationRecipe":
        networks = {
            "generator": SegmentationConfig(**options["generator"]),
            "discriminator": PaletteDiscriminatorConfig(**options["discriminator"]),
        }
        return cls(**options | networks)


PRESETS: dict[str, SegmentationRecipe] = {
    "paper": SegmentationRecipe(),
    # Classes are what is learnt, the discriminator polishes: a deeper encoder that starts at a quarter of the size,
    # where two cores can afford it; losses that rare classes count in; many different views of few photos.
    "best": SegmentationRecipe(
        generator=SegmentationConfig(
            unet=MaxPoolUNetConfig(
                in_channels=48,
                out_channels=len(VOC),
                widths=(64, 128, 256, 384),
                residual=2,
                context=True,
                dropout=0.1,
            ),
            paints="classes",
            block=4,
            square=False,
        ),
        epochs=120,
        batch_size=32,
        learning_rate=1.5e-3,
        beta1=0.9,
        weight_decay=0.05,
        schedule="one_cycle",
        mae_weight=0.0,
        class_weight=1.0,
        label_smoothing=0.05,
        balance=5.0,
        jaccard_weight=0.5,
        presence_weight=0.5,
        adversarial_weight=0.01,
        adversarial_from=0.5,
        views=True,
        ema=0.999,
        validate_every=10,
    ),
}


def open_dataset(data: Path, split: str, recipe: SegmentationRecipe) -> LabelledPhotos:
    """The training photos as the recipe sees them; those of any other split as they are."""
    views = None
    if split == "train" and recipe.views:
        views = Views(
            size=recipe.size,
            grown_size=recipe.grown_size,
            grow_epoch=math.ceil(recipe.grow_from * recipe.epochs),
            least=recipe.least,
            most=recipe.most,
            turn=recipe.turn,
            colour=recipe.colour,
            paste=recipe.paste,
            paste_least=recipe.paste_least,
        )
    return LabelledPhotos(data / split, recipe.generator.size, recipe.generator.square, views, recipe.seed)


# --- Losses ------------------------------------------------------------------------------------------
# scores are (N, 21, H, W), labels (N, H, W) with 255 where void; void has no say in any of them.


def class_loss(scores: Tensor, labels: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, weighed by class; the mean by weight."""
    total = F.cross_entropy(scores, labels, weights, ignore_index=VOID, label_smoothing=smoothing, reduction="sum")
    return total / weights[labels[labels != VOID]].sum().clamp(min=1.0)


def jaccard_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """1 - intersection over union, with the softmax in place of decisions; mean over the classes in the batch."""
    known = labels != VOID
    numbers, classes = labels.where(known, 0), scores.shape[1]
    predicted = scores.softmax(dim=1)  # (N, 21, H, W)
    hits = predicted.gather(1, numbers[:, None])[:, 0] * known  # (N, H, W)
    intersection = torch.zeros(classes, device=scores.device).index_add(0, numbers.flatten(), hits.flatten())  # (21,)
    size = torch.bincount(labels[known], minlength=classes)
    union = torch.einsum("nchw,nhw->c", predicted, known.to(predicted.dtype)) + size - intersection
    present = size > 0
    return ((1 - intersection / union.clamp(min=1.0)) * present).sum() / present.sum().clamp(min=1)


def presence_loss(presence: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy: which classes are in each picture? presence: logits `(N, 21)` (arXiv 1803.08904, 3.2)."""
    numbers = labels.flatten(1)  # (N, H * W)
    there = torch.zeros(len(labels), VOID + 1, device=labels.device).scatter_(1, numbers, 1.0)[:, : presence.shape[1]]
    return F.binary_cross_entropy_with_logits(presence, there)


def picture_loss(picture: Tensor, labels: Tensor, colors: Tensor) -> Tensor:
    """Mean absolute error of a palette picture `(N, 3, H, W)` in [0, 1]."""
    known = (labels != VOID)[:, None]
    difference = (picture - true_picture(labels, colors)).abs() * known
    return difference.sum() / (3 * known.sum()).clamp(min=1)


def true_picture(labels: Tensor, colors: Tensor) -> Tensor:
    """The palette picture of labels, `(N, 3, H, W)` in [0, 1]; void is painted as background. colors: `(21, 3)`."""
    return colors[labels.where(labels != VOID, 0)].permute(0, 3, 1, 2)


def balanced_weights(counts: np.ndarray, balance: float) -> Tensor:
    """The say of each class: the root of its rarity, between 1 and `balance`. counts: pixels, `(pictures, 21)`."""
    pixels = counts.sum(axis=0)
    weights = np.sqrt(pixels.max() / pixels.clip(min=1)).clip(1, balance)
    return torch.tensor(weights, dtype=torch.float32)


def one_cycle(step: int, total: int) -> float:
    """Factor of the learning rate: up from 0 in a twentieth of the run, then down to 0 along a cosine."""
    rising = max(1, total // 20)
    if step < rising:
        return (step + 1) / rising
    return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(1, total - rising))


# --- Training ----------------------------------------------------------------------------------------


class Training:
    """Networks, optimisers and averages of one run, and the step that changes them.

    weights: the say of each class, `(21,)`; all the same by default. span: names the parts of a step for whoever
    measures them.
    """

    def __init__(
        self,
        recipe: SegmentationRecipe,
        total_steps: int,
        device: torch.device,
        weights: Tensor | None = None,
        compiled: str | None = None,
    ):
        torch.manual_seed(recipe.seed)
        self.recipe, self.total_steps, self.device = recipe, total_steps, device
        self.weights = (torch.ones(len(VOC)) if weights is None else weights).to(device)
        self.step, self.span = 0, plain_span
        self.generator = SegmentationGenerator(recipe.generator).to(device, memory_format=torch.channels_last)
        self.discriminator = PaletteDiscriminator(recipe.discriminator).to(device, memory_format=torch.channels_last)
        self.ema = EMA(self.generator, recipe.ema)
        # Weight decay is for the weights of convolutions, not for norms and offsets.
        matrices = [p for p in self.generator.parameters() if p.ndim > 1]
        vectors = [p for p in self.generator.parameters() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer_g = torch.optim.AdamW(
            groups, recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=True
        )
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), recipe.learning_rate_d, betas=(recipe.beta1_d, recipe.beta2), fused=True
        )
        for network in (self.generator, self.discriminator):
            parallel.share_norms(network)
        if compiled:
            scores = self.generator.scores_and_presence
            self.generator.scores_and_presence = torch.compile(scores, mode=compiled)
            self.discriminator.compile(mode=compiled)

    def train_step(self, photo: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One step on a batch: photo `(N, 3, H, W)` in [-1, 1], labels `(N, H, W)`, 255 where void."""
        recipe = self.recipe
        factor = one_cycle(self.step, self.total_steps) if recipe.schedule == "one_cycle" else 1.0
        for group in self.optimizer_g.param_groups:
            group["lr"] = recipe.learning_rate * factor
        parallel.own_dice(recipe.seed, self.step)

        with self.span("generator"), autocast(self.device, recipe.precision):
            scores, presence = self.generator.scores_and_presence(photo)
        if recipe.generator.block > 1:
            # Every second pixel, in turn the odd and the even ones: of neighbours, one says as much as four.
            labels = labels[:, self.step % 2 :: 2, self.step % 2 :: 2]
        scores = enlarge(scores, labels.shape[-2:])  # (N, 3 or 21, h, w), as labels (N, h, w)

        with self.span("losses of the classes"):
            losses, loss_g = self.supervised_losses(scores, presence, labels)
        if recipe.adversarial_weight and self.step >= recipe.adversarial_from * self.total_steps:
            fake, real = self.generator.paint(scores), true_picture(labels, self.generator.colors)
            known = (labels != VOID)[:, None]  # the discriminator must not tell them apart by their void
            losses["d"], losses["gan"] = self.adversarial_losses(fake * known, real * known)
            loss_g = loss_g + recipe.adversarial_weight * losses["gan"]
        descend(loss_g, self.optimizer_g, self.span, "generator")
        self.discriminator.requires_grad_(True)

        with self.span("moving average"):
            self.ema.update(self.generator, self.step)
        self.step += 1
        return parallel.mean_losses(losses)

    def supervised_losses(self, scores: Tensor, presence: Tensor | None, labels: Tensor) -> tuple[dict, Tensor]:
        """Each of them by name, and their weighed sum."""
        recipe, losses, total = self.recipe, {}, torch.zeros((), device=self.device)
        if recipe.mae_weight:
            losses["mae"] = picture_loss(self.generator.paint(scores), labels, self.generator.colors)
            total = total + recipe.mae_weight * losses["mae"]
        if recipe.class_weight:
            losses["classes"] = class_loss(scores, labels, self.weights, recipe.label_smoothing)
            total = total + recipe.class_weight * losses["classes"]
        if recipe.jaccard_weight:
            losses["jaccard"] = jaccard_loss(scores, labels)
            total = total + recipe.jaccard_weight * losses["jaccard"]
        if recipe.presence_weight and presence is not None:
            losses["presence"] = presence_loss(presence.float(), labels)
            total = total + recipe.presence_weight * losses["presence"]
        return losses, total

    def adversarial_losses(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Trains the discriminator on palette pictures. Returns its loss, and the generator's."""
        with self.span("discriminator"), autocast(self.device, self.recipe.precision):
            real_logits, fake_logits = self.discriminator(real), self.discriminator(fake.detach())
        loss_d = discriminator_loss(real_logits.float(), fake_logits.float(), "bce")
        descend(loss_d, self.optimizer_d, self.span, "discriminator")

        # Only the generator learns from what follows.
        self.discriminator.requires_grad_(False)
        with self.span("generator's loss"), autocast(self.device, self.recipe.precision):
            logits = self.discriminator(fake)
        return loss_d, generator_loss(logits.float(), "bce")

    @torch.no_grad()
    def validate(self, dataset: LabelledPhotos) -> dict[str, float]:
        """The validation phase: the averaged generator on photos it never learns from. Nothing is changed."""
        generator, matrix, errors = self.ema.module, torch.zeros(len(VOC), len(VOC), dtype=torch.long), []
        size = self.recipe.batch_size
        for first in range(0, len(dataset), size):
            items = [dataset[0, i] for i in range(first, min(first + size, len(dataset)))]
            photo, labels = (torch.stack(part).to(self.device) for part in zip(*items))
            with autocast(self.device, self.recipe.precision):
                scores = generator.scores(photo.to(memory_format=torch.channels_last))
            scores = enlarge(scores, labels.shape[-2:])
            errors.append(float(picture_loss(generator.paint(scores), labels, generator.colors)) * len(items))
            matrix += confusion(generator.probabilities(scores).argmax(dim=1).cpu(), labels.cpu())
        figures = segmentation_scores(matrix)
        return {"mae": sum(errors) / len(dataset), "miou": figures["miou"], "accuracy": figures["accuracy"]}

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


@torch.inference_mode()
def sample_grid(generator: SegmentationGenerator, photos: Tensor, labels: Tensor) -> Image.Image:
    """Rows of photo, palette picture as it is painted, its classes, and what is true; eight photos wide."""
    painted, decoded = [], []
    for photo in photos.split(4):
        scores = enlarge(generator.scores(photo), photo.shape[-2:])
        painted += to_pictures(generator.paint(scores) * 2 - 1)
        decoded += [VOC.to_picture(classes.cpu().numpy()) for classes in generator.probabilities(scores).argmax(dim=1)]
    truth = [VOC.to_picture(classes.numpy()) for classes in labels]
    return side_by_side(to_pictures(photos), painted, decoded, truth)


def fixed_photos(held_out: LabelledPhotos, count: int = 16) -> tuple[Tensor, Tensor]:
    """The held-out photos of the sample grid and their labels."""
    photos, labels = zip(*(held_out[0, i] for i in evenly(len(held_out), count)))
    return torch.stack(photos), torch.stack(labels)


def validation_folder(run: RunFolder) -> RunFolder:
    """RUN/validation: `log.jsonl` and `losses.png`, as for the steps."""
    (run.path / "validation").mkdir(exist_ok=True)
    return RunFolder(run.path / "validation")


def train(
    data: Path,
    recipe: SegmentationRecipe,
    run: RunFolder,
    *,
    resume: bool = False,
    init: Path | None = None,
    stop_at: int | None = None,
    sample_every: int = 500,
    save_every: int = 500,
    workers: int = 1,
    device: str | torch.device = "cpu",
    tensorboard: bool = False,
    compile: str | None = None,
    profile: Profile | None = None,
) -> Training:
    """Trains to the end, or up to step `stop_at`. Returns the training as it stands then."""
    device = open_device(device)
    dataset, held_out = (open_dataset(data, split, recipe) for split in ("train", "val"))
    steps_per_epoch = EpochBatches(len(dataset), recipe.batch_size).steps_per_epoch
    total = recipe.epochs * steps_per_epoch
    weights = balanced_weights(dataset.counts, recipe.balance) if recipe.balance > 1 else None
    training = Training(recipe, total, device, weights, compile)
    span = training.span = profile.span if profile else plain_span
    end = set_off(training, run, TASK, total, resume=resume, init=init, stop_at=stop_at)
    if training.step >= end:
        return training
    if parallel.first():
        validation = validation_folder(run)
        run.trim_log(training.step)
        validation.trim_log(training.step)
        held_out.check()  # now rather than after an epoch
        photos, truth = fixed_photos(held_out)
    log = LossLog(run, training.step, end, recipe.batch_size, tensorboard)
    if profile:
        profile.time_items(dataset, recipe.batch_size)

    order = recipe.batch_size, recipe.seed, training.step, end
    with closing(batches(dataset, *order, workers, device, span)) as feed:
        for photo, labels in feed:
            losses = training.train_step(photo, labels)
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
            if step % (recipe.validate_every * steps_per_epoch) == 0 or step == end:
                with span("validation", recipe.validate_every * steps_per_epoch):
                    figures = {name: round(value, 5) for name, value in training.validate(held_out).items()}
                    validation.log([{"step": step} | figures])
                    tqdm.write(f"step {step}, epoch {step // steps_per_epoch}: validation {figures}")
                    log.scalars("validation", figures, step)
            if step % sample_every == 0 or step == end:
                with span("samples", sample_every):
                    grid = sample_grid(training.ema.module, photos.to(device), truth)
                    run.save_sample(grid, step)
                    log.picture(grid, step)
            if saving:
                with span("saving", save_every):
                    run.plot_losses()
                    if (validation.path / "log.jsonl").exists():
                        validation.plot_losses()
                    facts = training_facts(recipe, step, len(dataset), log.images_per_second(), init)
                    networks = {"generator": training.ema.module, "discriminator": training.discriminator}
                    checkpoint.save(run.path / f"{TASK}.safetensors", TASK, networks, facts)
                    run.save_state(training.state_dict())
            if leaving:
                log.leave()
    log.close()
    return training


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.pix2pix segmentation", description=__doc__.split("\n\n")[0]
    )
    add_run_options(
        parser,
        SegmentationRecipe,
        ("paper", "best"),
        sample_every=500,
        workers=1,
        workers_help="processes that read pictures and vary them",
    )
    options = parser.parse_args(arguments)
    with open_run(options, TASK, PRESETS[options.preset]) as (run, recipe, loop):
        train(options.data, recipe, run, **loop)


if __name__ == "__main__":
    main()
