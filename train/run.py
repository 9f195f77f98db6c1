"""What every training run needs besides its step: a folder, a log, EMA weights, exact resume, a command line."""

import argparse
import copy
import dataclasses
import json
import os
import time
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from gan_core.checkpoint import CheckpointError
from gan_core.image import PictureError
from gan_core.predictor import has_bfloat16
from train.data import DataError, EpochBatches, list_pictures

STATE = "state.pt"
CLOCK = ("step", "seconds")  # of a record in the log; what else it holds are losses
PRECISIONS = ("auto", "bfloat16", "float32")

Config = typing.TypeVar("Config")  # the config dataclass of any task


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
        names = list(dict.fromkeys(name for record in records for name in record if name not in CLOCK))
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


class LossLog:
    """The losses of a run on their way to its log, its progress bar and, if wanted, TensorBoard.

    step: where the run stands, end: where it will stop.
    """

    def __init__(self, run: RunFolder, step: int, end: int, batch_size: int, tensorboard: bool = False):
        self.run, self.batch_size, self.images = run, batch_size, 0
        self.unlogged: list[dict] = []
        self.writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(run.path / "tensorboard")
        self.progress = tqdm(total=end * batch_size, initial=step * batch_size, unit="image", smoothing=0.05)
        self.started = time.perf_counter()

    def add(self, step: int, losses: dict[str, Tensor | float]) -> None:
        """Keeps the losses of a step where they are; `flush` reads them in bulk, so that a GPU need not wait."""
        self.unlogged.append({"step": step, "seconds": round(time.perf_counter() - self.started, 1)} | losses)
        self.images += self.batch_size
        self.progress.update(self.batch_size)

    def flush(self) -> list[dict]:
        """Logs the steps added since the last time; returns them as numbers. Raises RunError for NaN or infinity."""
        records, self.unlogged = [as_numbers(record) for record in self.unlogged], []
        self.run.log(records)
        if bad := next((record for record in records if not all(map(np.isfinite, record.values()))), None):
            raise RunError(
                f"the losses at step {bad['step']} are {bad}. The last good state is in {self.run.path}; "
                "resume it with lower --learning-rate and --learning-rate-d, or with --precision float32."
            )
        if records:
            last = {name: value for name, value in records[-1].items() if name not in CLOCK}
            self.progress.set_postfix(last, refresh=False)
            self.scalars("loss", last, records[-1]["step"])
        return records

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """For TensorBoard, as `group/name`."""
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, picture: Image.Image, step: int) -> None:
        """For TensorBoard."""
        if self.writer:
            self.writer.add_image("samples", np.asarray(picture), step, dataformats="HWC")

    def images_per_second(self) -> float:
        """Since the run was started or resumed."""
        return round(self.images / (time.perf_counter() - self.started), 2)

    def close(self) -> None:
        self.progress.close()
        if self.writer:
            self.writer.close()


def as_numbers(record: dict) -> dict[str, float]:
    return {name: round(float(x), 5) if isinstance(x, (Tensor, float)) else x for name, x in record.items()}


def fit_weights(networks: dict[str, nn.Module], weights: dict[str, dict[str, Tensor]]) -> str:
    """Takes over the weights of a checkpoint that fit, for fine-tuning. Returns what was taken, in words."""
    counts = []
    for name, network in networks.items():
        own = network.state_dict()
        fitting = {
            key: value for key, value in weights.get(name, {}).items() if key in own and own[key].shape == value.shape
        }
        network.load_state_dict(own | fitting)
        counts.append(f"{len(fitting)} of {len(own)} tensors of the {name}")
    return " and ".join(counts)


def pack_state(parts: dict[str, nn.Module | Optimizer], device: torch.device, **numbers: float) -> dict:
    """All that an exact resume needs: the parts of a training, its numbers, and the dice."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= numbers | {"rng": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state(device)
    return state


def unpack_state(parts: dict[str, nn.Module | Optimizer], device: torch.device, state: dict) -> None:
    """Puts the parts and the dice back to where `pack_state` found them; the numbers are the caller's."""
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["rng"])
    if "cuda_rng" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"], device)


def training_facts(config: Config, step: int, pictures: int, images_per_second: float, init: Path | None) -> dict:
    """What a checkpoint tells about its training. init: the checkpoint that it started from, if any."""
    return {
        "recipe": dataclasses.asdict(config),
        "steps": step,
        "images": step * config.batch_size,
        "images_per_second": images_per_second,
        "data": f"{pictures} pictures",
        "init": init and init.name,
    }


def linear_decay(step: int, total: int) -> float:
    """Factor of the learning rate: 1 in the first half, then down to 0 (pix2pix code, "lr_policy linear")."""
    return min(1.0, 2.0 * (1.0 - step / total))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """precision: one of PRECISIONS; "auto" is bfloat16 where the device is fast at it."""
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


# --- Command line ------------------------------------------------------------------------------------


def add_run_options(
    parser: argparse.ArgumentParser,
    config: type,
    presets: Sequence[str],
    *,
    sample_every: int,
    workers: int,
    workers_help: str,
    stop_at_help: str = "stop here; the rate still decays towards --epochs",
) -> None:
    """The options that all trainings have, and one for each plain field of `config`."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/ and val/")
    parser.add_argument("--preset", default="best", choices=presets)
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: the next number under runs/)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run, exactly")
    parser.add_argument("--init", type=Path, metavar="FILE", help="fine-tune: start from the weights of a checkpoint")
    parser.add_argument("--stop-at", type=int, metavar="STEP", help=stop_at_help)
    parser.add_argument("--sample-every", type=int, default=sample_every, metavar="STEPS")
    parser.add_argument("--save-every", type=int, default=500, metavar="STEPS")
    parser.add_argument("--workers", type=int, default=workers, help=workers_help)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--tensorboard", action="store_true", help="log to RUN/tensorboard too (pip install tensorboard)"
    )
    add_options(parser.add_argument_group("recipe (overrides the preset)"), config)


@contextmanager
def open_run(options: argparse.Namespace, task: str, preset: Config) -> Iterator[tuple[RunFolder, Config, dict]]:
    """What a training command works on: `with open_run(...) as (run, config, loop)`.

    run: a new folder, or the one to resume. config: that of the preset or of the resumed run, where no option says
    otherwise. loop: keyword arguments of `train`. An error in the block ends the command with a message.
    """
    overrides = given_options(options, type(preset))
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
            if earlier["task"] != task:
                raise RunError(f"{options.resume} is a run of {earlier['task']}, not of {task}.")
            config = choose_config(preset, earlier["config"], overrides)
            loop["init"] = Path(earlier["init"]) if earlier.get("init") else None
            run.write_options(earlier | {"config": dataclasses.asdict(config)})
        else:
            config = choose_config(preset, None, overrides)
            init = str(options.init) if options.init else None
            started = {"task": task, "init": init, "config": dataclasses.asdict(config)}
            run = RunFolder.create(options.out, task, started)
        print(f"Run folder: {run.path}")
        yield run, config, loop | {"resume": bool(options.resume)}
    except (CheckpointError, DataError, PictureError, RunError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(f"Interrupted. Go on with --resume {run.path}" if run else "Interrupted.") from None
    print(f"Done. See it in the app: python app.py --checkpoints {run.path}")


def choose_config(preset: Config, earlier: dict | None, overrides: dict) -> Config:
    """The preset, or the config of an earlier run, where no override says otherwise.

    Raises RunError if the config refuses a value.
    """
    try:
        if earlier is None:
            return dataclasses.replace(preset, **overrides)
        return preset.from_dict(earlier | overrides)
    except ValueError as error:
        raise RunError(str(error)) from error


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """For the `__post_init__` of a config. Raises ValueError if the value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


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
