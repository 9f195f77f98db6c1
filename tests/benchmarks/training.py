"""How fast does training go, against plain PyTorch?   python -m tests.benchmarks.training

The step of the published pair, 54.4 M and 2.8 M parameters, on pictures of 256x256, and line-art pairs a second.
"Plain" is the step as the original repositories have it: eager, float32, contiguous, Adam not fused. All take turns in
one run, so that a busy machine is unfair to none; ratios count, not seconds. Prints figures; asserts nothing.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from statistics import median

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_core.image import open_picture
from gan_core.lineart import SIZE, draw_like_a_hand
from gan_core.patchgan import PatchDiscriminator, PatchGANConfig
from gan_core.predictor import has_bfloat16
from gan_core.unet import UNetConfig, UNetGenerator
from train.data import augment
from train.graph import WARM_UP
from train.pix2pix import PRESETS, Training
from train.run import open_device

PHOTO = "assets/examples/segmentation/2_astronaut.jpg"


class Plain:
    """The step of junyanz/pytorch-CycleGAN-and-pix2pix, `Pix2PixModel.optimize_parameters`, in its words."""

    def __init__(self, device: torch.device):
        torch.manual_seed(0)
        self.net_g = UNetGenerator(UNetConfig()).to(device)
        self.net_d = PatchDiscriminator(PatchGANConfig()).to(device)
        adam = {"lr": 2e-4, "betas": (0.5, 0.999), "foreach": False, "fused": False}
        self.optimizer_g = torch.optim.Adam(self.net_g.parameters(), **adam)
        self.optimizer_d = torch.optim.Adam(self.net_d.parameters(), **adam)

    def train_step(self, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
        fake_b = self.net_g(real_a)
        self.net_d.requires_grad_(True)
        self.optimizer_d.zero_grad()
        loss_d = 0.5 * (judge(self.net_d(real_a, fake_b.detach()), 0.0) + judge(self.net_d(real_a, real_b), 1.0))
        loss_d.backward()
        self.optimizer_d.step()
        self.net_d.requires_grad_(False)
        self.optimizer_g.zero_grad()
        l1 = F.l1_loss(fake_b, real_b)
        (judge(self.net_d(real_a, fake_b), 1.0) + 100.0 * l1).backward()
        self.optimizer_g.step()
        return {"d": loss_d.detach(), "l1": l1.detach()}


def judge(logits: Tensor, truth: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


def race(steps: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Seconds of one step each, the median of so many rounds in which all have their turn."""

    def timed(step: Callable[[], object]) -> float:
        begin = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    for step in steps.values():  # warm-up, which compiles, or records a graph
        for _ in range(WARM_UP if device.type == "cuda" else 1):
            timed(step)
    seconds = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(timed(step))
    return {name: median(times) for name, times in seconds.items()}


def race_of_steps(batch: int, rounds: int, device: torch.device, compiled: str, best: bool) -> None:
    """Same networks and, but for the order of sums, same losses; then our recipe of half the channels, if wanted."""
    rng = torch.Generator().manual_seed(0)
    source, target = (torch.rand(batch, 3, SIZE, SIZE, generator=rng).to(device) * 2 - 1 for _ in range(2))
    last = [x.to(memory_format=torch.channels_last) for x in (source, target)]
    paper = PRESETS["sketch2face"]["paper"]
    plain, ours = Plain(device), Training(paper, 10**6, device)
    folded = Training(replace(paper, generator=replace(paper.generator, norm="batch")), 10**6, device)
    steps = {
        "plain PyTorch, batch 1": lambda: plain.train_step(source[:1], target[:1]),
        f"plain PyTorch, batch {batch}": lambda: plain.train_step(source, target),
        f"ours, batch {batch}": lambda: ours.train_step(*last),
        f"ours, batch norm in the generator, batch {batch}": lambda: folded.train_step(*last),
    }
    if compiled:
        fast = Training(paper, 10**6, device, compiled=compiled)
        steps[f"ours, --compile {compiled}, batch {batch}"] = lambda: fast.train_step(*last)
    small = {}
    if best:
        drawing, photo = last[0][:, :1].contiguous(), last[1]
        for mode in ("", compiled) if compiled else ("",):
            training = Training(PRESETS["sketch2face"]["best"], 10**6, device, compiled=mode)
            small[f"best{mode and f', --compile {mode}'}, batch {batch}"] = partial(training.train_step, drawing, photo)
    seconds = race(steps | small, rounds, device)
    rates = {name: (1 if name.endswith("batch 1") else batch) / s for name, s in seconds.items()}
    pair = {name: rate for name, rate in rates.items() if name not in small}
    print_rates("training step of the published pair", pair, f"plain PyTorch, batch {batch}")
    if best:
        print_rates("training step of the preset best", {name: rates[name] for name in small}, f"best, batch {batch}")


def print_rates(title: str, rates: dict[str, float], reference: str) -> None:
    print(f"{title:52s}{'pictures/s':>11s}{'ratio':>8s}")
    for name, rate in rates.items():
        print(f"{name:52s}{rate:11.2f}{rate / rates[reference]:8.2f}")


def draw_pairs(seconds: float) -> float:
    """Line-art pairs a second that this process makes."""
    cv2.setNumThreads(1)
    photo = np.asarray(open_picture(PHOTO).resize((SIZE, SIZE)))
    for i in range(3):
        draw_like_a_hand(photo, np.random.default_rng(i))
    begin, made = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        rng = np.random.default_rng(made)
        varied, _ = augment(photo, None, rng, 0.72)
        draw_like_a_hand(varied, rng)
        made += 1
    return made / (time.perf_counter() - begin)


def line_art(processes: list[int], seconds: float) -> None:
    print(f"{'line-art pairs, 256x256':52s}{'pairs/s':>11s}{'a core':>8s}")
    for count in processes:
        with ProcessPoolExecutor(count, get_context("spawn")) as pool:
            rates = list(pool.map(draw_pairs, [seconds] * count))
        print(f"{f'{count} process(es)':52s}{sum(rates):11.1f}{sum(rates) / count:8.1f}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of line art for each number of processes")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument(
        "--compile", default="", metavar="MODE", help="measure a compiled step too, such as: default, graph"
    )
    parser.add_argument("--best", action="store_true", help="measure the preset best of sketch2face too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    device = open_device(options.device)
    floats = "bfloat16" if has_bfloat16(device) else "float32 (no bfloat16 units)"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{device}; ours trains in {floats}; load average {os.getloadavg()[0]:.1f}")
    race_of_steps(options.batch, options.rounds, device, options.compile, options.best)
    line_art(options.processes, options.seconds)


if __name__ == "__main__":
    main()
