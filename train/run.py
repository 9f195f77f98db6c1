"""What every training run needs besides its step: a folder, a log, EMA weights, exact resume, a command line.

docs/reliability.md says what a run survives, and how that was tried.
"""

import argparse
import copy
import ctypes
import dataclasses
import json
import os
import shlex
import shutil
import signal
import threading
import time
import typing
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from gan_core import checkpoint
from gan_core.checkpoint import CheckpointError, find_broken
from gan_core.files import whole, write
from gan_core.image import PictureError
from gan_core.predictor import has_bfloat16
from train import parallel
from train.data import DataError, EpochBatches, StandIns, collate, list_pictures
from train.lock import FolderInUse, locked
from train.profile import WAITING, Profile, Span, plain_span
from train.shards import TASKS as STREAMED
from train.shards import ShardBatches, Shards, Stream, is_sharded, place

STATE, EARLIER = "state.pt", "state.previous.pt"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
CLOCK = ("step", "seconds")  # of a record in the log; what else it holds are losses
PRECISIONS = ("auto", "bfloat16", "float32")
PASSING = (  # options that a run does not write down
    "stop_at",
    "sample_every",
    "save_every",
    "workers",
    "device",
    "tensorboard",
    "accumulate",
    "compile",
)
IN_PARTS = ("sketch2face", "facades")  # tasks with --accumulate: no loss of theirs is one of the whole batch
RECORDED = ("sketch2face", "facades")  # tasks with --compile graph: their step does the same each time

Config = typing.TypeVar("Config")  # the config dataclass of any task


class RunError(RuntimeError):
    """The run cannot start or go on; the message says why and what to do."""


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved."""


class RunFolder:
    """What one training leaves behind.

    `options.json`, `log.jsonl`, `losses.png`, `samples/`, `state.pt` and the one before it (for resume),
    `<task>.safetensors` (for the app). saved: step of the last state that was saved or read. asked_to_stop: the name
    of the signal, if there was one.
    """

    def __init__(self, path: Path):
        self.path = path
        self.saved: int | None = None
        self.asked_to_stop: str | None = None

    @classmethod
    def create(cls, path: Path, task: str, options: dict) -> "RunFolder":
        """In a new folder, or one that holds no run yet. options: what `options.json` says beside the task."""
        if any((path / name).exists() for name in ("log.jsonl", STATE, EARLIER)):
            raise RunError(f"{path} holds a run already. Go on with it by --resume {path}, or choose another --out.")
        (path / "samples").mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run.write_options({"task": task} | options)
        return run

    @classmethod
    def open(cls, path: Path) -> tuple["RunFolder", dict]:
        """The folder of an earlier run and its options."""
        if not (path / "options.json").is_file():
            raise RunError(f"{path} holds no run: options.json is missing.")
        try:
            return cls(path), json.loads((path / "options.json").read_text())
        except ValueError as error:
            raise RunError(
                f"{path / 'options.json'} is damaged ({error}). Copy that of a run with the same recipe there."
            ) from error

    def write_options(self, options: dict) -> None:
        write(self.path / "options.json", (json.dumps(options, indent=2) + "\n").encode(), sync=True)

    def log(self, records: list[dict]) -> None:
        with open(self.path / "log.jsonl", "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
            file.flush()
            os.fsync(file.fileno())

    def read_log(self) -> list[dict]:
        """Without the line that was cut short when a run was killed."""
        file, records = self.path / "log.jsonl", []
        for line in file.read_text(errors="replace").splitlines() if file.is_file() else []:
            with suppress(json.JSONDecodeError):
                records.append(json.loads(line))
        return [record for record in records if isinstance(record, dict) and "step" in record]

    def plot_losses(self) -> None:
        """Each logged number over the steps, faintly, and its mean over the last hundredth of them."""
        from matplotlib.figure import Figure

        records = self.read_log()
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
        with whole(self.path / "losses.png", sync=False) as partial:
            figure.savefig(partial, dpi=100, format="png")

    def trim_log(self, step: int) -> None:
        """Drops what an interrupted run logged after its last saved state."""
        if (self.path / "log.jsonl").is_file():
            lines = [json.dumps(record) + "\n" for record in self.read_log() if record["step"] <= step]
            write(self.path / "log.jsonl", "".join(lines).encode(), sync=True)

    def save_sample(self, picture: Image.Image, step: int) -> None:
        with whole(self.path / "samples" / f"{step:07d}.jpg", sync=False) as partial:
            picture.save(partial, format="JPEG", quality=92)

    def save_state(self, state: dict) -> None:
        """Last of all that is saved: what a state belongs to is there once it is. The state before it is kept.

        Raises RunError if something in it is not finite, OSError if it cannot be written; the last one stays then.
        """
        self.check_finite(state)
        try:
            with whole(self.path / STATE, keep=self.path / EARLIER) as partial:
                torch.save(state, partial)
        except (OSError, RuntimeError) as error:  # torch tells a full disk by a RuntimeError
            free = shutil.disk_usage(self.path).free / 1e6
            raise OSError(
                f"the state after step {state['step']} cannot be written to {self.path}, where {free:,.0f} MB are free "
                f"({error})"
            ) from error
        self.saved = state["step"]

    def check_finite(self, state: dict) -> None:
        """Raises RunError if a tensor in a state, or in some parts of one and its `step`, is not finite."""
        if broken := find_broken(dict(tensors(state))):
            raise RunError(
                f"after step {state['step']} {broken} is not finite, and was not saved. {self.last_good()}; "
                "resume it with lower --learning-rate and --learning-rate-d, or with --precision float32."
            )

    def load_state(self) -> dict | None:
        """The last state that is whole; None if none was saved yet. Says what is lost, and goes on from there.

        Raises RunError if there is none that is whole.
        """
        logged = max((record["step"] for record in self.read_log()), default=0)
        files = [file for file in (self.path / STATE, self.path / EARLIER) if file.is_file()]
        for file in files:
            try:
                state = read_state(file)
            except Exception as error:  # whatever a damaged file makes two libraries raise
                print(f"warning: {file} is damaged ({error}).")
                continue
            self.saved = state["step"]
            if file.name == EARLIER:  # or the next save would put the damaged one, or nothing, in the place of this one
                os.replace(file, self.path / STATE)
            lost = f"; {logged - self.saved} later steps are lost and done again" if logged > self.saved else ""
            print(f"Going on after step {self.saved}{lost}.")
            return state
        if files:
            raise RunError(
                f"no state in {self.path} can be read any more: its {logged} steps cannot be gone on with. "
                "Start a new run; with --init and the .safetensors file of this one it begins with its weights."
            )
        lost = f" and the {logged} steps before it are lost" if logged else ""
        print(f"{self.path} was stopped before its first save{lost}: it starts from the beginning.")
        return None

    def last_good(self) -> str:
        if self.saved is not None:
            return f"The last good state, after step {self.saved}, is in {self.path}"
        if any((self.path / name).is_file() for name in (STATE, EARLIER)):  # not read yet
            return f"The last good state is in {self.path}"
        return f"No state was saved in {self.path} yet"


def read_state(file: Path) -> dict:
    """The file is one's own, yet nothing in it is ever executed. Raises anything if it is damaged."""
    with zipfile.ZipFile(file) as archive:  # torch does not look at the checksums
        if damaged := archive.testzip():
            raise RunError(f"{damaged} has changed since it was written")
    return torch.load(file, map_location="cpu", weights_only=True)


def tensors(state: dict, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in dictionaries of dictionaries, each with its way: "optimizer.state.0.exp_avg"."""
    for key, value in state.items():
        if isinstance(value, dict):
            yield from tensors(value, f"{name}{key}.")
        elif isinstance(value, Tensor):
            yield f"{name}{key}", value


def next_folder(task: str) -> Path:
    """The next number under runs/, made at once so that nobody else takes it."""
    runs = Path("runs")
    ends = [path.name.rpartition("-")[2] for path in runs.glob(f"{task}-[0-9]*")]
    number = max((int(end) for end in ends if end.isdigit()), default=0)
    while True:
        number += 1
        with suppress(FileExistsError):
            (runs / f"{task}-{number:03d}").mkdir(parents=True)
            return runs / f"{task}-{number:03d}"


@contextmanager
def heeded_signals(run: RunFolder) -> Iterator[None]:
    """The signals that end a process set `run.asked_to_stop`, at which the loop saves and leaves.

    What is ignored stays so, as SIGHUP is under nohup. A second Ctrl+C ends the run at once, unless it comes so soon
    that it is the first one, passed on by a wrapper.
    """
    asked_at, speaks = 0.0, parallel.first()

    def ask(number: int, _) -> None:
        nonlocal asked_at
        if run.asked_to_stop is None:
            run.asked_to_stop, asked_at = signal.Signals(number).name, time.monotonic()
            with suppress(OSError):  # not print: a signal may come in the middle of one
                if speaks:
                    os.write(2, f"\n{run.asked_to_stop}: finishing the step and saving the state.\n".encode())
        elif number == signal.SIGINT and time.monotonic() - asked_at > 1:
            raise KeyboardInterrupt

    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGINT", "SIGHUP")]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may
    before = {n: signal.getsignal(n) for n in numbers if n is not None and signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        pairs = list(zip(self.module.state_dict().values(), module.state_dict().values()))
        averages, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()))
        get_ema_multi_avg_fn(decay)(averages, values, None)  # one call for all tensors
        for count, value in pairs:
            if not count.is_floating_point():
                count.copy_(value)


class LossLog:
    """The losses of a run on their way to its log, its progress bar and, if wanted, TensorBoard.

    Of several processes, only the first one has any. step: where the run stands, end: where it will stop.
    """

    def __init__(self, run: RunFolder, step: int, end: int, batch_size: int, tensorboard: bool = False):
        self.run, self.end, self.batch_size, self.images = run, end, batch_size, 0
        self.unlogged: list[dict] = []
        self.writer = None
        if tensorboard and parallel.first():
            from torch.utils.tensorboard import SummaryWriter

            # What an interrupted run wrote after its last save is hidden.
            self.writer = SummaryWriter(run.path / "tensorboard", purge_step=step + 1 if step else None)
        total, begun = end * batch_size, step * batch_size
        self.progress = tqdm(total=total, initial=begun, unit="image", smoothing=0.05, disable=not parallel.first())
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
                f"the losses at step {bad['step']} are {bad}. {self.run.last_good()}; "
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

    def leaving(self, step: int) -> bool:
        """Whether any process was told to stop by a signal: then this step is saved, and the last one.

        For all processes after each step; when it was the last one anyway, there is nothing to leave.
        """
        return step < self.end and parallel.anybody(self.run.asked_to_stop is not None)

    def leave(self) -> None:
        """Raises Stopped in all processes, once the first one has saved."""
        self.close()
        parallel.wait()  # once one process has left, the launcher would end the others
        raise Stopped(f"Stopped by {self.run.asked_to_stop or 'a signal to another process'}.")

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
    """Puts the parts and the dice back to where `pack_state` found them; the numbers are the caller's.

    Raises RunError if the state belongs to other networks.
    """
    try:
        for name, part in parts.items():
            if isinstance(part, Optimizer):
                load_moments(part, state[name])
            else:
                part.load_state_dict(state[name])
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip(".\t ")  # torch lists all tensors, one a line
        raise RunError(
            f"the state does not fit the {name}: {reason}. It was saved by another version of the code; use that one."
        ) from error
    torch.set_rng_state(state["rng"])
    if "cuda_rng" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"], device)


def load_moments(optimizer: Optimizer, state: dict) -> None:
    """The state of an optimiser, but with the settings that it has now, and in the memory format of its parameters.

    The fused Adam reads memory as it lies: in another format, a weight would get the moments of another one.
    """
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, now in zip(optimizer.param_groups, settings):
        group.update(now)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


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
    """For the networks' parts of a step."""
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16(device, precision))


def in_bfloat16(device: torch.device, precision: str) -> bool:
    """precision: one of PRECISIONS; "auto" is bfloat16 where the device is fast at it."""
    return precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """The one in which convolutions of 4x4 are fastest: channels last, but for a CPU in float32."""
    plain = device.type == "cpu" and not in_bfloat16(device, precision)
    return torch.contiguous_format if plain else torch.channels_last


def descend(loss: Tensor, optimizer: Optimizer, span: Span, name: str) -> None:
    """One step of a network's optimiser down the gradient of its loss, the mean over all processes.

    name: of the network, for whoever measures the spans.
    """
    optimizer.zero_grad(set_to_none=True)
    with span(f"{name}, backward"):
        loss.backward()
    with span(f"{name}, optimizer"):
        parallel.average_gradients(parameter for group in optimizer.param_groups for parameter in group["params"])
        optimizer.step()


def find_device(name: str) -> torch.device:
    """The one of this process. Raises RunError if it cannot be used."""
    try:
        device = parallel.own_device(name)
        torch.zeros(1, device=device)
        return device
    except (AssertionError, RuntimeError) as error:  # torch raises either
        reason = str(error).splitlines()[0].rstrip(".")
        raise RunError(f"--device {name} cannot be used here: {reason}. Choose another one, such as cpu.") from error


def open_device(device: str | torch.device) -> torch.device:
    """Lets a GPU choose its fastest convolutions for the one size that a run has, and multiply in TF32.

    On a CPU, memory that a step frees is kept for the next one: handed back and taken again, the kernel clears each
    page anew, which is a fifth of the time of the published pair.
    """
    device = torch.device(device)
    if device.type == "cpu":
        with suppress(AttributeError, OSError, TypeError):  # glibc alone has it
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    return device


def batches(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    step: int,
    end: int,
    workers: int,
    device: torch.device,
    span: Span = plain_span,
) -> Iterator[list[Tensor]]:
    """Batches from `step` up to `end`, on the device; pictures as channels-last tensors.

    Of several processes, each gets its part of every batch. A picture that cannot be read is named, and another one
    stands in for it. To be closed, or the workers live as long as the traceback of an error in the loop.
    """
    order = (
        partial(ShardBatches, dataset.shards) if isinstance(dataset, Stream) else partial(EpochBatches, len(dataset))
    )
    loader = DataLoader(
        StandIns(dataset),
        batch_sampler=order(batch_size, seed, step, (parallel.rank(), parallel.count())),
        num_workers=workers,
        worker_init_fn=prepare_worker,
        collate_fn=collate,
        # A forked worker would inherit the locks of OpenCV's thread pool, and hang.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
        # Its own dice: the loader throws them once when it starts, and a resumed run starts it again.
        generator=torch.Generator(),
    )
    feed, named = iter(loader), set()
    try:
        for _ in range(step, end):
            with span(WAITING):
                batch, troubles = next(feed)
                name_troubles(troubles, named)
                batch = [x.to(device, non_blocking=True) for x in batch]
                batch = [x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in batch]
            yield batch
    finally:
        del feed  # and its workers, which heed no signal


def name_troubles(troubles: list, named: set[str]) -> None:
    """What `collate` found: warns of each picture once, and raises the DataError, if there is one."""
    for trouble in troubles:
        if isinstance(trouble, DataError):
            raise trouble
        if trouble not in named:
            tqdm.write(f"warning: {trouble} Another picture stands in for it.")
            named.add(trouble)


def prepare_worker(worker: int) -> None:
    """One thread. A signal to all processes of a run is for the main one, which still wants a batch, to heed."""
    import cv2

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
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
    count = at_least(1)
    parser.add_argument(
        "--data",
        type=place,
        required=True,
        metavar="DIR",
        help="folder with train/ and val/, or shards (docs/scale.md)",
    )
    parser.add_argument("--preset", default="best", choices=presets)
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: the next number under runs/)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run, exactly")
    parser.add_argument("--init", type=Path, metavar="FILE", help="fine-tune: start from the weights of a checkpoint")
    parser.add_argument("--stop-at", type=count, metavar="STEP", help=stop_at_help)
    parser.add_argument("--sample-every", type=count, default=sample_every, metavar="STEPS")
    parser.add_argument("--save-every", type=count, default=500, metavar="STEPS")
    parser.add_argument("--workers", type=at_least(0), default=workers, help=workers_help)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--tensorboard", action="store_true", help="log to RUN/tensorboard too (pip install tensorboard)"
    )
    scale = parser.add_argument_group("speed and size (docs/scale.md; no part of the recipe)")
    scale.add_argument(
        "--accumulate", type=count, default=1, metavar="N", help="see each batch in N parts, to need less memory"
    )
    scale.add_argument(
        "--compile",
        nargs="?",
        const="default",
        choices=("default", "reduce-overhead", "max-autotune-no-cudagraphs", "graph"),
        metavar="MODE",
        help="let torch.compile make the networks faster, after some minutes; MODE is one of its own, or graph: "
        "record the whole step as one CUDA graph instead, in seconds (sketch2face and facades, one GPU)",
    )
    scale.add_argument(
        "--profile",
        nargs="?",
        type=count,
        const=20,
        metavar="STEPS",
        help="train so many steps (default: 20), keep nothing, and print where the time goes",
    )
    scale.add_argument("--trace", type=Path, metavar="FILE", help="with --profile: write a trace of two steps too")
    add_options(parser.add_argument_group("recipe (overrides the preset)"), config)
    parser.set_defaults(usual={name: parser.get_default(name) for name in PASSING})


def at_least(least: int) -> Callable[[str], int]:
    """For the `type` of an option."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return whole_number


@contextmanager
def open_run(options: argparse.Namespace, task: str, preset: Config) -> Iterator[tuple[RunFolder, Config, dict]]:
    """What a training command works on: `with open_run(...) as (run, config, loop)`.

    run: a new folder, or the one to resume. config: that of the preset or of the resumed run, where no option says
    otherwise. loop: keyword arguments of `train`. An error in the block ends the command with a message, and so does
    a signal, once the step is finished and the state saved. No other process gets into the folder meanwhile.
    """
    loop = {name: getattr(options, name) for name in ("init", *PASSING)}
    run = None
    try:
        if task not in IN_PARTS and loop.pop("accumulate") > 1:
            raise RunError(f"{task} has losses of the whole batch, and so no --accumulate. Leave it out.")
        if task not in RECORDED and options.compile == "graph":
            raise RunError(
                f"the steps of {task} are not all alike, and so it has no --compile graph, as {' and '.join(RECORDED)} "
                "have. Leave it out, or give another MODE."
            )
        if options.profile and (options.resume or options.out):
            raise RunError("--profile keeps nothing; leave out --out and --resume.")
        if options.trace and not options.profile:
            raise RunError("--trace is written by --profile; give both.")
        with ExitStack() as stack:
            device = find_device(options.device)
            stack.enter_context(parallel.joined(device))
            if options.compile == "graph":
                check_graph(device, options.accumulate)
            profile = None
            if options.profile:
                profile = Profile(options.profile, device, options.trace if parallel.first() else None)
                scratch = stack.enter_context(TemporaryDirectory())
                options.out, loop["stop_at"] = Path(scratch) / "run", profile.total_steps
            run, config, init = parallel.from_first(lambda: begin(options, task, preset, stack))
            stack.enter_context(heeded_signals(run))
            parallel.say(f"Run folder: {run.path}")
            loop |= {"resume": bool(options.resume), "init": init, "device": device, "profile": profile}
            yield run, config, loop
            done = f"Done. See it in the app: python app.py --model {task}={run.path / task}.safetensors"
            parallel.say("\n" + profile.report() if profile else done)
    except (CheckpointError, DataError, FolderInUse, PictureError, RunError) as error:
        raise SystemExit(f"error: {error}") from error
    except OSError as error:
        raise SystemExit(f"error: {error}. {how_to_go_on(run, options, task)}") from error
    except (KeyboardInterrupt, Stopped) as end:
        words = f"{str(end) or 'Interrupted.'} {how_to_go_on(run, options, task)}".strip()
        raise SystemExit(words if parallel.first() else 1) from None


def begin(
    options: argparse.Namespace, task: str, preset: Config, stack: ExitStack
) -> tuple[RunFolder, Config, Path | None]:
    """The folder of a new run or of the one to resume, its config, and the checkpoint that it started from.

    The folder stays locked until the stack is closed.
    """
    overrides, pictures = given_options(options, type(preset)), count_pictures(options.data, task)
    if options.resume:
        run, earlier = RunFolder.open(options.resume)
        if earlier["task"] != task:
            raise RunError(f"{options.resume} is a run of {earlier['task']}, not of {task}.")
        if options.out and options.out.resolve() != run.path.resolve():
            raise RunError(f"--resume goes on in {run.path} itself. Leave out --out {options.out}.")
        if options.init and str(options.init) != earlier.get("init"):
            raise RunError(
                f"--resume goes on from what {run.path} has learnt. Leave out --init {options.init}; or, to start from "
                "its weights, leave out --resume."
            )
        config = choose_config(preset, earlier["config"], overrides)
        check_parts(config.batch_size, options.accumulate)
        stack.enter_context(locked(run.path))
        if earlier.get("pictures", pictures) != pictures:
            print(
                f"warning: the run began with {earlier['pictures']} training pictures, and now there are "
                f"{pictures}: it goes on, but not as if it had never stopped."
            )
        run.write_options(earlier | {"config": dataclasses.asdict(config), "pictures": pictures})
        return run, config, Path(earlier["init"]) if earlier.get("init") else None
    config = choose_config(preset, None, overrides)
    check_parts(config.batch_size, options.accumulate)
    init = str(options.init) if options.init else None
    started = {"init": init, "config": dataclasses.asdict(config), "pictures": pictures}
    out = options.out or next_folder(task)
    stack.enter_context(locked(out))
    return RunFolder.create(out, task, started), config, options.init


def count_pictures(data: Path | str, task: str) -> int:
    """To train on. Raises DataError if there are none, or the task does not take them in this form."""
    if not is_sharded(data):
        list_pictures(data / "val")
        folder = data / "train"
        if task == "segmentation":
            folder /= "photos"
        elif task != "vaegan" and (folder / "source").is_dir():
            folder /= "target"
        return len(list_pictures(folder))
    if task not in STREAMED:
        raise DataError(f"{task} is trained on a folder of files; shards are for {' and '.join(STREAMED)}.")
    return len(Shards(data, "train"))


def check_parts(batch_size: int, accumulate: int) -> None:
    """Raises RunError unless a batch can be dealt to all processes, in so many equal parts each."""
    if batch_size % (parallel.count() * accumulate):
        raise RunError(
            f"a batch of {batch_size} pictures cannot be dealt to {parallel.count()} process(es) in {accumulate} equal "
            f"part(s) each. Choose another --batch-size (that of all together), number of processes or --accumulate."
        )


def check_graph(device: torch.device, accumulate: int) -> None:
    """Raises RunError unless a step can be one CUDA graph."""
    if accumulate > 1:
        raise RunError("--compile graph takes each batch as a whole. Leave out --accumulate, or give another MODE.")
    if device.type != "cuda":
        raise RunError(
            f"--compile graph is for a GPU, and the device is {device}. Give --device cuda or another MODE, or leave "
            "it out."
        )
    if parallel.count() > 1:
        raise RunError(
            f"--compile graph is for one process, and there are {parallel.count()}. Start a single one or give another "
            "MODE, or leave it out."
        )


def how_to_go_on(run: RunFolder | None, options: argparse.Namespace, task: str) -> str:
    """In a sentence with a command that has all that no folder remembers; empty if there is no run that is kept."""
    if run is None and options.resume:  # it could not even be opened
        run = RunFolder(options.resume)
    if run is None or options.profile:
        return ""
    command = ["python", "-m", *(["train.vae_gan"] if task == "vaegan" else ["train.pix2pix", task])]
    command += ["--data", str(options.data), "--resume", str(run.path)]
    for name, usual in options.usual.items():
        if (value := getattr(options, name)) != usual:
            command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return f"{run.last_good()}; go on with: {shlex.join(command)}"


def set_off(
    training, run: RunFolder, task: str, total: int, *, resume: bool, init: Path | None, stop_at: int | None
) -> int:
    """Brings a fresh training to where it begins: where the run stopped, or at the weights of a checkpoint.

    Returns the step at which it shall end; says so if it is there already.
    """
    if state := parallel.from_first(run.load_state) if resume else None:
        training.load_state_dict(state)
    elif init:
        loaded = parallel.from_first(lambda: checkpoint.load(init, task))
        parallel.say(f"Starting from {init}: {training.start_from(loaded)}.")
    end = min(total, stop_at or total)
    if training.step >= total:
        parallel.say(f"{run.path} has finished its {total} steps already. Give more --epochs to train on.")
    elif training.step >= end:
        parallel.say(f"{run.path} is after step {training.step} of {total} already. Give a later --stop-at, or none.")
    return end


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


def check_least(config: object, **least: float) -> None:
    """As `check_choice`, for numbers: check_least(config, epochs=1)."""
    for name, value in least.items():
        if getattr(config, name) < value:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least {value}")


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
