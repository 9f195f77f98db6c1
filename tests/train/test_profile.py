import time

import pytest
import torch
from torch.utils.data import Dataset

from train.profile import TRACED, WAITING, WARM_UP, Profile, plain_span

CPU = torch.device("cpu")


class Slow(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, key: tuple[int, int]) -> int:
        time.sleep(0.001)
        return key[1]


def go(profile: Profile, steps: int) -> str:
    profile.time_items(Slow(), batch_size=4)
    for _ in range(steps):
        with profile.span(WAITING):
            pass
        with profile.span("generator"):
            torch.randn(64, 64) @ torch.randn(64, 64)
    with profile.span("saving", 500):
        time.sleep(0.002)
    return profile.report()


def test_the_table_names_every_part_and_its_shares_make_a_whole(tmp_path):
    profile = Profile(5, CPU, tmp_path / "trace.json")
    report = go(profile, profile.total_steps)
    assert profile.total_steps == WARM_UP + 5 + TRACED
    lines = report.splitlines()
    assert lines[0].startswith("5 steps of 4 pictures on cpu: ")
    shares = {line[:44].strip(): float(line.split()[-1][:-1]) for line in lines[2:6]}
    assert list(shares)[:3] == [WAITING, "generator", "the rest"]
    assert sum(shares.values()) == pytest.approx(100, abs=0.3)
    assert "every 500 steps" in lines[5] and "a second a core" in lines[6]
    assert "aten::mm" in report
    assert '"generator"' in (tmp_path / "trace.json").read_text()


def test_warm_up_and_traced_steps_are_not_measured(monkeypatch):
    profile = Profile(2, CPU)
    clock = iter(range(10**6))
    monkeypatch.setattr(profile, "_now", lambda: float(next(clock)))
    go(profile, profile.total_steps)
    assert profile.seconds == {WAITING: 2.0, "generator": 2.0}, "one tick each in two steps"


def test_a_run_that_is_too_short_says_so():
    assert go(Profile(20, CPU), 5) == "Nothing was measured: the run has fewer than 25 steps. Give more --epochs."


def test_an_ordinary_run_only_names_its_parts():
    with plain_span("generator"), plain_span("saving", 500):
        pass
