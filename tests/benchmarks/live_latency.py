"""How alive do the live boards feel?   python -m tests.benchmarks.live_latency

Starts `python app.py`, draws and mixes in Chromium on the same machine, then lets visitors draw at once over HTTP.
Prints figures; asserts nothing, since machines differ.
"""

import argparse
import asyncio
import json
import math
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
from playwright.sync_api import Page

from gan_core.image import to_data_url
from gan_core.lineart import random_doodle
from tests.browser.chromium import Pen, open_browser, oval
from tests.waiting import free_port


def percentiles(seconds: list[float]) -> str:
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return f"p50 {p50:.0f} ms, p95 {p95:.0f} ms"


def draw_in_browser(page: Page, url: str, started: float, strokes: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", urlsplit(url).port)).close()
            break
        except ConnectionError:  # the server is not there yet
            if time.perf_counter() - started > 120:
                raise
            time.sleep(0.05)
    page.goto(url)
    pen = Pen(page)
    print(f"from `python app.py` to the first face    {time.perf_counter() - started:.1f} s")
    print("Sketch tab: ovals")
    measure(pen, [oval(0.5, 0.5, 0.08 + 0.03 * (i % 10), 0.1 + 0.03 * (i % 10), steps=80) for i in range(strokes)])
    page.get_by_role("tab", name="Facade").click()
    pen = Pen(page, "#facade-board")
    print("Facade tab: rectangles being dragged")
    paths = [[(0.1 + 0.04 * (i % 10) + 0.005 * k, 0.2 + 0.006 * k) for k in range(80)] for i in range(strokes)]
    measure(pen, paths)
    page.get_by_role("tab", name="Mix").click()
    pen = Pen(page, "#mix-board")
    pen.settle()
    print("Mix tab: a weight slider being dragged")
    slide(pen, strokes)
    for action, finished in (("sheet", ".mix-sheet:not([hidden]) img[src]"), ("film", "video[src]")):
        begin = time.perf_counter()
        pen.board.locator(f".pad-tools [data-action={action}]").first.click()
        pen.board.locator(finished).wait_for()
        print(f"  {action:39s} {time.perf_counter() - begin:.2f} s")


def slide(pen: Pen, times: int) -> None:
    """Drags the first weight from end to end, `times` times."""
    box = pen.board.locator(".mix-weight").first.bounding_box()
    pen.paper = pen.board.locator(".mix-weight").first  # strokes go along the slider
    margin = 10 / box["width"]  # half a thumb
    paths = [[(margin + (1 - 2 * margin) * k / 79, 0.5) for k in range(80)] for _ in range(times)]
    measure(pen, paths)


def measure(pen: Pen, strokes: list[list[tuple[float, float]]]) -> None:
    for points in strokes[:2]:  # let the browser warm up
        pen.stroke(points)
    pen.settle()
    pen.page.evaluate("window.pictures = 0; window.delays = []")
    drawing = 0.0
    for points in strokes:
        begin = time.perf_counter()
        pen.stroke(points, pause=0.010)
        drawing += time.perf_counter() - begin
    pictures = pen.page.evaluate("window.pictures")
    pen.settle()
    delays = [delay / 1000 for delay in pen.page.evaluate("window.delays")]
    print(f"  pointer move to new picture in Chromium {percentiles(delays)} ({len(delays)} moves)")
    print(f"  pictures a second during a stroke       {pictures / drawing:.1f}")


async def crowd(url: str, visitors: int, seconds: float, most: int | None = None) -> None:
    """Visitors who draw over HTTP for so long, or until there are `most` pictures."""
    drawings = [to_data_url(random_doodle(seed), "PNG") for seed in range(visitors)]
    config = httpx.get(f"{url}config").json()
    board = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "sketch-board")
    start = time.perf_counter()
    end = start + seconds

    async def visitor(number: int) -> list[float]:
        session = {"session_hash": f"visitor{number}", "component_id": board, "fn_name": "redraw"}
        questions = [json.dumps(session | {"data": {"drawing": drawing}}).encode() for drawing in drawings]
        delays = []
        connection = await asyncio.open_connection("127.0.0.1", urlsplit(url).port, limit=2**20)
        while (begin := time.perf_counter()) < end and len(delays) * visitors < (most or math.inf):
            await ask(*connection, questions[(number + len(delays)) % visitors])
            delays.append(time.perf_counter() - begin)
        connection[1].close()
        return delays

    delays = await asyncio.gather(*map(visitor, range(visitors)))
    everyone = [delay for visitor_delays in delays for delay in visitor_delays]
    rates = [len(visitor_delays) / (time.perf_counter() - start) for visitor_delays in delays]
    print(
        f"{visitors:2d} visitors drawing at once               {percentiles(everyone)}; "
        f"each {min(rates):.1f} to {max(rates):.1f} pictures a second"
    )


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: bytes) -> None:
    """One request by hand: a library for it would take as much of the processor as a tenth of the network."""
    head = "POST /gradio_api/component_server HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(question)}\r\n\r\n".encode() + question)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    body = await reader.readexactly(int(answer.split("content-length:")[1].split()[0]))
    assert b'"picture"' in body, answer + body[:200].decode()


def memory(pid: int) -> str:
    status = Path(f"/proc/{pid}/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmRSS:"):
            return f"{int(line.split()[1]) / 1e6:.2f} GB"
    return "unknown"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strokes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--requests", type=int, default=0, help="this many more, to see whether memory grows")
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    # All these visitors have one address, which is otherwise held to what is fair for one.
    command = [sys.executable, "app.py", "--port", str(port), "--max-rate", "10000"]
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            draw_in_browser(page, url, started, options.strokes)
        except BaseException:
            server.terminate()
            raise
    try:
        print(f"resident memory of the server             {memory(server.pid)}")
        for visitors in (1, 4, 16, 32):
            asyncio.run(crowd(url, visitors, options.seconds))
        print(f"  after those visitors                    {memory(server.pid)}")
        if options.requests:
            asyncio.run(crowd(url, 8, math.inf, options.requests))
            print(f"  after {options.requests} requests more             {memory(server.pid)}")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
