"""Training on a disk that fills up: a small tmpfs where one may be mounted, else files that may not grow."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gan_core.vae_gan import DiscriminatorConfig
from tests.train.runs import same
from train import vae_gan
from train.run import RunFolder

MEGABYTE = 1_000_000


@pytest.fixture
def disk(tmp_path) -> Iterator[tuple[Path, Callable]]:
    """A folder, and what fills its disk (True) up to some room, and makes all the room again (False)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        pass
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(full: bool, room: int = 0) -> None:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, ((room or 50_000) if full else soft, hard))
        elif full:
            with open(folder / "filler", "wb", buffering=0) as file, pytest.raises(OSError):
                while True:
                    file.write(bytes(4096))
            os.truncate(folder / "filler", (folder / "filler").stat().st_size - room)
        else:
            (folder / "filler").unlink()

    yield folder, fill
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def command(monkeypatch, tmp_path, portrait):
    """`python -m train.vae_gan` with tiny networks: four steps, and a state of some 100 kB after every second."""
    best = vae_gan.PRESETS["best"]
    tiny = replace(
        best,
        vae=replace(best.vae, latent=8, widths=(4, 4, 8, 8, 8), refine_channels=4),
        discriminator=DiscriminatorConfig(trunk="patch", widths=(4, 8, 8, 8)),
        epochs=2,
        batch_size=2,
        precision="float32",
    )
    monkeypatch.setitem(vae_gan.PRESETS, "best", tiny)
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        (tmp_path / "data" / split).mkdir(parents=True)
        for seed in seeds:
            portrait(seed, 96).save(tmp_path / "data" / split / f"{seed}.png")
    start = ["--data", str(tmp_path / "data"), "--device", "cpu", "--save-every", "2"]
    return lambda *arguments: vae_gan.main([*start, *map(str, arguments)])


def test_a_full_disk_stops_a_run_with_the_way_on_and_it_ends_as_if_there_had_been_room(
    command, disk, tmp_path, monkeypatch
):
    (folder, fill), step = disk, vae_gan.Training.train_step
    run, before = folder / "run", {}
    command("--out", tmp_path / "straight")

    def step_and_fill(training, real):
        if training.step == 2:
            before.update({path: path.read_bytes() for path in run.iterdir() if path.suffix in (".pt", ".safetensors")})
            fill(True)
        return step(training, real)

    monkeypatch.setattr(vae_gan.Training, "train_step", step_and_fill)
    with pytest.raises(SystemExit, match=r"(No space left on device|File too large).*after step 2, is in .* --resume"):
        command("--out", run)
    monkeypatch.setattr(vae_gan.Training, "train_step", step)
    assert {path.name for path in before} == {"state.pt", "vaegan.safetensors"}
    assert all(path.read_bytes() == data for path, data in before.items())
    assert not list(run.rglob("*.partial"))
    with pytest.raises(SystemExit, match=rf"(No space left on device|File too large).*state.* is in {run}; go on with"):
        command("--resume", run)  # there is no room yet

    fill(False)
    command("--resume", run)
    states = [RunFolder(path).load_state() for path in (run, tmp_path / "straight")]
    assert states[0]["step"] == 4 and same(*states)


@pytest.mark.parametrize("size", [1, 3])
def test_a_state_that_does_not_fit_leaves_the_last_one_and_no_rest(disk, size):
    """Half a state is written before the disk is full."""
    run = RunFolder.create(disk[0] / "run", "vaegan", {})
    state = {"step": 1, "weight": torch.randn(size * MEGABYTE // 4)}
    run.save_state(state)
    disk[1](True, size * MEGABYTE // 2)
    with pytest.raises(OSError, match=r"state after step 2 cannot be written to .*run, where .* MB are free"):
        run.save_state(state | {"step": 2})
    assert not list(run.path.rglob("*.partial"))
    assert same(run.load_state(), state)
