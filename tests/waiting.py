"""How tests wait: for what they need, as long as a busy machine takes, never for a fixed time; and a free port."""

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial

import httpx

LONGEST = 120.0  # seconds; what has not come true by then never will
PAUSE = 0.01  # seconds

get, post = (partial(call, timeout=LONGEST) for call in (httpx.get, httpx.post))


def until(condition: Callable[[], object], pause: Callable[[float], None] = time.sleep) -> None:
    """pause: passes so many seconds, and lets others work meanwhile."""
    end = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < end, "it never came true"
        pause(PAUSE)


async def reached(condition: Callable[[], object]) -> None:
    """As `until`, in an event loop."""
    end = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(PAUSE / 2)


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
