"""A step that is recorded once and replayed learns what a plain one learns.

All that is compared is computed by kernels that give the same bits each time, with learning rates that float32 holds
exactly; tiny networks else part ways within a few steps.
"""

import io
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from train import parallel
from train.graph import WARM_UP, set_rate
from train.pix2pix import PRESETS, Pix2PixConfig, Training
from train.profile import Profile
from train.run import RunError, check_graph

CPU, GPU = torch.device("cpu"), torch.device("cuda")
STEPS, HALF = 16, 6  # both beyond the warm-up; a power of two, for the rates
RECIPES = {
    "no dice": {"dropout": 0.0},
    "dropout and noise": {"dropout": 0.5, "noise": True},
    "L1 alone": {"dropout": 0.5, "noise": True, "gan_weight": 0.0},
}
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there are no CUDA graphs without a GPU")


@pytest.fixture(autouse=True)
def same_bits(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.fixture
def config(unet_config, patchgan_config) -> Pix2PixConfig:
    """The recipe of `best`, without the bilinear doubling, whose gradient is summed in any order."""
    networks = {"generator": replace(unet_config, upsampling="transposed"), "discriminator": patchgan_config}
    rates = {"learning_rate": 2**-12, "learning_rate_d": 2**-14}
    return replace(PRESETS["sketch2face"]["best"], **networks, **rates, batch_size=2, precision="float32")


def with_recipe(config: Pix2PixConfig, recipe: str) -> Pix2PixConfig:
    options = dict(RECIPES[recipe])
    gan_weight = options.pop("gan_weight", config.gan_weight)
    return replace(config, generator=replace(config.generator, **options), gan_weight=gan_weight)


def batch(step: int, pictures: int = 2) -> list[Tensor]:
    rng = torch.Generator().manual_seed(step)
    return [torch.rand(pictures, channels, 256, 256, generator=rng).to(GPU) * 2 - 1 for channels in (1, 3)]


def go(training: Training, end: int = STEPS) -> list[dict[str, Tensor]]:
    """The losses of each step, kept where they are as the log keeps them."""
    return [training.train_step(*batch(step)) for step in range(training.step, end)]


def start(config: Pix2PixConfig, compiled: str | None, state: dict | None = None) -> Training:
    training = Training(config, STEPS, GPU, compiled=compiled)
    if state:
        training.load_state_dict(state)
    return training


def values(training: Training) -> dict[str, Tensor]:
    """All weights of each network, and all running statistics, in one row."""
    networks = {"generator": training.generator, "discriminator": training.discriminator, "ema": training.ema.module}
    rows = {name: list(network.parameters()) for name, network in networks.items()}
    for name in ("generator", "ema"):
        rows[f"statistics of {name}"] = [x for x in networks[name].buffers() if x.is_floating_point()]
    return {name: torch.cat([x.detach().flatten() for x in row]) for name, row in rows.items()}


def assert_same(ours: Training, theirs: Training, fresh: Training) -> None:
    """Nothing is further apart than a hundredth of the way that it has come."""
    a, b, begin = map(values, (ours, theirs, fresh))
    for name in a:
        assert (a[name] - b[name]).norm() <= 0.01 * (b[name] - begin[name]).norm(), name
    for network in (ours.generator, ours.ema.module):
        assert {int(x) for x in network.buffers() if not x.is_floating_point()} == {STEPS}
    assert {float(moments["step"]) for moments in ours.optimizer_g.state.values()} == {STEPS}


def assert_near(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> None:
    assert len(ours) == len(theirs)
    for step, (a, b) in enumerate(zip(ours, theirs)):
        assert a.keys() == b.keys()
        for name in a:
            assert abs(float(a[name] - b[name])) <= 1e-3 * abs(float(b[name])), f"{name}, step {step}"


@on_a_gpu
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recorded_step_learns_what_a_plain_one_learns(config, recipe):
    config = with_recipe(config, recipe)
    plain, recorded = start(config, None), start(config, "graph")
    torch.manual_seed(1)
    theirs = go(plain)
    torch.manual_seed(1)
    ours = go(recorded)
    assert_near(ours, theirs)
    assert_same(recorded, plain, start(config, None))
    assert float(recorded.optimizer_g.param_groups[0]["lr"]) == 2**-12 / 8
    assert float(recorded.optimizer_d.param_groups[0]["lr"]) == 2**-14 / 8
    losses = torch.stack([step["l1"] for step in ours])
    assert len(losses.unique()) == STEPS, "each step has losses of its own"


@on_a_gpu
@pytest.mark.parametrize("then", ["graph", None])
def test_a_recorded_run_goes_on_from_its_state_as_if_it_had_never_stopped(config, then):
    """And as a plain run, too."""
    config = with_recipe(config, "dropout and noise")
    whole = start(config, "graph")
    losses = go(whole)
    half = start(config, "graph")
    file = io.BytesIO()
    before = go(half, HALF)
    torch.save(half.state_dict(), file)
    file.seek(0)
    rest = start(config, then, torch.load(file, map_location="cpu", weights_only=True))
    assert_near(before + go(rest), losses)
    assert_same(rest, whole, start(config, None))


@on_a_gpu
def test_a_batch_of_another_size_is_refused(config):
    training = start(config, "graph")
    go(training, 1)
    with pytest.raises(RunError, match=r"a batch is \(1, 1, 256, 256\), .* were \(2, 1, 256, 256\).*Leave out --comp"):
        training.train_step(*batch(1, pictures=1))


@on_a_gpu
def test_a_profile_sees_the_recorded_step_as_one_part(config):
    profile, training = Profile(2, GPU), start(config, "graph")
    training.span = profile.span
    for step in range(WARM_UP + 3):
        with profile.span("waiting for data"):
            pass
        training.train_step(*batch(step))
    assert set(profile.seconds) == {"waiting for data", "CUDA graph", "moving average"}
    profile._stop()


def test_what_cannot_be_recorded_is_refused(config, monkeypatch):
    with pytest.raises(RunError, match=r"takes each batch as a whole. Leave out --accumulate, or give another MODE"):
        check_graph(GPU, 2)
    with pytest.raises(RunError, match=r"is for a GPU, and the device is cpu. Give --device cuda or another MODE"):
        Training(config, STEPS, CPU, compiled="graph")
    check_graph(GPU, 1)
    monkeypatch.setattr(parallel, "count", lambda: 4)
    with pytest.raises(RunError, match=r"is for one process, and there are 4. Start a single one or give another MODE"):
        check_graph(GPU, 1)


def test_a_rate_in_a_tensor_changes_in_its_place():
    """A replay reads where it read before."""
    weight = torch.nn.Parameter(torch.zeros(1))
    tensor, number = (torch.optim.Adam([weight], rate) for rate in (torch.tensor(0.5), 0.5))
    rate = tensor.param_groups[0]["lr"]
    for optimizer in (tensor, number):
        set_rate(optimizer, 0.25)
    assert tensor.param_groups[0]["lr"] is rate and float(rate) == 0.25
    assert number.param_groups[0]["lr"] == 0.25 and isinstance(number.param_groups[0]["lr"], float)
