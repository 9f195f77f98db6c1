import argparse
import copy
import errno
import json
import os
import re
import signal
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gan_core.checkpoint import CheckpointError
from gan_core.image import PictureError
from train.data import DataError, FacePhotos
from train.run import (
    EARLIER,
    EMA,
    PASSING,
    STATE,
    LossLog,
    RunError,
    RunFolder,
    add_options,
    add_run_options,
    batches,
    check_choice,
    count_pictures,
    fit_weights,
    given_options,
    linear_decay,
    load_moments,
    next_folder,
    open_run,
    pack_state,
    training_facts,
    unpack_state,
)


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
    with pytest.raises(OSError, match=r"state after step 2 cannot be written to .* MB are free .*no space left"):
        run.save_state({"step": 2})
    assert run.load_state() == {"step": 1}
    assert not list(run.path.rglob("*.partial")), "it would keep the disk full"


def test_a_folder_with_other_things_in_it_may_become_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.create(tmp_path, "sketch2face", {"task": "sketch2face"})
    run, options = RunFolder.open(tmp_path)
    assert options == {"task": "sketch2face"}
    run.log([{"step": 1}])
    with pytest.raises(RunError, match="holds a run already"):
        RunFolder.create(tmp_path, "sketch2face", {})


# --- batches


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_once_and_does_not_stop_a_run(tmp_path, portrait, workers, capfd):
    for number in range(4):
        portrait(number).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    made = batches(FacePhotos(tmp_path), 2, 0, 0, 99, workers, torch.device("cpu"))
    for _ in range(4):  # two epochs
        source, target = next(made)
        assert (source.shape, target.shape) == ((2, 1, 256, 256), (2, 3, 256, 256))
    said = "".join(capfd.readouterr())
    assert said.count(f"warning: {tmp_path}: '2.png' is not a picture") == 1
    portrait(2, 64).save(tmp_path / "2.png")
    with pytest.raises(DataError, match=r"^.*2\.png is 64x64, not 256x256\. Run"):  # and no traceback of a worker
        for _ in range(8):
            next(made)


# --- damaged files


@pytest.fixture
def saved(tmp_path) -> RunFolder:
    """A run of ten steps with two states, after steps 4 and 8."""
    run = RunFolder.create(tmp_path / "run", "sketch2face", {})
    run.log([{"step": step, "d": 0.5} for step in range(1, 11)])
    for step in (4, 8):
        run.save_state({"step": step, "generator": {"weight": torch.full((40, 40), float(step))}})
    return run


def test_a_run_goes_on_from_its_last_state_and_says_what_is_done_again(saved, capsys):
    assert RunFolder(saved.path).load_state()["step"] == 8
    assert capsys.readouterr().out == "Going on after step 8; 2 later steps are lost and done again.\n"


@pytest.mark.parametrize("tenths", range(10))
def test_if_the_state_is_cut_short_the_one_before_it_counts(saved, tenths, capsys):
    data = (saved.path / STATE).read_bytes()
    (saved.path / STATE).write_bytes(data[: len(data) * tenths // 10])
    state = saved.load_state()
    assert (state["step"], saved.saved) == (4, 4)
    assert (state["generator"]["weight"] == 4).all()
    said = capsys.readouterr().out
    assert said.startswith(f"warning: {saved.path / STATE} is damaged (")
    assert said.endswith("Going on after step 4; 6 later steps are lost and done again.\n")


def test_a_state_in_which_any_byte_has_changed_is_never_taken_for_whole(saved):
    data, before = ((saved.path / name).read_bytes() for name in (STATE, EARLIER))
    expected, fallen_back = saved.load_state(), 0
    for place in np.random.default_rng(0).integers(0, len(data), 200):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        (saved.path / STATE).write_bytes(damaged)
        (saved.path / EARLIER).write_bytes(before)
        state = saved.load_state()
        fallen_back += state["step"] == 4
        # What lies between the parts of the file may change: it means nothing.
        assert state["step"] == 4 or torch.equal(state["generator"]["weight"], expected["generator"]["weight"])
    assert fallen_back > 100


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"no state")])
def test_a_run_that_fell_back_keeps_a_whole_state_whenever_it_is_killed(saved, damage, monkeypatch):
    """Even between the two renames of its next save."""
    damage(saved.path / STATE)
    state, replace_file = saved.load_state(), os.replace

    def killed(file, target):
        if file.name.endswith(".partial"):
            raise KeyboardInterrupt
        replace_file(file, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        saved.save_state(state | {"step": 5})
    assert RunFolder(saved.path).load_state()["step"] == 4


def test_a_state_that_is_missing_since_a_kill_came_between_two_renames_is_no_loss_of_the_run(saved):
    (saved.path / STATE).unlink()
    assert saved.load_state()["step"] == 4


def test_if_no_state_can_be_read_the_run_says_what_is_left(saved):
    for name in (STATE, EARLIER):
        (saved.path / name).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(RunError, match=r"no state .* can be read any more: its 10 steps .*--init"):
        saved.load_state()


def test_a_run_that_was_stopped_before_its_first_save_starts_from_the_beginning(run, capsys):
    run.log([{"step": 1, "d": 0.5}])
    assert run.load_state() is None
    assert "before its first save and the 1 steps before it are lost: it starts from the beginning" in (
        capsys.readouterr().out
    )


def test_damaged_options_are_named(saved):
    for damaged in ("", '{"task": "sketch', "\xff"):
        (saved.path / "options.json").write_bytes(damaged.encode("latin-1"))
        with pytest.raises(RunError, match=r"options\.json is damaged .* same recipe"):
            RunFolder.open(saved.path)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_in_a_state_is_executed(saved, capsys):
    torch.save({"step": 9, "evil": Evil()}, saved.path / STATE)
    assert saved.load_state()["step"] == 4
    assert "executed" not in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_not_saved(saved, bad):
    optimizer = {"state": {0: {"exp_avg": torch.tensor([0.0, bad])}}, "param_groups": [{"lr": 0.1}]}
    with pytest.raises(RunError, match=r"after step 9 optimizer\.state\.0\.exp_avg is not finite.*after step 8"):
        saved.save_state({"step": 9, "optimizer": optimizer})
    assert saved.load_state()["step"] == 8


def test_a_log_that_was_cut_anywhere_loses_but_its_last_line_and_no_step_is_logged_twice(saved):
    log = saved.path / "log.jsonl"
    data = log.read_bytes()
    for end in range(len(data) - 40, len(data)):
        log.write_bytes(data[:end] + b"\x00" * (end % 3))  # zeros as after a power failure
        saved.trim_log(8)
        saved.log([{"step": step, "d": 0.5} for step in (9, 10)])
        assert log.read_bytes() == data, end


def test_a_state_of_other_networks_is_told(run):
    state = pack_state({"generator": nn.Linear(2, 3)}, torch.device("cpu"), step=1)
    with pytest.raises(RunError, match=r"does not fit the generator: .*size mismatch.*another version of the code"):
        unpack_state({"generator": nn.Linear(3, 3)}, torch.device("cpu"), state)
    with pytest.raises(RunError, match="does not fit the discriminator"):
        unpack_state({"discriminator": nn.Linear(3, 3)}, torch.device("cpu"), state)


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


# --- the losses on their way


def logged(run: RunFolder) -> list[dict]:
    file = run.path / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "sketch2face", {})


def test_losses_are_logged_in_bulk_and_once_as_numbers(run):
    log = LossLog(run, step=0, end=3, batch_size=2)
    log.add(1, {"d": torch.tensor(0.1234567), "lead": 0.7654321, "active": torch.tensor(3)})
    log.add(2, {"d": 0.0, "lead": 0.5, "active": 4})
    assert logged(run) == []
    records = log.flush()
    assert [{k: v for k, v in record.items() if k != "seconds"} for record in records] == [
        {"step": 1, "d": 0.12346, "lead": 0.76543, "active": 3},
        {"step": 2, "d": 0.0, "lead": 0.5, "active": 4},
    ]
    assert list(records[0]) == ["step", "seconds", "d", "lead", "active"]
    assert logged(run) == records
    assert log.flush() == []
    log.add(3, {"d": 1.0})
    assert log.flush() == logged(run)[2:]
    log.close()


def test_the_progress_bar_counts_the_pictures_of_the_whole_run_and_shows_the_last_losses(run):
    log = LossLog(run, step=3, end=5, batch_size=4)
    assert (log.progress.n, log.progress.total) == (12, 20)
    for step in (4, 5):
        log.add(step, {"d": torch.tensor(0.25), "l1": torch.tensor(step / 8)})
    log.flush()
    assert log.progress.n == 20
    assert log.progress.postfix == "d=0.25, l1=0.625"
    log.close()


def test_the_speed_is_that_since_the_run_was_started_or_resumed(run, monkeypatch):
    clock = SimpleNamespace(perf_counter=lambda: clock.now, now=100.0)
    monkeypatch.setattr("train.run.time", clock)
    log = LossLog(run, step=1000, end=2000, batch_size=4)
    for step in (1001, 1002, 1003):
        clock.now += 2.0
        log.add(step, {"d": 1.0})
    clock.now += 1.0
    assert log.images_per_second() == 1.71  # 12 in 7 seconds
    assert [record["seconds"] for record in log.flush()] == [2.0, 4.0, 6.0]
    log.close()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_is_logged_and_ends_the_run(run, bad):
    log = LossLog(run, step=0, end=3, batch_size=1)
    for step, value in enumerate((1.0, bad, 2.0), start=1):
        log.add(step, {"d": torch.tensor(value)})
    with pytest.raises(RunError, match=rf"losses at step 2 are .*{run.path}.*lower --learning-rate.*float32"):
        log.flush()
    assert [record["step"] for record in logged(run)] == [1, 2, 3]
    log.close()


def test_tensorboard_gets_the_last_losses_what_is_measured_and_the_samples(run):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = LossLog(run, step=0, end=2, batch_size=1, tensorboard=True)
    for step in (1, 2):
        log.add(step, {"d": torch.tensor(step / 4)})
    log.flush()
    log.scalars("validation", {"miou": 0.75}, 2)
    log.picture(Image.new("RGB", (6, 4), "red"), 2)
    log.close()
    seen = events.EventAccumulator(str(run.path / "tensorboard")).Reload()
    for name, value in {"loss/d": 0.5, "validation/miou": 0.75}.items():
        assert [(event.step, event.value) for event in seen.Scalars(name)] == [(2, value)]
    (sample,) = seen.Images("samples")
    assert (sample.step, sample.width, sample.height) == (2, 6, 4)


def test_nobody_who_does_not_ask_gets_tensorboard(run):
    log = LossLog(run, step=0, end=1, batch_size=1)
    log.add(1, {"d": 1.0})
    log.flush()
    log.scalars("validation", {"miou": 0.75}, 1)
    log.picture(Image.new("RGB", (6, 4)), 1)
    log.close()
    assert not (run.path / "tensorboard").exists()


# --- weights and state


def test_weights_are_taken_over_where_name_and_shape_fit():
    network, other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), nn.Linear(2, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = {"0.weight": torch.ones(3, 2), "1.weight": torch.ones(5, 3), "2.weight": torch.ones(1)}
    said = fit_weights({"vae": network, "discriminator": other}, {"vae": weights, "latents": {"mean": torch.ones(2)}})
    assert said == "1 of 4 tensors of the vae and 0 of 2 tensors of the discriminator"
    assert (network[0].weight == 1).all()
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(network.state_dict()[name], before[name]), name


def test_a_packed_state_brings_back_parts_and_dice(run):
    def parts(seed: int) -> dict:
        torch.manual_seed(seed)
        network = nn.Linear(3, 3)
        optimizer = torch.optim.Adam(network.parameters())
        network(torch.randn(1, 3)).sum().backward()
        optimizer.step()
        return {"generator": network, "optimizer": optimizer}

    cpu, one, two = torch.device("cpu"), parts(1), parts(2)
    run.save_state(pack_state(one, cpu, step=7, lead=0.5))
    expected = torch.rand(4)
    state = run.load_state()
    assert list(state) == ["generator", "optimizer", "step", "lead", "rng"]
    assert (state["step"], state["lead"]) == (7, 0.5)
    unpack_state(two, cpu, state)
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(two["generator"].weight, one["generator"].weight)
    moments = [part["optimizer"].state_dict()["state"][0]["exp_avg"] for part in (one, two)]
    assert torch.equal(*moments)


def test_the_dice_of_a_gpu_are_packed_too_and_left_alone_without_one(monkeypatch):
    cpu, gpu, thrown = torch.device("cpu"), torch.device("cuda"), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: f"dice of {device}")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *arguments: thrown.append(arguments))
    state = pack_state({}, gpu, step=1)
    assert list(state) == ["step", "rng", "cuda_rng"]
    for device in (cpu, gpu):
        unpack_state({}, device, state)
        unpack_state({}, device, pack_state({}, cpu, step=1))
    assert thrown == [("dice of cuda", gpu)]


@pytest.mark.parametrize(
    "init, name", [(None, None), (Path("assets/checkpoints/vaegan.safetensors"), "vaegan.safetensors")]
)
def test_the_facts_of_a_checkpoint_tell_how_it_came_about(init, name):
    config = Recipe(batch_size=4)
    facts = training_facts(config, 50, pictures=30, images_per_second=1.5, init=init)
    recipe, counts = asdict(config), {"steps": 50, "images": 200, "images_per_second": 1.5}
    assert facts == {"recipe": recipe, **counts, "data": "30 pictures", "init": name}
    json.dumps(facts)


# --- the command line


@dataclass(frozen=True)
class Recipe:
    epochs: int = 3
    learning_rate: float = 0.1
    name: str = "x"
    mirror: bool = True
    sizes: tuple = ()
    batch_size: int = 1

    def __post_init__(self):
        check_choice("name", self.name, ("x", "y", "z"))

    @classmethod
    def from_dict(cls, options: dict) -> "Recipe":
        return cls(**options | {"sizes": tuple(options["sizes"])})


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


def parse(*arguments) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run_options(parser, Recipe, ("paper", "best"), sample_every=50, workers=2, workers_help="processes")
    return parser.parse_args([str(argument) for argument in arguments])


def test_all_trainings_have_the_same_options_besides_those_of_their_recipe():
    options = vars(parse("--data", "pictures"))
    own = {name: options.pop(name) for name in ("epochs", "learning_rate", "name", "mirror", "batch_size")}
    assert set(own.values()) == {None}
    expected = {"data": Path("pictures"), "preset": "best", "sample_every": 50, "save_every": 500, "workers": 2}
    expected |= dict.fromkeys(("out", "resume", "init", "stop_at")) | {"tensorboard": False}
    expected |= {"accumulate": 1, "compile": None, "profile": None, "trace": None}
    assert set(options.pop("usual")) == set(PASSING)
    assert options.pop("device") in ("cpu", "cuda")
    assert options == expected


@pytest.fixture
def data(tmp_path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / split / "0.png")
    return tmp_path / "data"


PRESET = Recipe(epochs=9, sizes=(1, 2))


def test_a_new_run_writes_down_its_task_its_start_and_its_recipe(data, tmp_path, capsys):
    options = parse("--data", data, "--out", tmp_path / "run", "--name", "y", "--init", "a/b.safetensors")
    with open_run(options, "facades", PRESET) as (run, config, loop):
        said = capsys.readouterr().out
        assert said == f"Run folder: {tmp_path / 'run'}\n"
    model = f"facades={run.path}/facades.safetensors"
    assert capsys.readouterr().out == f"Done. See it in the app: python app.py --model {model}\n"
    assert config == replace(PRESET, name="y")
    assert loop == {
        "resume": False,
        "init": Path("a/b.safetensors"),
        "stop_at": None,
        "sample_every": 50,
        "save_every": 500,
        "workers": 2,
        "device": torch.device(options.device),
        "tensorboard": False,
        "accumulate": 1,
        "compile": None,
        "profile": None,
    }
    written = RunFolder.open(run.path)[1]
    assert list(written) == ["task", "init", "config", "pictures"]
    assert (written["task"], written["init"]) == ("facades", "a/b.safetensors")
    assert Recipe.from_dict(written["config"]) == config


@pytest.mark.parametrize("init", [None, "a/b.safetensors"])
def test_a_resumed_run_keeps_its_start_and_its_recipe_but_for_what_is_given(data, tmp_path, init):
    start = ["--init", init] if init else []
    with open_run(parse("--data", data, "--out", tmp_path / "run", "--name", "y", *start), "facades", PRESET):
        pass
    for given, expected in ((["--epochs", 20], 20), (["--stop-at", 5], 20)):  # what is given once, stays
        options = parse("--data", data, "--resume", tmp_path / "run", *given)
        with open_run(options, "facades", Recipe(epochs=1)) as (run, config, loop):
            assert config == replace(PRESET, name="y", epochs=expected)
            assert (loop["resume"], loop["init"], loop["stop_at"]) == (True, init and Path(init), options.stop_at)
        written = RunFolder.open(run.path)[1]
        assert (written["task"], written["init"]) == ("facades", init)
        assert Recipe.from_dict(written["config"]) == config


def test_a_run_from_before_its_start_was_written_down_can_be_resumed(data, tmp_path):
    RunFolder.create(tmp_path / "run", "vaegan", {"task": "vaegan", "config": asdict(PRESET)})
    with open_run(parse("--data", data, "--resume", tmp_path / "run"), "vaegan", Recipe()) as (_, config, loop):
        assert (config, loop["init"]) == (PRESET, None)


@pytest.mark.parametrize(
    "options, said",
    [
        (("--device", "gpu"), "--device gpu cannot be used here: .*cpu, cuda.* Choose another one, such as cpu"),
        (("--device", "cuda:99"), "--device cuda:99 cannot be used here: .* Choose another one, such as cpu"),
        (("--trace", "trace.json"), "--trace is written by --profile; give both"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(data, tmp_path, options, said):
    options = parse("--data", data, "--out", tmp_path / "run", *options)
    with pytest.raises(SystemExit, match=rf"^error: {said}\.$"), open_run(options, "facades", PRESET):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [CheckpointError, DataError, PictureError, RunError])
def test_what_people_can_mend_ends_the_command_with_a_message(data, tmp_path, error, capsys):
    with (
        pytest.raises(SystemExit, match="error: what to do"),
        open_run(parse("--data", data, "--out", tmp_path / "run"), "facades", PRESET),
    ):
        raise error("what to do")
    assert "Done" not in capsys.readouterr().out


@pytest.mark.parametrize("bug", [ZeroDivisionError, ValueError])
def test_a_bug_is_no_message(data, tmp_path, bug):
    with pytest.raises(bug), open_run(parse("--data", data, "--out", tmp_path / "run"), "facades", PRESET):
        raise bug


def test_a_value_that_the_recipe_refuses_ends_the_command_before_anything_is_written(data, tmp_path):
    run, said = tmp_path / "run", r"^error: name is 'q'; it must be one of x, y, z$"
    with (
        pytest.raises(SystemExit, match=said),
        open_run(parse("--data", data, "--out", run, "--name", "q"), "facades", PRESET),
    ):
        pass
    assert not run.exists()
    with open_run(parse("--data", data, "--out", run), "facades", PRESET):
        pass
    before = RunFolder.open(run)[1]
    with (
        pytest.raises(SystemExit, match=said),
        open_run(parse("--data", data, "--resume", run, "--name", "q"), "facades", PRESET),
    ):
        pass
    assert RunFolder.open(run)[1] == before


def test_a_value_that_was_once_allowed_can_be_put_right_when_a_run_is_resumed(data, tmp_path):
    """As a --precision that nothing knew."""
    started = {"task": "facades", "config": asdict(PRESET) | {"name": "q"}}
    RunFolder.create(tmp_path / "run", "facades", started)
    with (
        pytest.raises(SystemExit, match="error: name is 'q'"),
        open_run(parse("--data", data, "--resume", tmp_path / "run"), "facades", PRESET),
    ):
        pass
    options = parse("--data", data, "--resume", tmp_path / "run", "--name", "z")
    with open_run(options, "facades", PRESET) as (_, config, _):
        assert config == replace(PRESET, name="z")


@pytest.mark.parametrize(
    "option, said", [("--out", "Leave out --out .*/other"), ("--init", "Leave out --init .*/other; or, .* --resume")]
)
def test_a_resumed_run_goes_on_in_its_own_folder_and_from_its_own_weights(data, tmp_path, option, said):
    started = ("--data", data, "--out", tmp_path / "run", "--init", "a.safetensors")
    with open_run(parse(*started), "facades", PRESET):
        pass
    with open_run(parse(*started, "--resume", tmp_path / "run"), "facades", PRESET):  # the same command again
        pass
    options = parse("--data", data, "--resume", tmp_path / "run", option, tmp_path / "other")
    with pytest.raises(SystemExit, match=said), open_run(options, "facades", PRESET):
        pass


def adam(memory_format: torch.memory_format, beta1: float) -> tuple[nn.Parameter, torch.optim.Adam]:
    weight = nn.Parameter(torch.arange(96.0).view(2, 3, 4, 4).to(memory_format=memory_format))
    return weight, torch.optim.Adam([weight], lr=0.1, betas=(beta1, 0.9), fused=True)


def test_moments_lie_in_memory_as_their_weights_do_and_the_settings_are_those_of_today():
    """As when a run goes on in float32 that was begun in bfloat16, or on another machine."""
    (old, before), (new, now) = adam(torch.contiguous_format, 0.5), adam(torch.channels_last, 0.7)
    gradient = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    old.grad = gradient
    before.step()
    load_moments(now, copy.deepcopy(before.state_dict()))  # as from a file
    assert now.param_groups[0]["betas"] == (0.7, 0.9)
    with torch.no_grad():
        new.copy_(old)
    before.param_groups[0]["betas"] = (0.7, 0.9)
    old.grad, new.grad = 2 * gradient, (2 * gradient).to(memory_format=torch.channels_last)
    before.step()
    now.step()
    assert torch.allclose(old, new, atol=1e-6)


def go_on(data: Path, run: Path, more: str = "") -> str:
    return re.escape(f"go on with: python -m train.pix2pix facades --data {data} --resume {run}{more}") + "$"


def test_two_commands_cannot_share_a_folder(data, tmp_path):
    for options in (
        parse("--data", data, "--out", tmp_path / "run"),
        parse("--data", data, "--resume", tmp_path / "run"),
    ):
        with open_run(options, "facades", PRESET):
            before = RunFolder.open(tmp_path / "run")[1]
            for name, more in (("--out", ()), ("--resume", ("--epochs", 77))):
                other = parse("--data", data, name, tmp_path / "run", *more)
                said = r"error: another process is writing to .*run"
                with pytest.raises(SystemExit, match=said), open_run(other, "facades", PRESET):
                    pass
            assert RunFolder.open(tmp_path / "run")[1] == before


def test_runs_without_a_name_are_numbered_and_none_gets_the_number_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "facades-007").mkdir(parents=True)
    (tmp_path / "runs" / "facades-best").mkdir()
    assert [next_folder("facades").name for _ in range(3)] == ["facades-008", "facades-009", "facades-010"]
    assert next_folder("vaegan").name == "vaegan-001"


def test_what_the_disk_refuses_ends_the_command_with_the_way_on(data, tmp_path):
    passing = ("--stop-at", 5, "--save-every", 3, "--workers", 0, "--device", "cpu:0", "--tensorboard")
    passing = [str(word) for word in passing]
    options = parse("--data", data, "--out", tmp_path / "run", "--epochs", 2, *passing)
    said = "^error: .*No space left.* The last good state, after step 3, is in .*; "
    with (
        pytest.raises(SystemExit, match=said + go_on(data, tmp_path / "run", " " + " ".join(passing))),
        open_run(options, "facades", PRESET) as (run, _, _),
    ):
        run.save_state({"step": 3})
        raise OSError(errno.ENOSPC, "No space left on device")


class Counter:
    """A training that does nothing."""

    def __init__(self):
        self.step = 0

    def state_dict(self) -> dict:
        return {"step": self.step}


@pytest.fixture
def handlers():
    """Those of the signals that end a process, as if nothing had told this one to ignore any, as nohup does."""
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


# Signals are raised by the thread that is to handle them. By os.kill another thread of the process might get one, once
# its handler is gone.
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_lets_the_step_end_and_saves_the_state(data, tmp_path, name, monkeypatch, handlers):
    clock = SimpleNamespace(monotonic=lambda: 100.0, perf_counter=lambda: 0.0)
    monkeypatch.setattr("train.run.time", clock)
    training = Counter()
    with (
        pytest.raises(SystemExit, match=f"^Stopped by {name}. .*after step 2, .*" + go_on(data, tmp_path / "run")),
        open_run(parse("--data", data, "--out", tmp_path / "run"), "facades", PRESET) as (run, _, _),
    ):
        log = LossLog(run, 0, 5, 1)
        for training.step in range(1, 6):
            if training.step == 2:
                signal.raise_signal(signal.Signals[name])
                signal.raise_signal(signal.Signals[name])  # some wrappers pass it on as well
            if log.leaving(training.step):
                run.save_state(training.state_dict())
                log.leave()
    assert signal.getsignal(signal.Signals[name]) == signal.default_int_handler
    assert run.load_state() == {"step": 2}


def test_a_signal_that_is_ignored_stays_ignored(data, tmp_path, handlers):
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with open_run(parse("--data", data, "--out", tmp_path / "run"), "facades", PRESET) as (run, _, _):
        signal.raise_signal(signal.SIGHUP)
        assert run.asked_to_stop is None


def test_a_second_interruption_ends_the_run_at_once(data, tmp_path, monkeypatch, handlers):
    clock = SimpleNamespace(monotonic=lambda: clock.now, perf_counter=lambda: 0.0, now=100.0)
    monkeypatch.setattr("train.run.time", clock)
    with (
        pytest.raises(SystemExit, match=r"^Interrupted\. No state was saved"),
        open_run(parse("--data", data, "--out", tmp_path / "run"), "facades", PRESET),
    ):
        signal.raise_signal(signal.SIGINT)
        clock.now += 2
        signal.raise_signal(signal.SIGINT)
        pytest.fail("still there")


def test_a_resumed_run_says_if_its_pictures_are_others(data, tmp_path, capsys):
    with open_run(parse("--data", data, "--out", tmp_path / "run"), "facades", PRESET):
        pass
    Image.new("RGB", (4, 4)).save(data / "train" / "1.png")
    for expected in (1, 0):  # it is said once
        capsys.readouterr()
        with open_run(parse("--data", data, "--resume", tmp_path / "run"), "facades", PRESET):
            pass
        said = capsys.readouterr().out
        assert said.count("warning: the run began with 1 training pictures, and now there are 2") == expected


@pytest.mark.parametrize("task, halves", [("facades", ("source", "target")), ("segmentation", ("photos", "labels"))])
def test_a_pair_is_one_training_picture(tmp_path, task, halves):
    for folder in (tmp_path / split / half for split in ("train", "val") for half in halves):
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "0.png")
    assert count_pictures(tmp_path, task) == 1


def test_an_interrupted_command_says_how_to_go_on_if_there_is_a_run(data, tmp_path, monkeypatch):
    options = parse("--data", data, "--out", tmp_path / "run")
    with (
        pytest.raises(
            SystemExit, match=rf"^Interrupted\. No state .* yet; go on with: .* --resume {tmp_path / 'run'}$"
        ),
        open_run(options, "facades", PRESET),
    ):
        raise KeyboardInterrupt

    def interrupt(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.run.list_pictures", interrupt)
    with pytest.raises(SystemExit, match=r"^Interrupted\.$"), open_run(options, "facades", PRESET):
        pass


def test_a_task_that_wants_files_says_so_when_it_is_given_shards(data, tmp_path):
    (data / "train" / "0.parquet").write_bytes(b"")
    options = parse("--data", data, "--out", tmp_path / "run")
    with pytest.raises(SystemExit, match="vaegan is trained on a folder of files"), open_run(options, "vaegan", PRESET):
        pass
    assert not (tmp_path / "run").exists()
