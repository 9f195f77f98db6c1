"""Coverage-guided fuzzing of what strangers send: pictures, canvas messages, recipes, checkpoints.

    pip install atheris
    python -m tests.reliability.fuzz --minutes 10

atheris (libFuzzer) is no part of requirements-dev.txt. What it finds it writes to a file in the working directory:
`python -m tests.reliability.fuzz crash-...` runs that file once more.
"""

import argparse
import json
import os
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import torch

with suppress(ImportError):  # `main` says what to do
    import atheris

    with atheris.instrument_imports(include=["PIL", "gan_core"]):
        import PIL.Image

        from gan_core import checkpoint, image, recipe

from tests.reliability.messages import GOOD, GOOD_URL
from tests.reliability.pictures import whole

LIMITS = {"-rss_limit_mb": 3000, "-timeout": 30, "-max_len": 20_000}


class Faces:
    """Stands for a FaceMixer: what a recipe asks of it, without a network."""

    latent = 16

    @staticmethod
    def sample(count: int, seed: int):
        return torch.zeros(count, 16).numpy()


def attack(data: bytes, folder: Path) -> None:
    """One input; its first byte chooses who gets it. Anything but the errors that are explained is a finding."""
    if not data:
        return
    which, data = data[0] % 4, data[1:]
    if which in (0, 3):
        with suppress(image.PictureError):
            image.open_picture(data, max_pixels=1_000_000, draft=None if data[-1:] < b"\x80" else 64)
    elif which == 1:
        text = data.decode("utf-8", "surrogateescape")
        with suppress(image.PictureError):
            image.read_data_url(text)
        with suppress(recipe.RecipeError, ValueError, RecursionError):
            request = json.loads(text)
            if isinstance(request, dict):
                read_all(request)
    else:
        file = folder / "a.safetensors"
        file.write_bytes(data)
        with suppress(checkpoint.CheckpointError):
            checkpoint.load(file)


def read_all(request: dict) -> None:
    """What the boards read of a message. Only a RecipeError or a PictureError may come of it."""
    for read in (
        lambda: recipe.read_recipe(Faces, request),
        lambda: recipe.read_seed(request.get("seed")),
        lambda: image.read_data_url(request.get("drawing")),
    ):
        try:
            read()
        except (recipe.RecipeError, image.PictureError):
            continue
        except ValueError as error:  # which `attack` lets json.loads raise
            raise RuntimeError("not explained") from error


def write_corpus(folder: Path) -> None:
    """Whole pictures, messages and a checkpoint to start from."""
    for name, (_, data) in whole().items():
        (folder / name).write_bytes(b"\0" + data)
    for name, message in GOOD.items():
        (folder / name).write_bytes(b"\1" + json.dumps(message).encode())
    (folder / "url").write_bytes(b"\1" + GOOD_URL.encode())
    metadata = {"format": "gan_core", "version": "1", "task": "facades", "configs": '{"net": {}}', "facts": "{}"}
    checkpoint.write(folder / "checkpoint", {"net.weight": torch.ones(2)}, metadata)
    (folder / "checkpoint").write_bytes(b"\2" + (folder / "checkpoint").read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m tests.reliability.fuzz")
    parser.add_argument("files", nargs="*", help="findings to run once more")
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    if "atheris" not in sys.modules:
        raise SystemExit("error: atheris is missing. Install it: pip install atheris (Linux, Python 3.11 to 3.13)")
    warnings.simplefilter("ignore")
    PIL.Image.init()
    os.nice(19)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    write_corpus(corpus)
    limits = [f"{name}={value}" for name, value in LIMITS.items()]
    flags = [f"-max_total_time={round(60 * options.minutes)}", "-print_final_stats=1", *limits]
    arguments = [sys.argv[0], *(options.files or [*flags, str(corpus)])]
    atheris.Setup(arguments, lambda data: attack(data, folder), internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
