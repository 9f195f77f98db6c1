"""Trains the VAE-GAN.

    python -m train.vae_gan --data data/anime [--preset best] [--out RUN] [--resume RUN]

Kingma, Welling: Auto-Encoding Variational Bayes (arXiv 1312.6114). Larsen et al.: Autoencoding beyond pixels using a
learned similarity metric (arXiv 1512.09300).
"""

import argparse
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gan_core import checkpoint
from gan_core.image import tile, to_pictures
from gan_core.latent import mix
from gan_core.losses import (
    ADVERSARIAL,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_divergence,
    structural_similarity,
)
from gan_core.mixer import TASK
from gan_core.vae_gan import VAE, Discriminator, DiscriminatorConfig, VAEConfig, draw_latents
from train import parallel
from train.data import EpochBatches, evenly
from train.mixture import fit_latent_space
from train.pictures import PicturesInMemory
from train.profile import Profile, plain_span
from train.run import (
    EMA,
    PRECISIONS,
    LossLog,
    RunError,
    RunFolder,
    add_run_options,
    autocast,
    batches,
    check_choice,
    check_least,
    descend,
    fit_weights,
    linear_decay,
    open_device,
    open_run,
    pack_state,
    set_off,
    training_facts,
    unpack_state,
)

ACTIVE = 0.01  # variance of a unit's mean over the pictures, above which the unit says something (Burda et al. 2016)
FITTED = 2000  # pictures that the latent space of an unfinished run is fitted to


@dataclass(frozen=True)
class VAEGANConfig:
    """Everything that decides what a run computes. The defaults are the published recipe.

    Its losses are means over their elements, as torch's are by default; so is the KL divergence over the 256 units.
    (Their sum would leave the latent a few nats, and all faces alike.)

    decay: let the learning rates fall to 0 over the second half, rather than stay.
    feature_weight: of the reconstruction in the discriminator's activations (Larsen et al., equation 7).
    ssim_weight: of 1 - SSIM. Between two equally wrong pictures it takes the one with the right contrast.
    free_bits: nats up to which a unit's divergence costs nothing (Kingma et al., arXiv 1606.04934, appendix C.8).
    kl_ramp: share of the run over which the divergence's weight grows from 0 (Bowman et al., arXiv 1511.06349).
    gan_start, gan_ramp: share of the run at which the discriminator joins, and over which its weight grows from 0.
    gate: share of right verdicts above which the discriminator is not trained until the generator has caught up.
    judged: pictures that the discriminator judges though they reconstruct nothing, for each picture of a batch: see
        free_latents.
    reflect: what rotation brings into the picture is its reflection; else black corners. rotation_chance: of a picture.
    patience: steps that a collapsed posterior, or a discriminator that has won, may last before it is reported;
        stop: and the run ended.
    """

    vae: VAEConfig = field(default_factory=VAEConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 2e-4
    learning_rate_d: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    decay: bool = False
    adversarial: str = "bce"
    gan_weight: float = 1.0
    l1_weight: float = 100.0
    bce_weight: float = 1.0
    ssim_weight: float = 0.0
    feature_weight: float = 0.0
    kl_weight: float = 1.0
    kl_ramp: float = 0.0
    free_bits: float = 0.0
    gan_start: float = 0.0
    gan_ramp: float = 0.0
    gate: float = 1.0
    judged: float = 0.0
    ema: float = 0.0
    rotation: float = 10.0
    rotation_chance: float = 1.0
    reflect: bool = False
    clusters: int = 16
    patience: int = 500
    stop: bool = False
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self):
        check_choice("adversarial", self.adversarial, ADVERSARIAL)
        check_choice("precision", self.precision, PRECISIONS)
        check_least(self, epochs=1, batch_size=2)  # units vary over a batch, or the posterior seems collapsed

    @classmethod
    def from_dict(cls, options: dict) -> "VAEGANConfig":
        networks = {
            "vae": VAEConfig(**options["vae"]),
            "discriminator": DiscriminatorConfig(**options["discriminator"]),
        }
        return cls(**options | networks)


PRESETS: dict[str, VAEGANConfig] = {
    "paper": VAEGANConfig(),
    # Residual blocks, and a last look at full size; a latent that may say much, at first for free; SSIM for contrast;
    # then a light discriminator by whose activations pictures are compared, and that judges samples and blends too.
    "best": VAEGANConfig(
        vae=VAEConfig(residual=1, upsampling="mixed", refine_channels=16),
        discriminator=DiscriminatorConfig(trunk="patch", widths=(64, 128, 256, 384)),
        epochs=28,
        batch_size=16,
        learning_rate=4e-4,
        decay=True,
        adversarial="hinge",
        gan_weight=1.0,
        l1_weight=50.0,
        bce_weight=0.0,
        ssim_weight=4.0,
        feature_weight=40.0,
        kl_weight=0.25,
        kl_ramp=0.1,
        free_bits=0.05,
        gan_start=0.2,
        gan_ramp=0.1,
        gate=0.9,
        judged=0.5,
        ema=0.0,  # an average is blurred: sharpness ratio 0.73 instead of 0.77
        rotation_chance=0.5,
        reflect=True,
        stop=True,
    ),
}


def open_dataset(data: Path, config: VAEGANConfig) -> PicturesInMemory:
    turning = {"rotation": config.rotation, "rotation_chance": config.rotation_chance, "reflect": config.reflect}
    return PicturesInMemory(data / "train", config.vae.size, config.seed, **turning, stand_ins=True)


class Training:
    """Networks, optimisers and averages of one run, and the step that changes them.

    lead: share of the discriminator's verdicts that were right, averaged over about fifty steps. span: names the parts
    of a step for whoever measures them.
    """

    def __init__(self, config: VAEGANConfig, total_steps: int, device: torch.device, compiled: str | None = None):
        torch.manual_seed(config.seed)
        self.config, self.total_steps, self.device = config, total_steps, device
        self.step, self.lead, self.span = 0, 0.5, plain_span
        self.vae = VAE(config.vae).to(device, memory_format=torch.channels_last)
        self.discriminator = Discriminator(config.discriminator).to(device, memory_format=torch.channels_last)
        self.ema = EMA(self.vae, config.ema)
        adam = {"betas": (config.beta1, config.beta2), "fused": True}
        self.optimizer = torch.optim.Adam(self.vae.parameters(), config.learning_rate, **adam)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), config.learning_rate_d, **adam)
        for network in (self.vae, self.discriminator):
            parallel.share_norms(network)
        if compiled:
            self.vae.encoder.compile(mode=compiled)
            self.vae.decoder.compile(mode=compiled)
            self.discriminator.features = torch.compile(self.discriminator.features, mode=compiled)

    def train_step(self, real: Tensor) -> dict[str, Tensor | float]:
        """One step on a batch `(N, 3, size, size)` in [0, 1]."""
        config = self.config
        decay = linear_decay(self.step, self.total_steps) if config.decay else 1.0
        self.optimizer.param_groups[0]["lr"] = config.learning_rate * decay
        self.optimizer_d.param_groups[0]["lr"] = config.learning_rate_d * decay
        kl_weight = config.kl_weight * self.progress(0.0, config.kl_ramp)
        adversary = self.progress(config.gan_start, config.gan_ramp)
        parallel.own_dice(config.seed, self.step)

        with self.span("encoder and decoder"), autocast(self.device, config.precision):
            mean, log_variance = self.vae.encoder(real)
            mean, log_variance = mean.float(), log_variance.float()
            latents = draw_latents(mean, log_variance)
            judged = latents
            if adversary and config.judged:
                judged = torch.cat([latents, free_latents(latents.detach(), round(config.judged * len(real)))])
            decoded = self.vae.decoder(judged)
        fake = decoded[: len(real)]

        # Reconstruct, with a latent that stays close to the prior.
        kl = kl_divergence(mean, log_variance)
        free = parallel.average(kl.detach()) < config.free_bits  # (D,): units that cost nothing
        losses = {"l1": (fake - real).abs().mean(), "kl": kl.mean()}
        loss = config.l1_weight * losses["l1"] + kl_weight * torch.where(free, config.free_bits, kl).mean()
        if config.bce_weight:
            losses["bce"] = F.binary_cross_entropy(fake, real)
            loss = loss + config.bce_weight * losses["bce"]
        if config.ssim_weight:
            losses["ssim"] = structural_similarity(fake, real)
            loss = loss + config.ssim_weight * (1 - losses["ssim"])

        # And be taken for real, also by the activations of who judges it.
        losses |= {"d": 0.0, "gan": 0.0, "features": 0.0}
        if adversary:
            losses["d"], real_features = self.discriminator_step(real, decoded.detach())
            self.discriminator.requires_grad_(False)
            with self.span("vae's losses"), autocast(self.device, config.precision):
                features = self.discriminator.features(decoded)
            losses["gan"] = generator_loss(features[-1].float(), config.adversarial)
            losses["features"] = feature_matching_loss(real_features[:-1], [x[: len(real)] for x in features[:-1]])
            self.discriminator.requires_grad_(True)
            loss = loss + adversary * config.gan_weight * losses["gan"]
            if config.feature_weight:
                loss = loss + adversary * config.feature_weight * losses["features"]
        descend(loss, self.optimizer, self.span, "vae")

        with self.span("moving average"):
            self.ema.update(self.vae, self.step)
        self.step += 1
        active = (parallel.gather(mean.detach()).var(dim=0) > ACTIVE).sum()
        return parallel.mean_losses(losses) | {"active": active, "lead": self.lead}

    def discriminator_step(self, real: Tensor, decoded: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Real pictures are real, decoded ones are not. Returns the loss, and the activations for the real ones."""
        config = self.config
        with self.span("discriminator"), autocast(self.device, config.precision):
            real_features = self.discriminator.features(real)
            fake_logits = self.discriminator(decoded).float()
        real_logits = real_features[-1].float()
        loss = 2 * discriminator_loss(real_logits, fake_logits, config.adversarial)  # the sum of both, not halved
        middle = 0.5 if config.adversarial == "least_squares" else 0.0
        right = (real_logits > middle).float().mean() + (fake_logits < middle).float().mean()
        self.lead = 0.98 * self.lead + 0.02 * float(parallel.average(right / 2))
        if self.lead <= config.gate:
            descend(loss, self.optimizer_d, self.span, "discriminator")
        return loss, [x.detach() for x in real_features]

    def progress(self, start: float, ramp: float) -> float:
        """0 up to `start`, 1 from `start + ramp` on, both shares of the run; linear in between."""
        done = self.step / self.total_steps - start
        return min(1.0, max(0.0, done / ramp)) if ramp else float(done >= 0)

    def start_from(self, loaded: checkpoint.Checkpoint) -> str:
        """Takes over the weights of a checkpoint that fit, for fine-tuning. Returns what was taken, in words."""
        taken = fit_weights({"vae": self.vae, "discriminator": self.discriminator}, loaded.weights)
        self.ema.module.load_state_dict(self.vae.state_dict())
        return taken

    def _parts(self) -> dict:
        return {
            "vae": self.vae,
            "discriminator": self.discriminator,
            "ema": self.ema.module,
            "optimizer": self.optimizer,
            "optimizer_d": self.optimizer_d,
        }

    def state_dict(self) -> dict:
        """All that an exact resume needs."""
        return pack_state(self._parts(), self.device, step=self.step, lead=self.lead)

    def load_state_dict(self, state: dict) -> None:
        unpack_state(self._parts(), self.device, state)
        self.step, self.lead = state["step"], state["lead"]


def free_latents(latents: Tensor, count: int) -> Tensor:
    """`(count, D)` latents of no picture, as people come to them: a third each from N(0, 1), as blends of three of the
    given `(N, D)`, and pulled towards their mean; what is over goes to the first ones.
    """
    blends, pulled = (count + 1) // 3, count // 3
    prior = torch.randn(count - blends - pulled, latents.shape[1], device=latents.device)
    mean = latents.mean(dim=0)
    three = torch.rand(blends, len(latents), device=latents.device).argsort(dim=1)[:, :3]  # (blends, 3)
    weights = torch.zeros(blends, len(latents), device=latents.device)
    weights = weights.scatter(1, three, torch.rand(three.shape, device=latents.device))
    chosen = latents[torch.randint(len(latents), (pulled,), device=latents.device)]
    shares = torch.rand(pulled, 1, device=latents.device)
    return torch.cat([prior, mix(latents, weights, mean), mean + shares * (chosen - mean)])


class Guards:
    """Watches the log for what no longer mends itself: each kind of trouble counts its steps in a row."""

    LEAD = 0.98  # share of right verdicts from which on the discriminator has won
    LEAST_ACTIVE = 0.05  # share of the latent's units below which the posterior has collapsed

    def __init__(self, config: VAEGANConfig):
        self.config = config
        self.steps = {"collapsed": 0, "won": 0}

    def check(self, records: list[dict]) -> list[str]:
        """What has just lasted for `patience` steps, in words with a remedy. Raises RunError if `config.stop`."""
        troubles = []
        for record in records:
            fires = {
                "collapsed": record["active"] < self.LEAST_ACTIVE * self.config.vae.latent,
                "won": record["lead"] > self.LEAD,
            }
            for name, fires_now in fires.items():
                self.steps[name] = self.steps[name] + 1 if fires_now else 0
                if self.steps[name] == self.config.patience:
                    troubles.append(self.describe(name, record))
        if troubles and self.config.stop:
            raise RunError(" ".join(troubles))
        return troubles

    def describe(self, name: str, record: dict) -> str:
        since = f"For {self.config.patience} steps, up to step {record['step']}, "
        if name == "collapsed":
            return since + (
                f"{record['active']:.0f} of the latent's {self.config.vae.latent} units have said anything: the "
                "posterior has collapsed. Start again with a lower --kl-weight, a longer --kl-ramp or more --free-bits."
            )
        return since + (
            f"the discriminator was right about {record['lead']:.0%} of the pictures: it has won, and the decoder "
            "learns nothing from it. Start again with a lower --learning-rate-d or --gate, or a later --gan-start."
        )


@torch.inference_mode()
def sample_grid(vae: VAE, held_out: Tensor, device: torch.device) -> Image.Image:
    """Eight columns: held-out pictures over their reconstructions, two rows of the prior, blends of neighbours."""
    rng = torch.Generator().manual_seed(0)
    prior = torch.randn(16, vae.config.latent, generator=rng)
    rows = []
    for real in held_out.split(8):
        latents = vae.encoder(real.to(device, memory_format=torch.channels_last))[0]
        rows += [real, vae.decoder(latents)]
    rows += [vae.decoder(prior.to(device)), vae.decoder((latents + latents.roll(1, 0)) / 2)]
    return tile(to_pictures(torch.cat([row.cpu() for row in rows]) * 2 - 1), 8)


@torch.inference_mode()
def encode_all(vae: VAE, dataset: PicturesInMemory, count: int, device: torch.device, precision: str) -> Tensor:
    """Means of the latents of `count` pictures, evenly chosen, as they are: `(count, D)`."""
    chosen = evenly(len(dataset), count)
    means = []
    for indices in np.array_split(chosen, max(1, len(chosen) // 64)):
        with autocast(device, precision):
            mean, _ = vae.encoder(dataset.plain(indices).to(device, memory_format=torch.channels_last))
        means.append(mean.float().cpu())
    return torch.cat(means)


def train(
    data: Path,
    config: VAEGANConfig,
    run: RunFolder,
    *,
    resume: bool = False,
    init: Path | None = None,
    stop_at: int | None = None,
    sample_every: int = 200,
    save_every: int = 500,
    workers: int = 0,
    device: str | torch.device = "cpu",
    tensorboard: bool = False,
    compile: str | None = None,
    profile: Profile | None = None,
) -> Training:
    """Trains to the end, or up to step `stop_at`. Returns the training as it stands then."""
    device = open_device(device)
    dataset = open_dataset(data, config)
    total = config.epochs * EpochBatches(len(dataset), config.batch_size).steps_per_epoch
    training, guards = Training(config, total, device, compile), Guards(config)
    span = training.span = profile.span if profile else plain_span
    end = set_off(training, run, TASK, total, resume=resume, init=init, stop_at=stop_at)
    if training.step >= end:
        return training
    if parallel.first():
        run.trim_log(training.step)
        val = PicturesInMemory(data / "val", config.vae.size)
        held_out = val.plain(np.linspace(0, len(val) - 1, 16).astype(int))  # repeated if there are fewer
    log = LossLog(run, training.step, end, config.batch_size, tensorboard)
    if profile:
        profile.time_items(dataset, config.batch_size)

    order = config.batch_size, config.seed, training.step, end
    with closing(batches(dataset, *order, workers, device, span)) as feed:
        for (real,) in feed:
            losses = training.train_step(real)
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
                    for trouble in guards.check(log.flush()):
                        print(f"\nwarning: {trouble}")
            if step % sample_every == 0 or step == end:
                with span("samples", sample_every):
                    grid = sample_grid(training.ema.module, held_out, device)
                    run.save_sample(grid, step)
                    log.picture(grid, step)
            if saving:
                with span("saving", save_every):
                    run.plot_losses()
                    facts = training_facts(config, step, len(dataset), log.images_per_second(), init)
                    run.check_finite({"step": step, "vae": training.ema.module.state_dict()})
                    count = len(dataset) if step == total else FITTED
                    codes = encode_all(training.ema.module, dataset, count, device, config.precision)
                    latents = fit_latent_space(codes, config.clusters)
                    networks = {"vae": training.ema.module, "discriminator": training.discriminator, "latents": latents}
                    checkpoint.save(run.path / f"{TASK}.safetensors", TASK, networks, facts)
                    run.save_state(training.state_dict())
            if leaving:
                log.leave()
    log.close()
    return training


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.vae_gan", description=__doc__.split("\n\n")[0]
    )
    add_run_options(
        parser,
        VAEGANConfig,
        sorted(PRESETS),
        sample_every=200,
        workers=0,
        workers_help="processes that turn pictures (0: it costs next to nothing)",
        stop_at_help="stop here; all schedules still run to --epochs",
    )
    options = parser.parse_args(arguments)
    with open_run(options, TASK, PRESETS[options.preset]) as (run, config, loop):
        train(options.data, config, run, **loop)


if __name__ == "__main__":
    main()
