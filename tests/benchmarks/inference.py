"""How much quicker than plain PyTorch is a picture, and how near to what the processor can do?

python -m tests.benchmarks.inference
ONEDNN_MAX_CPU_ISA=AVX2 python -m tests.benchmarks.inference --old

Plain PyTorch is the network as people know it: eager, float32, contiguous, batch 1. The floor is the time that its
multiplications alone would take at the rate of a large matrix product; ours needs fewer (gan_core/doubling.py). All are
timed in turn, in one run.
"""

import argparse
import copy
import functools
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter, checkpoint
from gan_core.doubling import DoubledConv
from gan_core.facades import random_facade
from gan_core.lineart import random_doodle
from gan_core.predictor import compile_on_cpu, has_bfloat16, ready
from gan_core.segmentation import SegmentationConfig, SegmentationGenerator
from gan_core.tasks import TASKS
from gan_core.unet import UNetConfig, UNetGenerator
from gan_core.vae_gan import VAE, VAEConfig

CHECKPOINTS = Path("assets/checkpoints")
CPU = torch.device("cpu")


def shipped(task: str, network: str, kind: type[nn.Module], config: type) -> nn.Module:
    return checkpoint.load(CHECKPOINTS / f"{task}.safetensors", task).build(network, kind, config)


def pix2pix(generator: UNetGenerator, task: str) -> tuple[nn.Module, Tensor, Callable]:
    """The plain network, its input, and what we run in its place, as the app prepares it."""
    predictor = Pix2PixPredictor(generator, TASKS[task])
    draw = random_doodle if task == "sketch2face" else random_facade
    predictor.accelerate([draw(seed) for seed in range(16)])
    source = torch.rand(1, generator.config.in_channels, 256, 256) * 2 - 1
    return by_definition(generator), source, predictor._generate


def systems() -> dict[str, tuple[nn.Module, Tensor, Callable]]:
    vae = shipped("vaegan", "vae", VAE, VAEConfig)
    mixer = FaceMixer(vae)
    mixer.accelerate()
    photos = shipped("segmentation", "generator", SegmentationGenerator, SegmentationConfig)
    segmenter = Segmenter(photos)
    return {
        "sketch2face, full width": pix2pix(UNetGenerator(UNetConfig(in_channels=1)).eval(), "sketch2face"),
        "sketch2face, shipped": pix2pix(shipped("sketch2face", "generator", UNetGenerator, UNetConfig), "sketch2face"),
        "facades, shipped": pix2pix(shipped("facades", "generator", UNetGenerator, UNetConfig), "facades"),
        "segmentation, shipped": (photos, torch.rand(1, 3, 224, 224) * 2 - 1, by_pytorch(segmenter.generator)),
        "vaegan, decoder": (by_definition(vae.decoder), torch.randn(1, vae.config.latent), mixer._decode),
    }


def by_definition(network: nn.Module) -> nn.Module:
    """A copy that doubles first and then convolves, by torch's own layers."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, DoubledConv):
            module.forward = module.of_doubled
    return network


def by_pytorch(network: nn.Module) -> Callable:
    """A network that is `ready`, with its input as the predictors hand it over."""
    dtype = next(network.parameters()).dtype
    return lambda x: network(x.to(dtype).contiguous(memory_format=torch.channels_last))


def multiply_adds(network: nn.Module, x: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops() / 2


def matrix_rate(dtype: torch.dtype, side: int = 2048) -> float:
    """Multiply-adds a second of a product of two square matrices, the best of several."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    return side**3 / min(seconds(lambda: a @ b) for _ in range(8))


def seconds(function: Callable) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def compare(plain: nn.Module, ours: Callable, x: Tensor, rounds: int) -> tuple[float, float]:
    """Median seconds of both; they take turns, so that what else the machine does hits both alike."""
    spent = [], []
    for _ in range(2 + rounds):
        for function, times in zip((plain, ours), spent):
            time.sleep(0.02)  # until the threads of the other have gone to sleep
            times.append(seconds(functools.partial(function, x)))
    return tuple(float(np.median(times[2:])) for times in spent)  # the first calls prepare much


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--old", action="store_true", help="as if there were neither bfloat16 units nor VNNI")
    options = parser.parse_args(arguments)
    rounds = options.rounds
    if options.old:
        for unit in ("avx512_bf16", "amx_tile", "vnni"):
            setattr(torch.cpu, f"_is_{unit}_supported", lambda: False)
    dtype = torch.bfloat16 if has_bfloat16(CPU) else torch.float32
    threads = torch.get_num_threads()
    with torch.inference_mode():
        rate = matrix_rate(dtype)
        print(f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}")
        print(f"{str(dtype).removeprefix('torch.')}: {rate / 1e9:.0f} G multiply-adds a second in a matrix product")
        print("\n| one picture | G multiply-adds | plain PyTorch | ours | ratio | floor |\n|---|---|---|---|---|---|")
        everything = systems()
        for name, (network, x, ours) in everything.items():
            work = multiply_adds(network, x)
            plain, own = compare(network, ours, x, rounds)
            print(
                f"| {name} | {work / 1e9:.2f} | {plain * 1e3:.0f} ms | {own * 1e3:.1f} ms | {plain / own:.1f} "
                f"| {work / rate * 1e3:.1f} ms |"
            )
        print("\n| sketch2face, shipped, at once | plain PyTorch, a picture | ours, a picture |\n|---|---|---|")
        network, x, ours = everything["sketch2face, shipped"]
        for count in (1, 2, 4, 8):
            batch = x.expand(count, -1, -1, -1).contiguous()
            plain, own = compare(network, ours, batch, max(3, rounds // count))
            print(f"| {count} | {plain / count * 1e3:.0f} ms | {own / count * 1e3:.1f} ms |")
        print("\n| sketch2face, full width, by size | plain PyTorch | ours |\n|---|---|---|")
        for side in (128, 256, 512):
            network = UNetGenerator(UNetConfig(in_channels=1, depth=7 if side == 128 else 8)).eval()
            x = torch.rand(1, 1, side, side) * 2 - 1
            quick = ready(network, CPU, dtype)
            ours = compile_on_cpu(quick, x, torch.rand(8, 1, side, side) * 2 - 1) or by_pytorch(quick)
            plain, own = compare(network, ours, x, max(3, rounds // 3))
            print(f"| {side}x{side} | {plain * 1e3:.0f} ms | {own * 1e3:.0f} ms |")


if __name__ == "__main__":
    main()
