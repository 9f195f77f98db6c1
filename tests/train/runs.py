"""What tests of training compare: the losses of runs, and states."""

import json
from pathlib import Path

import torch


def losses(run: Path) -> dict[int, dict]:
    """Step -> its losses, without the clock."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {record.pop("step"): {k: v for k, v in record.items() if k != "seconds"} for record in records}


def same(a, b) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
