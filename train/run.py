"""What every training run needs besides its step: a folder, a log, EMA weights, exact resume, a command line."""

import argparse
import copy
import dataclasses
import json
import os
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from gan_core.predictor import has_bfloat16
from train.data import EpochBatches

STATE = "state.pt"


class RunError(RuntimeError):
    """The run cannot start or go on; the message says why and what to do."""


class RunFolder:
    """What one training leaves behind.

    `options.json`, `log.jsonl`, `losses.png`, `samples/`, `state.pt` (for resume), `<task>.safetensors` (for the app).
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: Path | None, task: str, options: dict) -> "RunFolder":
        """A new folder: the given one, or the next number under runs/. Never one that holds a run already."""
        if path is None:
            runs = Path("runs")
            taken = [
                int(p.name.rpartition("-")[2])
                for p in runs.glob(f"{task}-[0-9]*")
                if p.name.rpartition("-")[2].isdigit()
            ]
            path = runs / f"{task}-{max(taken, default=0) + 1:03d}"
        if (path / "log.jsonl").exists() or (path / STATE).exists():
            raise RunError(f"{path} holds a run already. Go on with it by --resume {path}, or choose another --out.")
        (path / "samples").mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run.write_options(options)
        return run

    @classmethod
    def open(cls, path: Path) -> tuple["RunFolder", dict]:
        """The folder of an earlier run and its options."""
        if not (path / "options.json").is_file():
            raise RunError(f"{path} holds no run: options.json is missing.")
        return cls(path), json.loads((path / "options.json").read_text())

    def write_options(self, options: dict) -> None:
        (self.path / "options.json").write_text(json.dumps(options, indent=2) + "\n")

    def log(self, records: list[dict]) -> None:
        with open(self.path / "log.jsonl", "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    def plot_losses(self) -> None:
        """Each logged number over the steps, faintly, and its mean over the last hundredth of them."""
        from matplotlib.figure import Figure

        records = [json.loads(line) for line in (self.path / "log.jsonl").read_text().splitlines()]
        # A run that is resumed with another recipe may log other losses than before.
        names = list(dict.fromkeys(name for record in records for name in record if name not in ("step", "seconds")))
        figure = Figure(figsize=(10, 2.2 * len(names)), layout="constrained")
        for name, axes in zip(names, figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]):
            logged = [record for record in records if name in record]
            steps, values = (np.array([record[key] for record in logged]) for key in ("step", name))
            window = max(1, len(values) // 100)
            axes.plot(steps, values, color="tab:blue", alpha=0.25, linewidth=0.5)
            axes.plot(steps[window - 1 :], np.convolve(values, np.ones(window) / window, "valid"), color="tab:blue")
            axes.set_ylabel(name)
            axes.grid(alpha=0.3)
        axes.set_xlabel("step")
        figure.savefig(self.path / "losses.png", dpi=100)

    def trim_log(self, step: int) -> None:
        """Drops what an interrupted run logged after its last saved state."""
        file = self.path / "log.jsonl"
        if file.is_file():
            lines = [
                line
                for line in file.read_text().splitlines()
                if line.endswith("}") and json.loads(line)["step"] <= step
            ]
            file.write_text("".join(line + "\n" for line in lines))

    def save_sample(self, picture: Image.Image, step: int) -> None:
        picture.save(self.path / "samples" / f"{step:07d}.jpg", quality=92)

    def save_state(self, state: dict) -> None:
        partial = self.path / (STATE + ".partial")
        torch.save(state, partial)
        os.replace(partial, self.path / STATE)

    def load_state(self) -> dict:
        if not (self.path / STATE).is_file():
            raise RunError(
                f"{self.path} holds no {STATE}: the run was stopped before its first save. "
                "Delete the folder and start anew."
            )
        return torch.load(self.path / STATE, map_location="cpu", weights_only=True)


class EMA:
    """Exponential moving average of a network's weights and running statistics, in `self.module`.

    The average warms up, as min(decay, (1 + step) / (10 + step)), so that early samples are of use.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, value in zip(self.module.state_dict().values(), module.state_dict().values()):
            if value.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)


def linear_decay(step: int, total: int) -> float:
    """Factor of the learning rate: 1 in the first half, then down to 0 (pix2pix code, "lr_policy linear")."""
    return min(1.0, 2.0 * (1.0 - step / total))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """precision: "auto", "bfloat16" or "float32"."""
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def batches(
    dataset: Dataset, batch_size: int, seed: int, step: int, workers: int, device: torch.device
) -> Iterator[list[Tensor]]:
    """Batches from `step` on, for ever, on the device; pictures as channels-last tensors."""
    loader = DataLoader(
        dataset,
        batch_sampler=EpochBatches(len(dataset), batch_size, seed, step),
        num_workers=workers,
        worker_init_fn=one_thread,
        # A forked worker would inherit the locks of OpenCV's thread pool, and hang.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
        # Its own dice: the loader throws them once when it starts, and a resumed run starts it again.
        generator=torch.Generator(),
    )
    for batch in loader:
        batch = [x.to(device, non_blocking=True) for x in batch]
        yield [x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in batch]


def one_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


# --- Command line from a config dataclass -----------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, config: type) -> None:
    """One `--option` for each plain field of a config dataclass; what is not given stays as the preset has it."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        name, kind = "--" + field.name.replace("_", "-"), hints[field.name]
        if kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=None)
        elif kind in (int, float, str):
            parser.add_argument(name, type=kind, metavar=kind.__name__.upper())


def given_options(options: argparse.Namespace, config: type) -> dict:
    names = {field.name for field in dataclasses.fields(config)}
    return {name: value for name, value in vars(options).items() if name in names and value is not None}
