"""What one address may ask of a server: how much, how often, how slowly. Plain ASGI, around any app.

A request costs one, and more the more it brings and the longer it keeps the server's loop from all others. An address
may spend `rate` a second, and has some seconds of that in advance. What is over the rate waits for its turn; what would
have to wait too long is refused, in a sentence. Behind a proxy, addresses are told apart if the server believes the
proxy's X-Forwarded-For.
"""

import asyncio
import ipaddress
import json
import logging
import os
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterable

BYTES, SECONDS = 50_000, 0.005  # cost as much as one request: of a body; of the loop
PAGE, FILE = 4, 0.25  # cost a page, which is made anew each time, and a file
PATIENCE = 5.0  # seconds: so much an address has in advance, and so long a request waits
PAUSE = 1.0  # seconds that a refusal takes, so that who asks again at once is no burden
GRACE, SLOWEST = 20.0, 4000  # seconds that a body has time, and one more for so many bytes
STUCK = 30.0  # seconds in which nothing moves between a visitor and the server
TOOL = 4_000_000  # bytes that a tool is sent; the MCP package takes no more, but gives no reason
BOARD = "/component_server"  # what the boards ask. Gradio shows them answers of status 200 only

TOO_MUCH = "This is too large: at most {:.0f} MB are taken. Scale it down, and send it again."
TOO_OFTEN = "Too much is being asked for from your address. Wait a few seconds, then go on."
TOO_MANY = "Too many people are here at this moment. Try again in a few seconds."
TOO_SLOW = "This took too long to arrive. Check your connection, and send it again."
NOT_UNDERSTOOD = "This was not understood. Check what you send, or reload the page."

logger = logging.getLogger(__name__)


class Limits:
    """ASGI middleware.

    upload, message: bytes of a body at most, with files and without. rate: see the module. connections: requests that
    may be open at once; one address may have half of them. sockets: gives the connections of uvicorn's server.
    """

    def __init__(
        self,
        app: Callable,
        upload: int,
        rate: float,
        connections: int,
        message: int = 6_000_000,
        sockets: Callable[[], Iterable] = tuple,
    ):
        self.app, self.upload, self.message = app, upload, message
        self.rate, self.connections, self.sockets = rate, connections, sockets
        self.settled: dict[str, float] = {}  # address -> when it will have worked off what it has spent
        self.open: Counter[str] = Counter()  # address -> requests

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            cleaner = asyncio.create_task(self.clean())
            await self.app(scope, receive, send)
            cleaner.cancel()
        elif scope["type"] == "http":
            address = network(scope)
            self.open[address] += 1
            try:
                await self.answer(address, scope, receive, send)
            finally:
                self.open[address] -= 1
        else:
            await self.app(scope, receive, send)

    async def answer(self, address: str, scope, receive, send) -> None:
        path = scope["path"].rstrip("/")
        largest = self.upload if path.endswith("/upload") else TOOL if "/mcp" in path else self.message
        if self.open.total() > self.connections or self.open[address] > self.connections / 2:
            return await refuse(503, TOO_MANY, scope, send)
        if length(scope) > largest:
            return await refuse(413, TOO_MUCH.format(largest / 1e6), scope, send)
        if (wait := self.spend(address, price(scope))) > PATIENCE:
            return await refuse(429, TOO_OFTEN, scope, send)
        if wait > 0:
            await asyncio.sleep(wait)
        call = Call(receive, send, largest, stops=path.endswith(BOARD))
        try:
            await metered(self.app(scope, call.receive, call.send), call.spend)
        except asyncio.CancelledError:
            if not call.gone:
                raise
        except Exception as error:  # our own functions say themselves what they cannot do
            error = error.__cause__ or error
            logger.warning("%s %.100s: %.300r in %s", scope["method"], scope["path"], error, origin(error))
            call.refusal = call.refusal or (400, NOT_UNDERSTOOD)
        finally:
            call.end()
            extra = max(0.0, call.bytes / BYTES + call.seconds / SECONDS - 1)
            self.settled[address] = self.worked_off(address, time.monotonic()) + extra / self.rate
        if call.refusal:
            await refuse(*call.refusal, scope, send)

    def spend(self, address: str, price: float) -> float:
        """The seconds that a request has to wait. If they are more than PATIENCE it costs nothing."""
        now = time.monotonic()
        turn = self.worked_off(address, now)
        if turn - now <= PATIENCE:
            self.settled[address] = turn + price / self.rate
        return turn - now

    def worked_off(self, address: str, now: float) -> float:
        """When an address will have worked off what it has spent; nobody has more than PATIENCE in advance."""
        return max(self.settled.get(address, 0.0), now - PATIENCE)

    async def clean(self) -> None:
        """Closes sockets of who does not finish a request or does not read the answer, which uvicorn leaves open."""
        seen: dict = {}
        while True:
            await asyncio.sleep(STUCK / 6)
            now = time.monotonic()
            states = [(socket, waits_for(socket)) for socket in list(self.sockets())]
            seen = {state: seen.get(state, now) for state in states if state[1]}
            for (socket, _), since in seen.items():
                if now - since >= STUCK:
                    socket.transport.abort()
            self.settled = {address: when for address, when in self.settled.items() if when > now - PATIENCE}
            self.open += Counter()  # forgets who has nothing open


class Call:
    """One request on its way through an app: what it brings and costs, and whether its visitor is still there.

    largest: bytes of its body. stops: once its visitor has gone, so does the work on it.
    """

    def __init__(self, receive: Callable, send: Callable, largest: int, stops: bool):
        self.from_visitor, self.to_visitor, self.largest, self.stops = receive, send, largest, stops
        self.begin, self.task = time.monotonic(), asyncio.current_task()
        self.bytes, self.seconds = 0, 0.0
        self.read = self.started = self.finished = self.gone = False
        self.watch: asyncio.Task | None = None
        self.refusal: tuple[int, str] | None = None

    def spend(self, seconds: float) -> None:
        self.seconds += seconds

    async def receive(self) -> dict:
        if self.watch:
            await self.watch
        if self.read:
            return await self.from_visitor()
        if self.refusal:
            return {"type": "http.disconnect"}
        left = self.begin + GRACE + self.bytes / SLOWEST - time.monotonic()
        try:
            message = await asyncio.wait_for(self.from_visitor(), left)
        except asyncio.TimeoutError:
            self.refusal = 408, TOO_SLOW
            return {"type": "http.disconnect"}
        self.bytes += len(message.get("body", b""))
        if self.bytes > self.largest:
            self.refusal = 413, TOO_MUCH.format(self.largest / 1e6)
            return {"type": "http.disconnect"}
        self.read = not message.get("more_body")
        if self.read and self.stops:
            self.watch = asyncio.create_task(self.stop())
        return message

    async def stop(self) -> None:
        await self.from_visitor()  # what comes after a body is the end of the visit, or of the answer
        if not self.finished:
            self.gone = True
            self.task.cancel()

    async def send(self, message: dict) -> None:
        if (
            self.refusal and not self.started
        ):  # the app gives its reason, such as a visitor who went; this one is better
            return
        self.started = True
        self.finished = message["type"] == "http.response.body" and not message.get("more_body")
        await self.to_visitor(message)

    def end(self) -> None:
        self.finished = True
        if self.watch:
            self.watch.cancel()
        if self.started:
            self.refusal = None


@types.coroutine
def metered(work: Coroutine, spend: Callable[[float], None]) -> Generator:
    """Awaits `work`, and tells `spend` how long each of its steps has kept the loop."""
    step, value = work.send, None
    while True:
        begin = time.thread_time()
        try:
            awaited = step(value)
        except StopIteration as end:
            return end.value
        finally:
            spend(time.thread_time() - begin)
        try:
            step, value = work.send, (yield awaited)
        except BaseException as error:
            step, value = work.throw, error


def network(scope) -> str:
    """Who asks: the address, of which with IPv6 everybody has as many as fit a network."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    address = getattr(address, "ipv4_mapped", None) or address
    return str(address) if address.version == 4 else str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def length(scope) -> int:
    """What a request says that it brings, in bytes. uvicorn has made sure that it is a number."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def price(scope) -> float:
    if scope["method"] not in ("GET", "HEAD"):
        return 1
    return FILE if "." in scope["path"] else PAGE


def waits_for(socket) -> tuple | None:
    """What a connection of uvicorn waits for from its visitor: the same as long as nothing moves. None: it does not."""
    if not hasattr(socket, "cycle"):
        return None
    unread = socket.transport.get_write_buffer_size()
    idle = socket.cycle is None or socket.cycle.response_complete
    return (id(socket.cycle), unread) if idle or unread else None


def origin(error: BaseException) -> str:
    """Where it was raised: all that a log needs of it, if strangers can cause it as often as they like."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}"


async def refuse(status: int, sentence: str, scope, send) -> None:
    """Says why, and takes its time. The connection ends with it, and with it what still comes in."""
    slow_down = status in (429, 503)
    if slow_down:
        await asyncio.sleep(PAUSE)
        status = 200 if BOARD in scope["path"] else status
    body = json.dumps({"error": sentence, "detail": sentence}).encode()  # for a board; for Gradio's own clients
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    headers |= {"retry-after": str(round(PATIENCE))} if slow_down else {}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if not slow_down:  # who is still sending has time to read it
        await asyncio.sleep(PAUSE)
    await send({"type": "http.response.body", "body": b""})
