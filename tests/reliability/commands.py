"""Command lines that make no sense, and how to run one in this process."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest.mock import patch

from gan_core import __main__ as command_line
from train import evaluate, pix2pix, prepare


@dataclass(frozen=True)
class BadCommand:
    """kind: the module. name: its arguments."""

    kind: str
    name: str
    main: Callable
    arguments: list[str]

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name}"


NUMBERS = [
    "",
    " ",
    "a",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e400",
    "9" * 400,
    "0x10",
    "1_0",
    "٣",
    "1.5",
    "--",
    "1;ls",
    "\ud800",
]
PLACES = ["", ".", "..", "/", "/dev/null", "/proc/self/mem", "a\nb", "x" * 300, "~", "$HOME", "-", "🙂", "a.png/b.png"]


def bad_commands() -> Iterator[BadCommand]:
    def command(module, kind: str, *arguments: str) -> BadCommand:
        return BadCommand(kind, repr(arguments), module.main, list(arguments))

    for task in ("sketch2face", "facades", "segmentation", "vaegan"):
        yield command(command_line, "gan_core", task)
        for place in PLACES:
            yield command(command_line, "gan_core", task, place, "-o", "out/")
            yield command(command_line, "gan_core", task, "no.png", "-o", place)
            yield command(command_line, "gan_core", task, "no.png", "-o", "out/", "--checkpoint", place)
        for device in ("", "gpu", "cuda:99", "meta", "cpu:-1", "\ud800"):
            yield command(command_line, "gan_core", task, "no.png", "-o", "out/", "--device", device)
    for number in NUMBERS:
        for option in ("--variants", "--seed", "--detail"):
            yield command(command_line, "gan_core", "sketch2face", "no.png", "-o", "out/", option, number)
        for option in ("--seeds", "--weights", "--samples", "--seed"):
            yield command(command_line, "gan_core", "vaegan", "no.png", "-o", "out/", option, number)
        yield command(command_line, "gan_core", "vaegan", "--samples", number, "-o", "out/")
        for kind in ("faces", "anime", "facades", "voc"):
            for option in ("--val", "--workers"):
                yield command(prepare, "train.prepare", kind, "nowhere", "out/data", option, number)
        yield command(evaluate, "train.evaluate", "facades", "--checkpoint", number, "--data", ".", "--out", "out/e")
        if number not in ("1.5", "1_0", "٣"):  # these would train
            run = ("--data", "pairs", "--out", "out/run", "--stop-at", "0", "--batch-size", number)
            yield command(pix2pix, "train.pix2pix", "facades", *run)
    for place in sorted(set(PLACES) - {"/", "..", "."}):  # in which there are too many pictures
        for kind in ("faces", "anime", "facades", "voc"):
            yield command(prepare, "train.prepare", kind, place, "out/data", "--workers", "1")
    for arguments in ([], ["-h", "x"], ["nonsense"], ["--"], ["\ud800"], ["sketch2face", "--evil"], ["@/etc/passwd"]):
        yield command(command_line, "gan_core", *arguments)
        yield command(prepare, "train.prepare", *arguments)


def run_command(main: Callable, arguments: list[str]) -> str:
    """What a command said when it refused, or "" if it did its work."""
    out, errors = io.TextIOWrapper(io.BytesIO(), "utf-8", "replace"), io.StringIO()
    out.isatty = lambda: False
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
        patch("sys.stdin", io.TextIOWrapper(io.BytesIO())),
    ):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
    if isinstance(code, str):
        return code
    return "" if not code else errors.getvalue()
