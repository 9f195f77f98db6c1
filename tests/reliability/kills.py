"""Kills training runs with `kill -9` at random moments, goes on with them, and compares them with uninterrupted ones.

    python -m tests.reliability.kills [--times 20] [--seed N]
    python -m tests.reliability.kills --prepare [--times 20]

Tiny networks, real commands: pix2pix, segmentation and the VAE-GAN in turn; with --prepare, `train.prepare` on photos
and on class maps. Half of the kills come at a random time, the other half just before a random file operation, since
few moments of a run are spent on files and these are the dangerous ones. A run is killed until it gets to its end,
and must then be the same as the uninterrupted one, file by file and bit by bit, but for the times in its log.

Every life is a fork of one process, so that torch is imported once. Not for Windows.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch

from gan_core import checkpoint
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import VOC
from gan_core.patchgan import PatchGANConfig
from gan_core.segmentation import PaletteDiscriminatorConfig, SegmentationConfig
from gan_core.unet import UNetConfig
from gan_core.vae_gan import DiscriminatorConfig
from tests.conftest import draw_building, draw_portrait
from tests.train.conftest import draw_scene
from tests.train.runs import same
from train import pix2pix, prepare, segmentation, vae_gan
from train.run import RunFolder, read_state

TIMES = {"seconds", "images_per_second"}  # what no two runs have in common


@dataclass(frozen=True)
class Kind:
    """A command that can be killed. start, go_on: its arguments for a folder, without and with an earlier life."""

    name: str
    main: Callable
    start: Callable[[Path], list]
    go_on: Callable[[Path], list]


# --- What is killed ----------------------------------------------------------------------------------


def shrink_presets() -> None:
    """In this process, `best` is a recipe of twelve steps for tiny networks."""
    tiny = {"epochs": 3, "batch_size": 2, "precision": "float32"}
    pix2pix.PRESETS["facades"]["best"] = replace(
        pix2pix.PRESETS["facades"]["best"],
        generator=UNetConfig(base_channels=2, norm="batch", upsampling="mixed", refine_channels=2, noise=True),
        discriminator=PatchGANConfig(base_channels=2),
        **tiny,
    )
    unet = MaxPoolUNetConfig(12, len(VOC), widths=(8, 16), residual=1, context=True, dropout=0.1)
    segmentation.PRESETS["best"] = replace(
        segmentation.PRESETS["best"],
        generator=SegmentationConfig(unet, paints="classes", block=2, size=32, square=False),
        discriminator=PaletteDiscriminatorConfig(widths=(4, 8, 8)),
        size=16,
        grown_size=32,
        grow_from=0.6,
        validate_every=1,
        **tiny,
    )
    vae_gan.PRESETS["best"] = replace(
        vae_gan.PRESETS["best"],
        vae=replace(vae_gan.PRESETS["best"].vae, latent=8, widths=(4, 4, 8, 8, 8), refine_channels=4),
        discriminator=DiscriminatorConfig(trunk="patch", widths=(4, 8, 8, 8)),
        **tiny,
    )


def draw_data(folder: Path) -> None:
    """Eight training pictures and two held-out ones for each kind."""
    for number in range(10):
        split = "train" if number < 8 else "val"
        pictures = {
            f"facades/{split}/source/{number}.png": draw_building(number)[0],
            f"facades/{split}/target/{number}.png": draw_building(number)[1],
            f"voc/{split}/photos/{number}.png": draw_scene(number)[0],
            f"voc/{split}/labels/{number}.png": draw_scene(number)[1],
            f"anime/{split}/{number}.png": draw_portrait(number, 96),
            f"photos/{split}/{number}.png": draw_portrait(number),
        }
        for name, picture in pictures.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / name)


def warm_up(folder: Path) -> None:
    """What each life would load anew. Nothing is trained: a fork could not use what that leaves behind."""
    vae_gan.Training(vae_gan.PRESETS["best"], 1, torch.device("cpu"))
    run = RunFolder.create(folder, "vaegan", {})
    run.log([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}])
    run.plot_losses()
    run.save_sample(draw_portrait(), 1)


def list_trainings(data: Path, workers: int) -> list[Kind]:
    kinds = []
    for name, folder, main, words in (
        ("pix2pix", "facades", pix2pix.main, ["facades"]),
        ("segmentation", "voc", pix2pix.main, ["segmentation"]),
        ("vae_gan", "anime", vae_gan.main, []),
    ):
        common = [*words, "--data", data / folder, "--device", "cpu", "--workers", workers]
        common += ["--save-every", 4, "--sample-every", 5]
        kinds.append(
            Kind(name, main, lambda run, c=common: [*c, "--out", run], lambda run, c=common: [*c, "--resume", run])
        )
    return kinds


def list_preparations(data: Path, workers: int) -> list[Kind]:
    kinds = []
    for name, folder, options in (("faces", "photos", ["--pairs", 1]), ("voc", "voc", [])):

        def command(out: Path, words=(name, data / folder), options=options) -> list:
            return [*words, out, "--workers", max(1, workers), *options]

        kinds.append(Kind(f"prepare {name}", prepare.main, command, command))
    return kinds


# --- Lives and deaths --------------------------------------------------------------------------------


def operations_in(folder: Path, act: Callable[[int], None]) -> None:
    """From now on, calls `act` with 1, 2, 3 ... before each file operation of this process in the folder."""
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod") and str(arguments[0]).startswith(
            str(folder)
        ):
            seen += 1
            act(seen)

    sys.addaudithook(watch)


def live(kind: Kind, folder: Path, output: Path, act: Callable[[int], None] = lambda number: None) -> int:
    """Runs the command in a fork, from where an earlier life left off. act: see `operations_in`. Returns its id."""
    arguments = kind.go_on(folder) if (folder / "options.json").is_file() else kind.start(folder)
    child = os.fork()
    if child:
        return child
    code = 2
    try:
        with open(output, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        operations_in(folder, act)
        kind.main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as error:
        print(error)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def end_of(child: int, seconds: float | None = None) -> int | None:
    """Waits for a life to end, at most so many seconds; its exit code, minus the signal if one ended it."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, 0 if deadline is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def kill_once(kind: Kind, folder: Path, output: Path, usual: tuple[int, float], dice: random.Random) -> str | None:
    """Lives once and dies at random. Returns how, or None if it got to its end first.

    usual: file operations and seconds of an uninterrupted life.
    """
    operations, seconds = usual
    if dice.random() < 0.5:
        fatal = dice.randint(1, operations)
        how = f"before file operation {fatal}"

        def act(number: int) -> None:
            if number == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        code = end_of(live(kind, folder, output, act))
    else:
        moment = dice.uniform(0, seconds)
        how = f"after {moment:.2f} s"
        child = live(kind, folder, output)
        code = end_of(child, moment)
        if code is None:
            os.kill(child, signal.SIGKILL)
            code = end_of(child)
    if code == -signal.SIGKILL:
        return how
    if code:
        raise SystemExit(f"{kind.name} ended with {code}:\n{output.read_text()}")
    return None


# --- Comparing ---------------------------------------------------------------------------------------


def differences(folder: Path, other: Path) -> list[str]:
    """The files in which two folders differ, but for the clock, and for what has no meaning."""
    names = {path.relative_to(top) for top in (folder, other) for path in top.rglob("*") if path.is_file()}
    return sorted(str(name) for name in names - {Path(".lock")} if not same_file(folder / name, other / name))


def same_file(file: Path, other: Path) -> bool:
    if not (file.is_file() and other.is_file()):
        return False
    if file.suffix == ".pt":
        return same(read_state(file), read_state(other))
    if file.suffix == ".safetensors":
        a, b = (vars(checkpoint.load(path)) for path in (file, other))
        return same(without_times(a), without_times(b))
    if file.suffix == ".jsonl":
        a, b = ([without_times(json.loads(line)) for line in path.read_text().splitlines()] for path in (file, other))
        # What was skipped is tried again by `prepare` when it goes on, and comes later.
        return sorted(a, key=str) == sorted(b, key=str) if file.name == prepare.DONE else a == b
    return file.read_bytes() == other.read_bytes()


def without_times(record: dict) -> dict:
    known = {key: value for key, value in record.items() if key not in TIMES}
    return {key: without_times(value) if isinstance(value, dict) else value for key, value in known.items()}


# --- The trial ---------------------------------------------------------------------------------------


def trial(kinds: list[Kind], folder: Path, times: int, dice: random.Random) -> tuple[int, int]:
    """Kills the kinds in turn, `times` in all, and finishes what was killed. Returns (runs, those that differ)."""
    output = folder / "output.txt"
    usual = {}
    for kind in kinds:
        count, start = folder / "count.txt", time.monotonic()
        run = folder / kind.name / "uninterrupted"
        if end_of(live(kind, run, output, lambda number, file=count: file.write_text(str(number)))):
            raise SystemExit(f"{kind.name} fails without being killed:\n{output.read_text()}")
        usual[kind.name] = int(count.read_text()), time.monotonic() - start
        print(f"{kind.name}: {usual[kind.name][0]} file operations, {usual[kind.name][1]:.1f} s", flush=True)

    kills = runs = wrong = 0
    turn = {kind.name: 0 for kind in kinds}

    def judge(kind: Kind) -> None:
        nonlocal runs, wrong
        run = folder / kind.name / str(turn[kind.name])
        different = differences(run, folder / kind.name / "uninterrupted")
        runs, wrong = runs + 1, wrong + bool(different)
        print(f"          {kind.name}: {f'DIFFERS in {different}' if different else 'equal, bit by bit'}", flush=True)
        if not different:
            shutil.rmtree(run)
        turn[kind.name] += 1

    killed: dict[str, int] = dict.fromkeys(turn, 0)
    while kills < times:
        kind = kinds[kills % len(kinds)]
        how = kill_once(kind, folder / kind.name / str(turn[kind.name]), output, usual[kind.name], dice)
        if how:
            kills, killed[kind.name] = kills + 1, killed[kind.name] + 1
            print(f"kill {kills:4} {kind.name} {how}{last_words(output)}", flush=True)
        elif killed[kind.name]:
            judge(kind)
            killed[kind.name] = 0
        else:  # it was over before the blow
            shutil.rmtree(folder / kind.name / str(turn[kind.name]))
    for kind in kinds:
        if killed[kind.name]:
            if code := end_of(live(kind, folder / kind.name / str(turn[kind.name]), output)):
                raise SystemExit(f"{kind.name} ended with {code}:\n{output.read_text()}")
            judge(kind)
    return runs, wrong


def last_words(output: Path) -> str:
    """Where that life began."""
    said = [line for line in output.read_text().splitlines() if line.startswith("Going on") or "beginning" in line]
    return f" ({said[-1].rpartition(': ')[2].rstrip('.')})" if said else ""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20, help="how many kills")
    parser.add_argument("--prepare", action="store_true", help="kill train.prepare instead")
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a fork has no threads but its own
    cv2.setNumThreads(1)
    shrink_presets()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder) / "warm-up")
        draw_data(Path(folder) / "data")
        kinds = (list_preparations if options.prepare else list_trainings)(Path(folder) / "data", options.workers)
        kinds = kinds[: options.times]  # the others have no turn
        runs, wrong = trial(kinds, Path(folder), options.times, random.Random(options.seed))
    print(
        f"{options.times} kills in {runs} runs (seed {options.seed}, {time.monotonic() - start:.0f} s): "
        f"{runs - wrong} of {runs} runs equal the uninterrupted one, bit by bit."
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
