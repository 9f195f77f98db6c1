"""Throws bad input at every entry of this project and prints what became of it.

    python -m tests.reliability.hostile

Each input must be answered, or refused in a sentence that names the remedy; nothing else may come out, and after the
last one an honest request must be answered. Memory is the most that the process held beyond what it held before, while
one input was worked on. The exit code is 1 if anything went wrong.

An entry is a line in `entries`: its name, what is thrown at it, what takes one of them, and an honest request. What
takes an input returns "" for an answer, or the sentence of a refusal; whatever it raises counts as a traceback.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import httpx
import torch
from PIL import Image
from tqdm import tqdm

import app
from gan_core import __main__ as command_line
from gan_core.checkpoint import CheckpointError
from gan_core.facades import random_facade
from gan_core.image import to_data_url
from tests.conftest import draw_building, draw_portrait
from tests.reliability.checkpoints import MODELS, BadCheckpoint, bad_checkpoints, small_checkpoints
from tests.reliability.commands import bad_commands, run_command
from tests.reliability.messages import GOOD, bad_messages
from tests.reliability.pictures import BadPicture, bad_pictures, encode
from train import prepare

ROOT = Path(__file__).parents[2]
FACE = ROOT / "tests" / "data" / "faces" / "face_1.jpg"
LONGEST_WAIT = 120  # seconds; what takes longer hangs
LARGEST_GROWTH = 2000  # MB
REMEDY = re.compile(
    r"\b(again|allowed|at most|choose|clear|crop|draw|fetch|give|leave out|must|put|remove|rename|reload|save|scale|"
    r"train it|undo|update|use|check|paint|change|lower|invalid|required|expected|below|between|is no|needs|only)\b",
    re.IGNORECASE,
)
LEAKS = ("Traceback", 'File "', "site-packages", "Something went wrong")


class Hang(BaseException):
    """An input was not done with in LONGEST_WAIT seconds."""


@dataclass
class Entry:
    """See the module."""

    name: str
    inputs: Callable[[], Iterable]
    take: Callable[[object], str]
    honest: Callable[[], object]


@dataclass
class Row:
    """What became of the inputs of an entry. problems: (name of the input, what was wrong)."""

    name: str
    inputs: int = 0
    refused: int = 0
    answered: int = 0
    worst_time: float = 0.0
    slowest: str = ""
    peak: float = 0.0
    largest: str = ""
    problems: list[tuple[str, str]] = field(default_factory=list)
    distinct: set[str] = field(default_factory=set)


def identity(bad: object) -> str:
    """The same for the same input, whichever entry it is thrown at."""
    if isinstance(bad, BadPicture):
        parts = [bad.data, bad.name.encode("utf-8", "surrogatepass") if bad.kind == "name" else b""]
    elif isinstance(bad, BadCheckpoint):
        parts = [bad.task.encode(), bad.data]
    else:
        parts = [bad.key.encode("utf-8", "surrogatepass")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def try_all(entry: Entry, inputs: Iterable) -> Row:
    row = Row(entry.name)
    for bad in inputs:
        name = f"{bad.kind}: {bad.name}"
        row.inputs += 1
        row.distinct.add(identity(bad))
        before, start = reset_peak(), time.perf_counter()
        try:
            with watchdog():
                message = entry.take(bad)
        except (Exception, SystemExit, Hang) as error:
            row.problems.append((name, f"{type(error).__name__}: {error}"))
        else:
            row.refused += bool(message)
            row.answered += not message
            if message and (not REMEDY.search(message) or any(leak in message for leak in LEAKS)):
                row.problems.append((name, f"is no help: {message:.300}"))
        seconds, growth = time.perf_counter() - start, peak() - before
        if seconds > row.worst_time:
            row.worst_time, row.slowest = seconds, name
        if growth > row.peak:
            row.peak, row.largest = growth, name
        if growth > LARGEST_GROWTH:
            row.problems.append((name, f"took {growth:.0f} MB"))
    try:
        entry.honest()
    except Exception as error:
        row.problems.append(("the honest request afterwards", f"{type(error).__name__}: {error}"))
    return row


@contextlib.contextmanager
def watchdog() -> Iterator[None]:
    def ring(*_):
        raise Hang(f"no end after {LONGEST_WAIT} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST_WAIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def reset_peak() -> float:
    """Forgets the most memory that this process has held, where Linux allows it. Returns what it holds, in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> float:
    """The most memory in MB since `reset_peak`."""
    with contextlib.suppress(OSError):
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    return 0.0


# --- The entries -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def entries(folder: Path) -> Iterator[list[Entry]]:
    """All of them, on small networks that live in `folder`; the working directory moves there too."""
    checkpoints = small_checkpoints(folder / "checkpoints")
    logging.getLogger("app").addFilter(lambda record: False)
    loop = asyncio.new_event_loop()
    offline = patch("train.prepare.load_tables", side_effect=prepare.DataError("there is no such data set; check it."))
    few, quiet = patch.object(app, "GALLERY", [1, 2]), warnings.catch_warnings()
    with offline, few, working_in(folder), quiet, app.upload_folder():
        warnings.simplefilter("ignore")
        demo = app.create_demo(checkpoints)
        options = {"server_name": "127.0.0.1", "mcp_server": True, "rate": 1e6}
        _, served, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, **options)
        with patch.object(command_line, "CHECKPOINTS", checkpoints):
            yield list(all_entries(demo, served, checkpoints, loop))
        demo.close()
    loop.close()


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def all_entries(demo, served: str, checkpoints: Path, loop: asyncio.AbstractEventLoop) -> Iterator[Entry]:
    handlers = {function.name: function.fn for function in demo.fns.values()}
    boards = {block.predictor.task.name: block for block in demo.blocks.values() if isinstance(block, app.LiveBoard)}
    mix = next(block for block in demo.blocks.values() if isinstance(block, app.MixBoard))
    view = next(block for block in demo.blocks.values() if isinstance(block, app.SegmentView))
    good = encode(draw_portrait(), "PNG")
    for split in ("train", "val"):
        for side, picture in zip(("source", "target"), draw_building(1)):
            Path("pairs", split, side).mkdir(parents=True)
            picture.save(f"pairs/{split}/{side}/a.png")
    label_map = encode(random_facade(1), "PNG")
    url = {"sketch2face": GOOD["redraw"]["drawing"], "facades": to_data_url(random_facade(1), "PNG")}

    def call(board, function: str, data: object) -> str:
        answer = loop.run_until_complete(getattr(board, function)(data)) if function != "examples" else {}
        return answer.get("error", "")

    def as_url(data: bytes, kind: str = "png") -> str:
        return f"data:image/{kind};base64," + app.to_base64(data)

    for task, board in boards.items():
        yield Entry(
            f"canvas {task}: pictures",
            bad_pictures,
            lambda bad, board=board: call(board, "redraw", {"drawing": as_url(bad.data), "realism": True}),
            lambda board=board, task=task: must_answer(call(board, "redraw", {"drawing": url[task]})),
        )
        yield Entry(
            f"canvas {task}: messages",
            lambda: bad_messages("pix2pix"),
            lambda bad, board=board: call(board, bad.kind, bad.data),
            lambda board=board, task=task: must_answer(call(board, "redraw", {"drawing": url[task]})),
        )
    yield Entry(
        "Mix: own pictures",
        bad_pictures,
        lambda bad: call(mix, "encode", {"picture": as_url(bad.data, "jpeg")}),
        lambda: must_answer(call(mix, "encode", GOOD["encode"])),
    )
    yield Entry(
        "Mix: messages",
        lambda: bad_messages("mix"),
        lambda bad: call(mix, bad.kind, bad.data),
        lambda: must_answer(call(mix, "blend", GOOD["blend"])),
    )

    def warned(handler: Callable, *arguments: object, show: Callable = lambda answer: None) -> str:
        """Calls a handler of an upload; what gr.Warning would show, else ""."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            answer = handler(*arguments)
        if told := [str(one.message) for one in told if one.category is UserWarning]:
            return " ".join(told)
        show(answer)
        return ""

    upload, open_map, segment = handlers["lines_of_upload"], handlers["open_map"], handlers["show"]
    yield Entry(
        "upload to Sketch",
        bad_pictures,
        lambda bad: warned(upload, bad.data, 0.5, show=lambda answer: boards["sketch2face"].postprocess(answer[0])),
        lambda: must_answer(warned(upload, FACE.read_bytes(), 0.5)),
    )
    yield Entry(
        "upload to Facade",
        bad_pictures,
        lambda bad: warned(open_map, bad.data, show=boards["facades"].postprocess),
        lambda: must_answer(warned(open_map, label_map)),
    )
    yield Entry(
        "upload and webcam to Segment",
        bad_pictures,
        lambda bad: warned(segment, on_disk(bad), show=lambda answer: view.postprocess(answer[1])),
        lambda: must_answer(warned(segment, on_disk(BadPicture("", "good.png", good)))),
    )

    for endpoint, argument, honest in (
        ("sketch2face", "drawing", FACE.read_bytes()),
        ("facades", "label_map", label_map),
        ("segmentation", "photo", good),
        ("mix", "first", good),
    ):
        for name, call_endpoint in (("API", call_api), ("MCP", call_tool)):
            take = partial(call_endpoint, served, endpoint, argument)
            yield Entry(
                f"{name} {endpoint}: pictures",
                bad_pictures,
                take,
                lambda take=take, honest=honest: must_answer(take(BadPicture("", "good.png", honest))),
            )

    for task, honest in (
        ("sketch2face", FACE.read_bytes()),
        ("facades", label_map),
        ("segmentation", good),
        ("vaegan", good),
    ):
        yield Entry(
            f"python -m gan_core {task}: pictures",
            bad_pictures,
            lambda bad, task=task: run_command(command_line.main, [task, on_disk(bad), "-o", "out/answer.png"]),
            lambda task=task, honest=honest: must_answer(
                run_command(command_line.main, [task, on_disk(BadPicture("", "a.png", honest)), "-o", "out/a.png"])
            ),
        )
    yield Entry(
        "commands: options",
        bad_commands,
        lambda bad: run_command(bad.main, bad.arguments),
        lambda: must_answer(run_command(command_line.main, ["vaegan", "--samples", "1", "-o", "out/"])),
    )
    for kind, lay in (("faces", alone), ("anime", alone), ("facades", beside_a_map), ("voc", as_mask)):
        yield Entry(
            f"train.prepare {kind}",
            bad_pictures,
            lambda bad, kind=kind, lay=lay: prepare_one(kind, lay, bad),
            lambda kind=kind, lay=lay: None,  # each call prepares a good picture beside the bad one
        )

    def open_checkpoint(bad: BadCheckpoint) -> str:
        file = Path("bad", f"{bad.task}.safetensors")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bad.data)
        try:
            use(MODELS[bad.task].from_checkpoint(file), bad.task)
        except CheckpointError as error:
            return str(error)
        return ""

    yield Entry(
        "checkpoints",
        lambda: bad_checkpoints(checkpoints),
        open_checkpoint,
        lambda: use(MODELS["facades"].from_checkpoint(checkpoints / "facades.safetensors"), "facades"),
    )


def call_api(served: str, endpoint: str, argument: str, bad: BadPicture) -> str:
    """Uploads a file under its name, and asks an endpoint what it makes of it."""
    try:
        answer = httpx.post(f"{served}gradio_api/upload", files={"files": (bad.name, bad.data)}, timeout=LONGEST_WAIT)
    except UnicodeEncodeError:  # a name that cannot be sent
        answer = httpx.post(f"{served}gradio_api/upload", files={"files": ("a", bad.data)}, timeout=LONGEST_WAIT)
    if answer.status_code != 200:
        return answer.text
    request = {argument: {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}}
    event = httpx.post(f"{served}gradio_api/call/v2/{endpoint}", json=request, timeout=LONGEST_WAIT).json()["event_id"]
    stream = httpx.get(f"{served}gradio_api/call/{endpoint}/{event}", timeout=LONGEST_WAIT).text
    kind, data = re.search(r"event: (complete|error)\ndata: (.*)", stream).groups()
    return "" if kind == "complete" else json.loads(data)["error"]


def call_tool(served: str, endpoint: str, argument: str, bad: BadPicture) -> str:
    """Sends the bytes of a file to an MCP tool."""
    given = {argument: f"data:image/png;base64,{app.to_base64(bad.data)}"}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": endpoint, "arguments": given}}
    accept = {"accept": "application/json, text/event-stream"}
    answer = httpx.post(f"{served}gradio_api/mcp/", json=request, headers=accept, timeout=LONGEST_WAIT).text
    said = json.loads(answer.partition("data: ")[2] or answer)
    if "result" not in said:
        return str(said["error"])
    return said["result"]["content"][0]["text"] if said["result"].get("isError") else ""


def must_answer(message: str) -> None:
    if message:
        raise AssertionError(message)


def on_disk(bad: BadPicture) -> str:
    """The file under its own name, as far as a file system takes it; else the name itself, which leads nowhere."""
    Path("files").mkdir(exist_ok=True)
    with contextlib.suppress(OSError, ValueError):
        for old in Path("files").iterdir():
            old.unlink()
        file = Path("files", bad.name)
        file.write_bytes(bad.data)
        if file.is_file() and file.resolve().parent == Path("files").resolve():
            return str(file)
    return bad.name.replace("\0", "").encode(errors="replace").decode() or "files"


def use(model, task: str) -> None:
    """One answer of each kind."""
    if task == "vaegan":
        model.decode(model.push(model.sample(1, 1), [1.0]))
        model.mix(model.encode(Image.new("RGB", (64, 64)))[None], [1])
    elif task == "segmentation":
        model.segment(Image.new("RGB", (64, 64)))
    else:
        source = random_facade(1) if model.channels == 3 else Image.new("L", (64, 64))
        model.predict_variants(source, 2)
        if model.discriminator:
            model.realism(source, model.predict(source))


# --- Preparing: a bad picture beside a good one ------------------------------------------------------------


def alone(folder: Path, bad: BadPicture, suffix: str) -> None:
    (folder / f"bad{suffix}").write_bytes(bad.data)
    (folder / "good.jpg").write_bytes(FACE.read_bytes())


def beside_a_map(folder: Path, bad: BadPicture, suffix: str) -> None:
    label_map, photo = draw_building(1, 64)
    for side, name in (("maps", "good"), ("photos", "good"), ("maps", "bad")):
        (folder / side).mkdir(exist_ok=True)
        (label_map if side == "maps" else photo).save(folder / side / f"{name}.png")
    (folder / "photos" / f"bad{suffix}").write_bytes(bad.data)


def as_mask(folder: Path, bad: BadPicture, suffix: str) -> None:
    for side, name in (("images", "good"), ("masks", "good"), ("images", "bad")):
        (folder / side).mkdir(exist_ok=True)
        Image.new("L" if side == "masks" else "RGB", (64, 48)).save(folder / side / f"{name}.png")
    (folder / "masks" / f"bad{suffix}").write_bytes(bad.data)


def prepare_one(kind: str, lay: Callable[[Path, BadPicture, str], None], bad: BadPicture) -> str:
    """Prepares a bad picture and a good one. Returns why the bad one was skipped, or ""."""
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name, "in"), Path(name, "out")
        folder.mkdir()
        suffix = Path(bad.name.replace("\0", "")).suffix.lower()
        lay(folder, bad, suffix if suffix in prepare.PICTURES else ".png")
        message = run_command(prepare.main, [kind, str(folder), str(out), "--workers", "1"])
        if message:
            raise AssertionError(f"the good picture was lost: {message}")
        return (out / "skipped.txt").read_text().strip()


# --- The table --------------------------------------------------------------------------------------------


def show(rows: list[Row]) -> None:
    print("| entry | inputs | refused politely | answered | tracebacks and the like | worst time | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.name} | {row.inputs} | {row.refused} | {row.answered} | {len(row.problems)} | "
            f"{row.worst_time:.1f} s | {row.peak:.0f} MB |"
        )
    distinct = set().union(*(row.distinct for row in rows))
    print(f"| **all** | {sum(row.inputs for row in rows)}, {len(distinct)} of them distinct |", end="")
    for total in (
        sum(row.refused for row in rows),
        sum(row.answered for row in rows),
        sum(len(row.problems) for row in rows),
    ):
        print(f" {total} |", end="")
    print(f" {max(row.worst_time for row in rows):.1f} s | {max(row.peak for row in rows):.0f} MB |")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m tests.reliability.hostile", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="entries whose name holds this")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth input, others for each entry")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name, entries(Path(name)) as all_of_them:
        for number, entry in enumerate(all_of_them):
            if options.only in entry.name:
                inputs = islice(entry.inputs(), number % options.every, None, options.every)
                rows.append(try_all(entry, tqdm(inputs, desc=entry.name, leave=False)))
                print(
                    f"{entry.name}: slowest {rows[-1].slowest!a:.90}, largest {rows[-1].largest!a:.90}", file=sys.stderr
                )
                for bad, problem in rows[-1].problems[:20]:
                    print(f"{entry.name}: {bad!a:.100}: {problem!a:.400}", file=sys.stderr)
    show(rows)
    return int(any(row.problems for row in rows))


if __name__ == "__main__":
    sys.exit(main())
