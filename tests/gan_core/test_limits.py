"""What one address may ask of a server."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import uvicorn

from gan_core import limits
from gan_core.batching import Batcher
from gan_core.limits import Limits
from tests.waiting import LONGEST, reached, until


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(limits, "PAUSE", 0.0)


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Stands still: on a busy machine more would be worked off before the next one asks. kept: seconds of the loop."""
    clock = SimpleNamespace(now=1000.0, kept=0.0)
    stopped = SimpleNamespace(monotonic=lambda: clock.now, thread_time=lambda: clock.kept)
    monkeypatch.setattr(limits, "time", stopped)
    return clock


class Visit:
    """A request as a server hands it to an app, and what comes back. chunks: of its body; then the visitor waits."""

    def __init__(self, chunks=(b"",), path="/a", method="POST", address="1.2.3.4", headers=(), leaves=None):
        self.scope = {"type": "http", "path": path, "method": method, "client": (address, 1), "headers": list(headers)}
        self.chunks, self.leaves, self.taken, self.messages = list(chunks), leaves, 0, []

    async def receive(self):
        if self.taken < len(self.chunks):
            self.taken += 1
            more = self.taken < len(self.chunks)
            return {"type": "http.request", "body": self.chunks[self.taken - 1], "more_body": more}
        await (self.leaves or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.messages.append(message)

    async def __call__(self, limited):
        await limited(self.scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def headers(self):
        return dict(self.messages[0]["headers"])

    @property
    def sentence(self):
        return json.loads(b"".join(message.get("body", b"") for message in self.messages[1:]))["error"]


async def echo(scope, receive, send):
    """Reads all, and says how much it was."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("gone")
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def limit(app=echo, upload=1000, rate=1e6, connections=100, **options) -> Limits:
    return Limits(app, upload, rate, connections, **options)


def test_what_is_within_the_limits_passes():
    visit = asyncio.run(Visit([b"a" * 500, b"b" * 500], path="/upload")(limit()))
    assert visit.status == 200 and visit.messages[1]["body"] == b"1000"


@pytest.mark.parametrize(("path", "largest"), [("/gradio_api/upload", 1000), ("/gradio_api/component_server", 300)])
def test_a_body_that_says_that_it_is_too_large_is_not_read(path, largest):
    visit = Visit([b"a"] * 2000, path, headers=[(b"content-length", str(largest + 1).encode())])
    asyncio.run(visit(limit(message=300)))
    assert visit.status == 413 and visit.taken == 0 and "Scale it down" in visit.sentence
    assert visit.headers[b"connection"] == b"close"


def test_a_body_that_does_not_say_so_is_read_no_further_than_the_limit():
    visit = asyncio.run(Visit([b"a" * 100] * 2000, "/upload")(limit()))
    assert visit.status == 413 and visit.taken == 11 and visit.sentence.endswith(".")


def test_a_body_that_never_ends_is_refused(monkeypatch, clock):
    monkeypatch.setattr(limits, "GRACE", 0.02)
    visit = Visit([b"a", b"b", b"never comes"])

    async def receive():
        if visit.taken == 2:
            await asyncio.Event().wait()
        return await Visit.receive(visit)

    visit.receive = receive
    asyncio.run(visit(limit()))
    assert visit.status == 408 and visit.taken == 2 and "again" in visit.sentence


async def ask(limited, count, **visit):
    return [answer.status for answer in await asyncio.gather(*(Visit(**visit)(limited) for _ in range(count)))]


def test_who_asks_too_often_waits_and_is_then_refused_and_others_are_served(monkeypatch, clock):
    monkeypatch.setattr(limits, "PATIENCE", 0.25)

    async def crowd():
        limited = limit(rate=128, connections=1000)  # fractions without rounding
        begin = time.monotonic()
        statuses = await ask(limited, 100)
        # 32 in advance, 32 that waited, and the one between.
        assert statuses.count(200) == 65 and statuses.count(429) == 35
        assert time.monotonic() - begin >= 0.2
        limited.settled = {"1.2.3.4": clock.now + 1}
        refused, other = Visit(), Visit(address="1.2.3.5")
        await refused(limited)
        await other(limited)
        assert refused.status == 429 and b"retry-after" in refused.headers and "Wait" in refused.sentence
        assert other.status == 200

    asyncio.run(crowd())


def test_a_network_of_ipv6_is_one_address():
    scopes = [{"client": (address, 1)} for address in ("2001:db8:1:2::7", "2001:db8:1:2:ffff::1", "2001:db8:1:3::7")]
    one, same, other = map(limits.network, scopes)
    assert one == same != other
    assert limits.network({"client": ("1.2.3.4", 5)}) == "1.2.3.4" and limits.network({"client": None}) == ""
    assert limits.network({"client": ("::ffff:1.2.3.4", 5)}) == "1.2.3.4"  # as some proxies write it


def test_what_a_request_has_cost_is_not_forgotten_while_it_lasts(clock):
    async def crowd():
        limited = limit(rate=10, message=10**6)

        async def forgetful(scope, receive, send):
            limited.settled.clear()  # as `clean` does with an address that looks worked off
            await echo(scope, receive, send)

        limited.app = forgetful
        await Visit(chunks=[b"a" * 10**6])(limited)
        return limited.spend("1.2.3.4", 1)

    assert asyncio.run(crowd()) == pytest.approx(1.9 - limits.PATIENCE)  # its bytes; `spend` has given the price


def test_who_brings_much_or_keeps_the_loop_pays_for_it(clock):
    async def busy(scope, receive, send):
        clock.kept += 0.05
        await echo(scope, receive, send)

    async def spent(app, **visit):
        limited = limit(app, rate=10, message=10**6)
        await Visit(**visit)(limited)
        return limited.settled["1.2.3.4"] - clock.now + limits.PATIENCE

    idle, large = asyncio.run(spent(echo)), asyncio.run(spent(echo, chunks=[b"a" * 10**6]))
    assert (idle, large, asyncio.run(spent(busy))) == pytest.approx((0.1, 2.0, 1.0))


def test_pages_cost_more_than_messages_and_files_less():
    page, message, file = (
        limits.price({"method": m, "path": p}) for m, p in (("GET", "/"), ("POST", "/"), ("GET", "/a.js"))
    )
    assert page > message > file > 0


def test_the_boards_are_told_in_the_way_gradio_lets_them_hear_it(monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE", -1.0)
    visit = asyncio.run(Visit(path="/gradio_api/component_server/")(limit()))
    assert visit.status == 200 and "Wait" in visit.sentence


def test_not_more_are_served_at_once_than_allowed_and_nobody_takes_all_places():
    async def crowd():
        opened = asyncio.Event()

        async def wait(scope, receive, send):
            await opened.wait()
            await echo(scope, receive, send)

        limited = limit(wait, connections=10)
        first = [asyncio.create_task(Visit()(limited)) for _ in range(8)]
        await reached(lambda: sum(visit.done() for visit in first) == 3)
        others = [asyncio.create_task(Visit(address=f"1.1.1.{i}")(limited)) for i in range(7)]
        await reached(lambda: sum(visit.done() for visit in others) == 2)
        opened.set()
        for visits, refused in ((first, 3), (others, 2)):
            statuses = [(await visit).status for visit in visits]
            assert statuses.count(200) == 5 and statuses.count(503) == refused
        assert limited.open.total() == 0

    asyncio.run(crowd())


def test_the_work_for_a_dropped_socket_leaves_the_queue():
    async def crowd():
        held, begun, done = threading.Event(), threading.Event(), []

        def work(jobs):
            begun.set()
            held.wait(LONGEST)
            done.extend(jobs)
            return jobs

        batcher = Batcher(work, largest=1)

        async def board(scope, receive, send):
            await receive()
            await batcher(scope["client"][0])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        limited, leaves = limit(board), asyncio.Event()
        path = "/gradio_api/component_server"
        stays = [asyncio.create_task(Visit(path=path, address="1.1.1.1")(limited))]
        await reached(begun.is_set)
        dropped = [
            asyncio.create_task(Visit(path=path, address=f"2.2.2.{i}", leaves=leaves)(limited)) for i in range(5)
        ]
        await reached(lambda: len(batcher._requests) == 5)
        stays.append(asyncio.create_task(Visit(path=path, address="1.1.1.2")(limited)))
        await reached(lambda: len(batcher._requests) == 6)
        leaves.set()
        assert [(await visit).messages for visit in dropped] == [[]] * 5
        assert len(batcher._requests) == 1
        held.set()
        assert [(await visit).status for visit in stays] == [200, 200] and done == ["1.1.1.1", "1.1.1.2"]

    asyncio.run(crowd())


def test_what_an_app_does_not_understand_is_a_sentence_and_one_line(caplog):
    async def broken(scope, receive, send):
        raise KeyError(99999)

    visit = asyncio.run(Visit()(limit(broken)))
    assert visit.status == 400 and visit.sentence.endswith(".")
    (message,) = caplog.messages
    assert message.startswith("POST /a: KeyError(99999) in test_limits.py:") and not caplog.records[0].exc_info


def test_a_server_drops_who_does_not_finish_and_who_does_not_read(monkeypatch):
    monkeypatch.setattr(limits, "STUCK", 0.3)

    async def large(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(30_000_000)})

    limited = limit(large, sockets=lambda: server.server_state.connections)

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            return await limited(scope, receive, send)
        limited.app = lifespan
        await limited(scope, receive, send)

    async def lifespan(scope, receive, send):
        await receive()
        limited.app = large
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    address = server.servers[0].sockets[0].getsockname()
    slow, deaf, silent = (socket.create_connection(address, timeout=LONGEST) for _ in range(3))
    with contextlib.suppress(OSError):  # on a very busy machine they are dropped before they have said so much
        slow.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nslow: ")
        deaf.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert slow.recv(1) == b""
    until(lambda: not server.server_state.connections)
    silent.close(), deaf.close(), slow.close()
    server.should_exit = True
    thread.join(LONGEST)
    assert not thread.is_alive()
