import argparse
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from train.run import EMA, RunError, RunFolder, add_options, given_options, linear_decay


@pytest.mark.parametrize("step, factor", [(0, 1), (25, 1), (50, 1), (75, 0.5), (99, 0.02), (100, 0)])
def test_the_learning_rate_is_constant_for_half_of_the_run_and_falls_to_zero(step, factor):
    assert linear_decay(step, 100) == pytest.approx(factor)


def test_the_average_lies_between_the_old_weights_and_the_new():
    network = nn.BatchNorm1d(3)
    ema = EMA(network, decay=0.75)
    with torch.no_grad():
        network.weight.fill_(5.0)
        network.running_mean.fill_(4.0)
        network.num_batches_tracked.fill_(9)
    ema.update(network, step=10**6)
    assert torch.allclose(ema.module.weight, torch.full((3,), 2.0))  # 0.75 * 1 + 0.25 * 5
    assert torch.allclose(ema.module.running_mean, torch.ones(3))
    assert ema.module.num_batches_tracked == 9


def test_the_average_warms_up():
    network = nn.Linear(1, 1)
    ema = EMA(network, decay=0.999)
    with torch.no_grad():
        network.weight += 10.0
    before = ema.module.weight.item()
    ema.update(network, step=0)
    assert ema.module.weight.item() == pytest.approx(before + 9.0)  # decay 1 / 10


def test_an_average_without_decay_is_the_network_itself():
    network = nn.Linear(4, 4)
    ema = EMA(network, decay=0.0)
    nn.init.normal_(network.weight)
    ema.update(network, step=5)
    assert torch.equal(ema.module.weight, network.weight)
    assert ema.module.weight.data_ptr() != network.weight.data_ptr()
    assert not ema.module.weight.requires_grad


def test_a_state_survives_a_save_that_fails(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run", "sketch2face", {})
    run.save_state({"step": 1})

    def torn(state, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError):
        run.save_state({"step": 2})
    assert run.load_state() == {"step": 1}


def test_a_folder_with_other_things_in_it_may_become_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.create(tmp_path, "sketch2face", {"task": "sketch2face"})
    run, options = RunFolder.open(tmp_path)
    assert options == {"task": "sketch2face"}
    run.log([{"step": 1}])
    with pytest.raises(RunError, match="holds a run already"):
        RunFolder.create(tmp_path, "sketch2face", {})


# --- plot_losses


@pytest.fixture
def plot(tmp_path):
    """Logs records into a new run and returns the picture of its losses."""

    def plot(records: list[dict]) -> Image.Image:
        run = RunFolder.create(tmp_path / f"run{len(list(tmp_path.iterdir()))}", "sketch2face", {})
        run.log(records)
        run.plot_losses()
        with Image.open(run.path / "losses.png") as picture:
            return picture.convert("RGB")

    return plot


def curve(count: int, *names: str) -> list[dict]:
    return [{"step": i + 1, "seconds": 0.1 * i, **dict.fromkeys(names, 1 / (i + 1))} for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 99, 250])
def test_losses_are_plotted_however_few_or_many(plot, count):
    picture = np.asarray(plot(curve(count, "d", "l1"))).astype(int)
    assert picture.std() > 5
    blue = (picture[..., 2] - picture[..., 0] > 60).sum()
    assert blue > 50 or count == 1, "the curve"


def test_each_loss_has_a_row_of_its_own_and_the_clock_has_none(plot):
    heights = [plot(curve(5, *names)).height for names in (["d"], ["d", "gan"], ["d", "gan", "l1", "features"])]
    assert heights == [heights[0], 2 * heights[0], 4 * heights[0]]


def test_losses_that_come_or_go_with_another_recipe_are_plotted_where_they_are(plot):
    """As after --resume with another --feature-weight."""
    came = curve(10, "d") + [record | {"step": record["step"] + 10} for record in curve(10, "d", "features")]
    gone = curve(10, "d", "features") + [record | {"step": record["step"] + 10} for record in curve(10, "d")]
    assert plot(came).height == plot(gone).height == plot(curve(20, "d", "features")).height


@dataclass(frozen=True)
class Recipe:
    epochs: int = 3
    learning_rate: float = 0.1
    name: str = "x"
    mirror: bool = True
    sizes: tuple = ()


@pytest.mark.parametrize(
    "arguments, given",
    [
        ([], {}),
        (["--epochs", "0", "--learning-rate", "1e-3"], {"epochs": 0, "learning_rate": 1e-3}),
        (["--no-mirror", "--name", "y"], {"mirror": False, "name": "y"}),
        (["--data", "d"], {}),
    ],
)
def test_options_of_a_recipe_come_from_its_fields_and_only_what_is_given_counts(arguments, given):
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    add_options(parser, Recipe)
    assert given_options(parser.parse_args(arguments), Recipe) == given
