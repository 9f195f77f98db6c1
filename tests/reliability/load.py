"""How do honest visitors fare while others abuse the app?   python -m tests.reliability.load [--minutes 10]

Starts `python app.py` in a process of its own and measures the same visitors three times: alone, with all the abuse at
once, and alone again. They draw as people do: at most ten moves a second, the next only when the answer to the last one
is there. A second process is the rest of the crowd: visitors who hold the page open, and those who send garbage and
100 MB, dawdle and hang up. Each has an address of its own (127.0.x.y, on Linux). All share the cores with the server.

Prints tables. The exit code is 1 if the server has died or printed a traceback, did not answer somebody honest, became
more than twice as slow, or holds over 5 % more memory afterwards.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path

import httpx
import numpy as np

from app import SESSIONS
from gan_core.image import to_data_url
from gan_core.lineart import random_doodle
from tests.waiting import free_port

ROOT = Path(__file__).parents[2]
MOVES = 10  # a second, of one visitor, at most
SENTENCE = 90  # characters of a refusal that are shown
POST = "POST /gradio_api/component_server HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
UPLOAD, CHUNK = 100_000_000, 100_000  # bytes


def visitor(number: int, kind: int = 1) -> httpx.AsyncClient:
    """A visitor with an address of their own. kind: 1 draws, 2 looks on, 3 abuses."""
    transport = httpx.AsyncHTTPTransport(local_address=f"127.0.{kind}.{number + 1}")
    return httpx.AsyncClient(transport=transport, timeout=120)


# --- Honest visitors ---------------------------------------------------------------------------------------


async def draw(url: str, board: int, number: int, seconds: float, tally: Counter) -> list[float]:
    """Draws for so long. Returns the seconds that each picture took; `tally` counts what else came."""
    drawings = [to_data_url(random_doodle(100 * number + i), "PNG") for i in range(8)]
    body = {"session_hash": f"drawing{number}", "component_id": board, "fn_name": "redraw"}
    delays, end = [], time.perf_counter() + seconds
    async with visitor(number) as client:
        while (begin := time.perf_counter()) < end:
            data = {"drawing": drawings[len(delays) % len(drawings)]}
            try:
                answer = await client.post(f"{url}gradio_api/component_server", json=body | {"data": data})
                if "picture" in answer.json():
                    delays.append(time.perf_counter() - begin)
                else:
                    tally[told(answer)] += 1
            except (httpx.HTTPError, ValueError) as error:
                tally[f"no answer: {type(error).__name__}"] += 1
            await asyncio.sleep(max(0.0, begin + 1 / MOVES - time.perf_counter()))
    return delays


async def crowd(url: str, board: int, visitors: int, seconds: float) -> tuple[list[float], Counter]:
    tally = Counter()
    delays = await asyncio.gather(*(draw(url, board, number, seconds, tally) for number in range(visitors)))
    return [delay for each in delays for delay in each], tally


async def look_on(url: str, number: int, end: float, tally: Counter) -> None:
    """Opens the page, and leaves it open."""
    async with visitor(number, 2) as client:
        await asyncio.sleep(number / 20)
        page = await client.get(url)
        tally[told(page)] += 1
        async with client.stream("GET", f"{url}gradio_api/heartbeat/looking{number}") as beats:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(read_all(beats), end - time.time())
                tally["closed by the server"] += 1


async def read_all(stream: httpx.Response) -> None:
    async for _ in stream.aiter_raw():
        pass


def told(answer: httpx.Response) -> str:
    """The status of an answer, and the sentence if it is a refusal."""
    with contextlib.suppress(ValueError, AttributeError):
        said = answer.json()
        if said := said.get("error") or said.get("detail"):
            return f"{answer.status_code} {str(said)[:SENTENCE]}"
    return f"{answer.status_code}" + (f" {answer.text[:SENTENCE]}" if answer.status_code >= 400 else "")


# --- Abuse -------------------------------------------------------------------------------------------------


def garbage(dice: random.Random, boards: list[int]) -> tuple[str, str, bytes, str]:
    """A request that means nothing: method, path, body and its type."""
    junk = dice.randbytes(dice.choice([0, 1, 30, 3000]))
    text = junk.hex() * dice.choice([1, 1, 1, 300])
    values = [
        None,
        7,
        -1e308,
        "a",
        text,
        [],
        {},
        [[[]]],
        {"drawing": text},
        {"drawing": ["a"]},
        {"faces": [{"seed": -1}]},
    ]
    values += [
        {"drawing": f"data:image/png;base64,{text}"},
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    ]
    board = {
        "session_hash": dice.choice(["a", "b", "c", text[:40], None, 7]),
        "component_id": dice.choice([*boards, 99999, -1, "a", None]),
        "fn_name": dice.choice(["redraw", "variants", "blend", "sheet", "__init__", "postprocess", text[:40], None]),
        "data": dice.choice(values),
    }
    event = {"data": dice.choice([[], [None] * 9, *values]), "fn_index": dice.choice([0, 3, 999, -1, "a", None])}
    call = {"data": dice.choice([[], [dice.choice(values)], [dice.choice(values)] * 4])}
    messages = [
        json.dumps(board),
        json.dumps(event | {"session_hash": "a"}),
        json.dumps(call),
        "{" * 2000,
        "[" * 100_000,
    ]
    name = dice.choice(["sketch2face", "facades", "segmentation", "mix", "lines", "nothing", text[:40] or "x"])
    paths = [
        *["component_server"] * 4,
        "queue/join",
        f"call/{name}",
        f"run/{name}",
        "upload",
        "cancel",
        "reset",
        text[:40],
    ]
    paths += [f"file={text[:40]}", "heartbeat", "api/predict", "stream/a/b/c/playlist.m3u8", "call/v2/mix"]
    kinds = ["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain", ""]
    body = junk if dice.random() < 0.2 else dice.choice(messages).encode()
    return (
        dice.choice(["POST"] * 8 + ["GET", "PUT"]),
        f"gradio_api/{dice.choice(paths)}",
        body,
        dice.choice([kinds[0]] * 8 + kinds),
    )


async def send_garbage(url: str, boards: list[int], end: float, tally: Counter) -> None:
    """At full speed: 64 requests at a time, as soon as the last one is answered."""
    async with visitor(1, 3) as client:

        async def one(dice: random.Random) -> None:
            while time.time() < end:
                method, path, body, kind = garbage(dice, boards)
                with note(tally):
                    answer = await client.request(method, url + path, content=body, headers={"content-type": kind})
                    tally[told(answer)] += 1

        await asyncio.gather(*(one(random.Random(seed)) for seed in range(64)))


async def send_noise(url: str, end: float, tally: Counter) -> None:
    """At full speed: bytes that are no HTTP, on ever new sockets."""
    dice = random.Random(0)
    while time.time() < end:
        async with connection(url, 2, tally) as (reader, writer):
            writer.write(dice.randbytes(dice.choice([1, 100, 30_000])) + b"\r\n\r\n")
            answer = await reader.read(1000)
            tally[answer.split(b"\r\n")[0].decode("latin1")[9:] or "closed"] += 1


async def upload(url: str, end: float, tally: Counter) -> None:
    """100 MB again and again, every other time without saying how much it will be."""
    form = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    head = b"POST /gradio_api/upload HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    ways = {
        "said": (b"content-length: %d\r\n\r\n" % UPLOAD + form, bytes(CHUNK)),
        "not said": (
            b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(form) + form,
            b"\r\n%x\r\n" % CHUNK + bytes(CHUNK),
        ),
    }
    while time.time() < end:
        for way, (start, chunk) in ways.items():
            async with connection(url, 3, tally) as (reader, writer):
                answer = asyncio.create_task(reader.read(1000))
                writer.write(head + start)
                sent = 0
                while sent < UPLOAD and not answer.done():
                    writer.write(chunk)
                    sending = asyncio.create_task(writer.drain())
                    await asyncio.wait([sending, answer], return_when=asyncio.FIRST_COMPLETED)
                    if not sending.done():
                        sending.cancel()
                    elif sending.exception():
                        break
                    sent += CHUNK
                said = (await answer).decode("latin1")
                sentence = said.partition('"error": "')[2].partition('"')[0]
                tally[f"size {way}: {said[9:12]} {sentence}, after {sent / 1e6:.0f} MB"] += 1


async def dawdle(url: str, number: int, end: float, tally: Counter) -> None:
    """A byte a second: of the headers, of a body, or of what is read."""
    kind = ("headers", "body", "reading")[number % 3]
    head = f"{POST}content-length: 9000\r\n\r\n"
    while time.time() < end:
        begin = time.time()
        async with connection(url, 10 + number, tally, buffer=2048) as (reader, writer):
            sent = {"headers": b"", "body": head.encode(), "reading": b"GET /config HTTP/1.1\r\nhost: x\r\n\r\n" * 8}[
                kind
            ]
            writer.write(sent)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while time.time() < end:
                    if kind == "reading":
                        await reader.readexactly(1)
                    else:
                        writer.write(b"a")
                        await writer.drain()
                        if reader.at_eof():
                            break
                    await asyncio.sleep(1)
            if time.time() < end:
                tally[f"slow {kind}: closed by the server after {10 * round((time.time() - begin) / 10)} s"] += 1


async def hang_up(url: str, board: int, number: int, end: float, tally: Counter) -> None:
    """Asks for a picture and drops the socket: in the headers, in the body, or before the answer."""
    dice = random.Random(number)
    drawing = {"drawing": to_data_url(random_doodle(number), "PNG")}
    body = json.dumps({"session_hash": "d", "component_id": board, "fn_name": "redraw", "data": drawing})
    head = f"{POST}content-length: {len(body)}"
    request = f"{head}\r\n\r\n{body}".encode()
    while time.time() < end:
        async with connection(url, 4, tally) as (_, writer):
            writer.write(request[: dice.choice([30, len(head) + 3000, len(request)])])
            await writer.drain()
            await asyncio.sleep(dice.uniform(0, 0.2))
            tally["dropped"] += 1


@contextlib.asynccontextmanager
async def connection(url: str, number: int, tally: Counter, buffer: int | None = None):
    """A plain socket from address 127.0.3.`number`, dropped at the end. buffer: bytes of it that wait to be read."""
    plain = socket.socket()
    if buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    plain.setblocking(False)
    plain.bind((f"127.0.3.{number + 1}", 0))
    with note(tally):
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", httpx.URL(url).port))
        reader, writer = await asyncio.open_connection(sock=plain, limit=1)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
    plain.close()


@contextlib.contextmanager
def note(tally: Counter) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, OSError, asyncio.IncompleteReadError) as error:
        tally[f"socket: {type(error).__name__}"] += 1


async def abuse(url: str, boards: list[int], lookers: int, seconds: float) -> dict[str, Counter]:
    """All of it at once. Returns what each kind was told, and how often."""
    end = time.time() + seconds
    tallies = {kind: Counter() for kind in ("looking on", "garbage", "noise", "100 MB", "slow", "dropped")}
    looking, junk, noise, large, slow, dropped = tallies.values()
    work: list[Awaitable] = [look_on(url, number, end, looking) for number in range(lookers)]
    work += [send_garbage(url, boards, end, junk), send_noise(url, end, noise), upload(url, end, large)]
    work += [dawdle(url, number, end, slow) for number in range(24)]
    work += [hang_up(url, boards[0], number, end, dropped) for number in range(4)]
    for error in await asyncio.gather(*work, return_exceptions=True):
        if error:
            looking[f"failed: {error!r}"] += 1
    return tallies


# --- The run -----------------------------------------------------------------------------------------------


def state(pid: int) -> dict[str, float]:
    """Resident memory in MB, open files and sockets, threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {"memory": int(status["VmRSS"].split()[0]) / 1024, "files": files, "threads": int(status["Threads"])}


def work(pid: int) -> float:
    """Seconds that a process has kept a core, its children that have ended included."""
    user, system, *ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    return (int(user) + int(system) + sum(map(int, ended))) / os.sysconf("SC_CLK_TCK")


async def watch(pid: int, worst: dict[str, float], memory: list[float]) -> None:
    """Notes the most of everything, and the memory once a minute."""
    for tick in itertools.count():
        now = state(pid)
        worst.update({name: max(worst.get(name, 0), value) for name, value in now.items()})
        if tick % 120 == 0:
            memory.append(now["memory"])
        await asyncio.sleep(0.5)


async def start(url: str) -> list[int]:
    """Waits until the server answers. Returns the numbers of the boards one draws on."""
    async with visitor(0) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                config = (await client.get(f"{url}config")).json()
                boards = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
                return [boards[name] for name in ("sketch-board", "facade-board", "mix-board")]
            await asyncio.sleep(0.2)


async def come_by(url: str, board: int, lookers: int) -> None:
    """What an ordinary day leaves in memory, so that it is no growth later: the crowd once, without abuse, and as many
    visitors as Gradio keeps in mind."""
    tally, end = Counter(), time.time() + 15
    await asyncio.gather(*(look_on(url, number, end, tally) for number in range(lookers)))
    for number in range(SESSIONS):
        async with visitor(number % 250, 4) as client:
            body = {"session_hash": f"earlier{number}", "component_id": board, "fn_name": "redraw", "data": {}}
            await client.post(f"{url}gradio_api/component_server", json=body)


async def measure(url: str, pid: int, options: argparse.Namespace) -> bool:
    boards = await start(url)
    rows, states = {}, {"after the start": state(pid)}
    await come_by(url, boards[0], options.visitors - options.drawing)
    await crowd(url, boards[0], options.drawing, 20)

    async def phase(name: str, seconds: float) -> None:
        before = work(pid)
        delays, told = await crowd(url, boards[0], options.drawing, seconds)
        cores = (work(pid) - before) / seconds
        p50, p95 = np.percentile(np.array(delays) * 1000, [50, 95])
        rows[name] = p50, p95, len(delays) / seconds, cores, os.getloadavg()[0], sum(told.values())
        print(f"{name}: {len(delays)} pictures, p50 {p50:.0f} ms, p95 {p95:.0f} ms, others: {dict(told)}", flush=True)

    await phase("quiet", options.quiet)
    await asyncio.sleep(options.rest)
    states["before"], states["during, at most"], memory = state(pid), {}, []
    watching = asyncio.create_task(watch(pid, states["during, at most"], memory))
    seconds = 60 * options.minutes
    command = [
        sys.executable,
        "-m",
        "tests.reliability.load",
        "--abuse",
        json.dumps([url, boards, options.visitors - options.drawing, seconds]),
    ]
    others = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    await phase("abused", seconds)
    tallies = json.loads((await others.communicate())[0])
    watching.cancel()
    await asyncio.sleep(options.rest)
    states["after a rest"] = state(pid)
    await phase("quiet again", options.quiet)
    await asyncio.sleep(options.rest)
    states["at the end"] = state(pid)
    print("memory each minute of abuse, MB:", *(f"{one:.0f}" for one in memory))
    return show(rows, states, tallies)


def show(rows: dict, states: dict, tallies: dict) -> bool:
    """Prints the tables. Returns whether all is well."""
    print(
        "\n| honest visitors | p50 | p95 | pictures/s | not answered | the server's cores | core x s a picture | load |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (p50, p95, rate, cores, load, others) in rows.items():
        served = f"{p50:.0f} ms | {p95:.0f} ms | {rate:.1f} | {others}"
        print(f"| {name} | {served} | {cores:.2f} | {cores / rate:.3f} | {load:.1f} |")
    print("\n| server | resident memory | files and sockets | threads |\n|---|---|---|---|")
    for name, one in states.items():
        print(f"| {name} | {one['memory']:.0f} MB | {one['files']} | {one['threads']} |")
    print("\n| what came | answers |\n|---|---|")
    for kind, tally in tallies.items():
        for text, count in sorted(tally.items(), key=lambda item: -item[1])[:12]:
            print(f"| {kind}: {text} | {count} |")
    quiet, abused = (np.array(rows["quiet"]) + rows["quiet again"]) / 2, rows["abused"]
    slower = max(abused[0] / quiet[0], abused[1] / quiet[1])
    dearer = abused[3] / abused[2] / (quiet[3] / quiet[2])  # tells more where others use the cores too
    growth = states["at the end"]["memory"] / states["before"]["memory"] - 1
    print(f"\n{slower:.2f} times as slow, {dearer:.2f} times the work a picture, {100 * growth:+.1f} % memory")
    return slower <= 2 and growth <= 0.05 and not any(row[-1] for row in rows.values())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="of abuse")
    parser.add_argument("--visitors", type=int, default=200)
    parser.add_argument("--drawing", type=int, default=32, help="of the visitors")
    parser.add_argument("--quiet", type=float, default=60, help="seconds that are measured before, and after")
    rest = "seconds before each look at the memory, which the app gives back every ten"
    parser.add_argument("--rest", type=float, default=70, help=rest)
    parser.add_argument("--abuse", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.abuse:
        print(json.dumps(asyncio.run(abuse(*options.abuse))))
        return 0
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load average {load}",
        flush=True,
    )
    port = free_port()
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=log, stderr=log)
        try:
            well = asyncio.run(measure(f"http://127.0.0.1:{port}/", server.pid, options))
            well &= server.poll() is None
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
        log.seek(0)
        lines = log.read().splitlines()
    tracebacks = [i for i, line in enumerate(lines) if line.startswith("Traceback")]
    print(f"log of the server: {len(lines)} lines, {len(tracebacks)} tracebacks")
    for first in tracebacks[:3]:
        print("\n".join(lines[first - 3 : first + 60]))
    return not (well and not tracebacks)


if __name__ == "__main__":
    sys.exit(main())
