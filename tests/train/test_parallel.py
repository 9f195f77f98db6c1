"""Two processes for real, over the loopback device. Tolerance: losses within 1e-4 of one process, relatively."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gan_core import checkpoint
from gan_core.patchgan import PatchGANConfig
from gan_core.unet import UNetConfig
from tests.train import two_processes
from tests.train.runs import losses, same
from train import parallel, pix2pix, vae_gan
from train.run import RunError, RunFolder, check_parts, read_state

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
NEAR = {"rel": 1e-4, "abs": 2e-5}  # the log rounds to 1e-5


def assert_near(run: Path, reference: Path, steps: range) -> None:
    ours, theirs = losses(run), losses(reference)
    assert list(ours) == list(steps)
    for step in steps:
        assert ours[step] == pytest.approx(theirs[step], **NEAR), step


def train_faces(folder: Path, name: str, resume: bool = False, **options) -> pix2pix.Training:
    config = two_processes.PIX2PIX
    started = {"task": "sketch2face", "init": None, "config": asdict(config)}
    run = RunFolder(folder / name) if resume else RunFolder.create(folder / name, "sketch2face", started)
    return pix2pix.train(folder / "data", "sketch2face", config, run, workers=0, save_every=2, resume=resume, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, portrait):
    """Runs of two processes: `two` up to step 2, `one` from step 2, `parts` with accumulation, `mixed` the VAE-GAN.

    `stopped` by a signal. And what one process makes of it: `straight`, and `alone` the VAE-GAN.
    """
    folder = tmp_path_factory.mktemp("runs")
    for data, size in (("data/{}/source", 64), ("data/{}/target", 64), ("small/{}", 96)):
        for split, seeds in (("train", range(8)), ("val", range(8, 9))):
            pictures = folder / data.format(split)
            pictures.mkdir(parents=True)
            for seed in seeds:
                portrait(seed, size).save(pictures / f"{seed}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "plot_losses", lambda self: None)  # takes longer than all steps
        patch.setattr(vae_gan, "draw_latents", two_processes.without_dice)
        train_faces(folder, "straight")
        train_faces(folder, "one", stop_at=2)
        run = RunFolder.create(folder / "alone", "vaegan", {})
        vae_gan.train(folder / "small", two_processes.VAEGAN, run, save_every=2, stop_at=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.train.two_processes", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "said.txt").write_text(done.stdout)
    return folder


def test_two_processes_have_the_losses_of_one(folder):
    assert_near(folder / "two", folder / "straight", range(1, 3))
    assert_near(folder / "mixed", folder / "alone", range(1, 3))


def test_a_run_of_one_process_goes_on_with_two(folder):
    assert_near(folder / "one", folder / "straight", range(1, 5))


def test_a_run_of_two_processes_goes_on_with_one(folder):
    shutil.copytree(folder / "two", folder / "two, then one")
    assert train_faces(folder, "two, then one", resume=True).step == 4
    assert_near(folder / "two, then one", folder / "straight", range(1, 5))


def test_accumulation_with_batch_norms_of_two_pictures_stays_close_to_those_of_four(folder):
    """Two processes with two parts of one picture each: norms see both processes, but not both parts."""
    ours, theirs = losses(folder / "parts"), losses(folder / "straight")
    assert ours[1] == pytest.approx(theirs[1], rel=0.05)


def test_all_processes_end_with_the_same_networks_averages_and_optimisers(folder):
    first, second = (torch.load(folder / f"states-{rank}.pt") for rank in (0, 1))
    assert first.keys() == second.keys() == {"two", "one", "parts", "mixed"}
    for run, state in first.items():
        for name in state.keys() - {"rng", "step", "lead"}:
            assert same(state[name], second[run][name]), (run, name)
        assert (state["step"], state.get("lead")) == (second[run]["step"], second[run].get("lead"))


def test_only_the_first_process_writes_and_speaks(folder):
    written = [json.loads((folder / f"written-{rank}.json").read_text()) for rank in (0, 1)]
    runs = [[path for path in paths if path.startswith(str(folder))] for paths in written]
    names = {Path(path).name for path in runs[0]}
    assert names >= {"options.json", "log.jsonl", "state.pt", "sketch2face.safetensors", "vaegan.safetensors"}
    assert [Path(path).name for path in runs[1]] == ["states-1.pt"] or not runs[1]
    said = (folder / "said.txt").read_text()
    assert (said.count("Run folder: "), said.count("Done. ")) == (5, 4)


def test_a_signal_to_one_process_stops_all_of_them_and_the_state_is_saved(folder):
    first, second = (json.loads((folder / f"end-{rank}.json").read_text()) for rank in (0, 1))
    assert first.startswith("Stopped by a signal to another process. The last good state, after step 1, is in ")
    assert second == 1, "and nothing to say"
    assert read_state(folder / "stopped" / "state.pt")["step"] == 1
    assert checkpoint.load(folder / "stopped" / "sketch2face.safetensors").facts["steps"] == 1
    assert list(losses(folder / "stopped")) == [1]


# --- in one process


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(count, 1, 64, 64, generator=rng).clamp(-1, 1), torch.rand(count, 3, 64, 64, generator=rng)


def test_accumulated_parts_are_the_larger_batch():
    """With norms that look at one picture at a time."""
    unet = UNetConfig(in_channels=1, base_channels=4, depth=5, norm="instance", dropout=0.0)
    networks = {"generator": unet, "discriminator": PatchGANConfig(source_channels=1, base_channels=4)}
    config = replace(two_processes.PIX2PIX, **networks)
    whole, parts = (pix2pix.Training(config, 10, CPU, accumulate) for accumulate in (1, 4))
    for _ in range(2):
        one, other = whole.train_step(*pictures(4)), parts.train_step(*pictures(4))
        assert {k: float(v) for k, v in other.items()} == pytest.approx({k: float(v) for k, v in one.items()}, rel=1e-4)
    for name in ("generator", "discriminator", "ema"):
        for key, value in whole.state_dict()[name].items():
            assert torch.allclose(parts.state_dict()[name][key], value, atol=1e-5), key


def test_what_is_computed_again_throws_the_same_dice_and_leaves_running_statistics_alone():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 3))
    start = copy.deepcopy(network.state_dict())
    x = torch.randn(4, 1, 8, 8)

    def gradients_and_statistics(outputs: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        network.load_state_dict(start)
        network.zero_grad()
        torch.manual_seed(0)
        loss = outputs().square().mean()
        torch.manual_seed(1)
        loss.backward()
        return [parameter.grad.clone() for parameter in network.parameters()] + [x.clone() for x in network.buffers()]

    plain = gradients_and_statistics(lambda: torch.cat([network(part) for part in x.chunk(2)]))
    again = gradients_and_statistics(lambda: parallel.in_parts(2, network, network, x))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(again, plain))


def test_a_shared_batch_norm_is_torchs_own_when_alone():
    torch.manual_seed(0)
    own, torchs = parallel.SharedBatchNorm2d(3), nn.BatchNorm2d(3)
    for norm in (own, torchs):
        nn.init.constant_(norm.weight, 1.5)
    x, y = (torch.randn(4, 3, 5, 5).requires_grad_() for _ in range(2))
    with torch.no_grad():
        y.copy_(x)
    out = own(x), torchs(y)
    for result in out:
        result.pow(3).sum().backward()
    assert torch.allclose(*out, atol=1e-5)
    assert torch.allclose(x.grad, y.grad, atol=1e-4)
    for name, buffer in torchs.named_buffers():
        assert torch.allclose(own.get_buffer(name), buffer, atol=1e-5), name
    assert torch.allclose(own.eval()(x), torchs.eval()(y), atol=1e-5)


@pytest.mark.parametrize("batch_size, processes, accumulate", [(4, 3, 1), (4, 2, 4), (1, 2, 1), (6, 1, 4)])
def test_a_batch_that_cannot_be_dealt_evenly_is_refused(monkeypatch, batch_size, processes, accumulate):
    monkeypatch.setattr(parallel, "count", lambda: processes)
    with pytest.raises(RunError, match=rf"batch of {batch_size}.*{processes} process.*--batch-size.*--accumulate"):
        check_parts(batch_size, accumulate)


def test_a_batch_is_dealt_evenly(monkeypatch):
    monkeypatch.setattr(parallel, "count", lambda: 2)
    check_parts(8, 2)
