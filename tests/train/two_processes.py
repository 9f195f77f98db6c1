"""What `test_parallel` starts under torchrun: training commands with tiny networks, one after the other.

    torchrun --nproc-per-node 2 tests/train/two_processes.py FOLDER

FOLDER/data holds pairs, FOLDER/small photos and FOLDER/one a run of one process to go on with. Each process leaves
the state of each training in FOLDER, the names of the files that it has written, and how the last one ended.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from gan_core.patchgan import PatchGANConfig
from gan_core.unet import UNetConfig
from gan_core.vae_gan import DiscriminatorConfig, VAEConfig
from train import parallel, pix2pix, vae_gan
from train.run import RunFolder

UNET = UNetConfig(
    in_channels=1, base_channels=4, depth=5, norm="batch", upsampling="mixed", refine_channels=4, dropout=0.0
)
PIX2PIX = replace(
    pix2pix.PRESETS["sketch2face"]["best"],
    generator=UNET,
    discriminator=PatchGANConfig(source_channels=1, base_channels=4),
    epochs=2,
    batch_size=4,
    precision="float32",
)
VAEGAN = replace(
    vae_gan.PRESETS["best"],
    vae=VAEConfig(latent=8, widths=(4, 4, 8, 8, 8), residual=1, upsampling="mixed", refine_channels=4),
    discriminator=DiscriminatorConfig(trunk="patch", widths=(4, 8, 8, 8)),
    epochs=3,
    batch_size=4,
    gan_start=0.0,
    judged=0.0,
    clusters=2,
    precision="float32",
)


def without_dice(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """In place of `draw_latents`: noise is another one in each process."""
    return mean + (log_variance / 2).exp()


def stopping(train_step):
    """A step after which the process gets a signal."""

    def step(*arguments):
        losses = train_step(*arguments)
        signal.raise_signal(signal.SIGTERM)
        return losses

    return step


def run(folder: Path) -> None:
    rank, written, states = int(os.environ["RANK"]), [], {}

    def watch(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            written.append(str(arguments[0]))
        if event == "os.rename":  # of what torch and safetensors have written, which no hook sees
            written.append(str(arguments[1]))

    def keep(train):
        def training(*arguments, **options):
            trained = train(*arguments, **options)
            states[arguments[-1].path.name] = trained.state_dict()
            return trained

        return training

    sys.addaudithook(watch)
    RunFolder.plot_losses = lambda self: None  # takes longer than all steps
    pix2pix.PRESETS["sketch2face"]["best"], vae_gan.PRESETS["best"] = PIX2PIX, VAEGAN
    pix2pix.train, vae_gan.train, vae_gan.draw_latents = keep(pix2pix.train), keep(vae_gan.train), without_dice
    common = ["--workers", "0", "--device", "cpu", "--save-every", "100"]
    faces = ["sketch2face", "--data", str(folder / "data"), *common]
    with parallel.joined(torch.device("cpu")):
        pix2pix.main([*faces, "--out", str(folder / "two"), "--stop-at", "2"])
        pix2pix.main([*faces, "--resume", str(folder / "one")])
        pix2pix.main([*faces, "--out", str(folder / "parts"), "--accumulate", "2", "--stop-at", "1"])
        vae_gan.main(["--data", str(folder / "small"), *common, "--out", str(folder / "mixed"), "--stop-at", "2"])
        if rank == 1:
            pix2pix.Training.train_step = stopping(pix2pix.Training.train_step)
        try:
            pix2pix.main([*faces, "--out", str(folder / "stopped")])
        except SystemExit as stopped:
            end = stopped.code
    torch.save(states, folder / f"states-{rank}.pt")
    (folder / f"written-{rank}.json").write_text(json.dumps(written))
    (folder / f"end-{rank}.json").write_text(json.dumps(end))


if __name__ == "__main__":
    run(Path(sys.argv[1]))
