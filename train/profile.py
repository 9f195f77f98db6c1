"""Where does the time of a training go? What `--profile` prints, and the trace that it can write."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.data import Dataset

from train.shards import Stream

WARM_UP, TRACED = 3, 2  # steps before what is measured, and after it under torch's profiler, which itself takes time
WAITING = "waiting for data"


class Span(Protocol):
    """`with span("backward"):` names a part of a step; every: it comes but once in so many steps."""

    def __call__(self, name: str, every: int = 1) -> AbstractContextManager: ...


def plain_span(name: str, every: int = 1) -> AbstractContextManager:
    """A name for whoever profiles from outside; costs microseconds."""
    return record_function(name)


class Profile:
    """Measures `steps` steps of a training by its spans, the first of which is WAITING.

    On a GPU each span waits until its work is done, or the clock would see the launches only; so the steps together
    take a little longer than they do otherwise. A step that is replayed as a CUDA graph is a single span.
    """

    def __init__(self, steps: int, device: torch.device, trace: Path | None = None):
        self.steps, self.device, self.trace = steps, device, trace
        self.seconds: dict[str, float] = defaultdict(float)  # of all measured steps together
        self.rare: dict[str, list[tuple[float, int]]] = defaultdict(list)  # seconds of one time, and how rare it is
        self.begun = 0
        self.started = self.elapsed = self.item_seconds = 0.0
        self.batch_size = 0
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        self.profiler, self.stopped = profile(activities=activities), False

    @property
    def total_steps(self) -> int:
        """How far the training must go."""
        return WARM_UP + self.steps + TRACED

    @contextmanager
    def span(self, name: str, every: int = 1) -> Iterator[None]:
        if name == WAITING:
            self._next_step()
        elif every > 1 and self.elapsed:
            self._stop()  # what comes rarely would drown the operations of a step
        begin = self._now()
        with record_function(name):
            yield
        seconds = self._now() - begin
        if every > 1:
            self.rare[name].append((seconds, every))
        elif self.started and not self.elapsed:
            self.seconds[name] += seconds

    def time_items(self, dataset: Dataset, batch_size: int, count: int = 8) -> None:
        """What making one item takes, line art and views included: workers do it beside the training."""
        self.batch_size = batch_size
        keys = [(0, i % len(dataset)) for i in range(count)]
        if isinstance(dataset, Stream):  # workers are given the rows
            keys = [(*key, row) for key, row in zip(keys, dataset.shards.first_rows(count))]
        begin = time.perf_counter()
        for key in keys:
            dataset[key]
        self.item_seconds = (time.perf_counter() - begin) / len(keys)

    def report(self) -> str:
        """The table; writes the trace if there shall be one."""
        if not self.elapsed:
            return f"Nothing was measured: the run has fewer than {self.total_steps} steps. Give more --epochs."
        self._stop()
        per_step = {name: seconds / self.steps for name, seconds in self.seconds.items()}
        step = self.elapsed / self.steps
        per_step["the rest"] = step - sum(per_step.values())
        for name, times in self.rare.items():
            seconds, every = sum(seconds for seconds, _ in times) / len(times), times[0][1]
            per_step[f"{name} ({seconds:.2f} s, every {every} steps)"] = seconds / every
        total = sum(per_step.values())
        lines = [
            f"{self.steps} steps of {self.batch_size} pictures on {self.device}: {1000 * step:.1f} ms a step, "
            f"{self.batch_size / total:.2f} pictures a second with all that is below.",
            f"{'part of a step':44s}{'ms':>10s}{'share':>9s}",
        ]
        lines += [f"{name:44s}{1000 * s:10.1f}{s / total:9.1%}" for name, s in per_step.items()]
        lines.append(
            f"Making a picture (decoding, line art, views), which workers do: {1000 * self.item_seconds:.1f} ms, "
            f"{1 / self.item_seconds:.0f} a second a core."
        )
        order = "self_device_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        lines.append(f"\nThe dearest operations of {TRACED} steps:")
        lines.append(self.profiler.key_averages().table(order, row_limit=10, max_name_column_width=44))
        if self.trace:
            self.profiler.export_chrome_trace(str(self.trace))
            lines.append(f"Trace: {self.trace}; open it at ui.perfetto.dev or in chrome://tracing.")
        return "\n".join(lines)

    def _next_step(self) -> None:
        if self.begun == WARM_UP:
            self.started = self._now()
        if self.begun == WARM_UP + self.steps:
            self.elapsed = self._now() - self.started
            self.profiler.start()
        self.begun += 1

    def _stop(self) -> None:
        if not self.stopped:
            self.profiler.stop()
            self.stopped = True

    def _now(self) -> float:
        if self.device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
