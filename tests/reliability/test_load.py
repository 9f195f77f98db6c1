"""The running app under abuse; `load.py` has the large version with figures."""

import contextlib
import json
import random
import socket
import threading
import time
from types import SimpleNamespace

import httpx
import pytest

import app
from gan_core import limits
from gan_core.image import to_data_url
from gan_core.lineart import random_doodle
from tests.reliability.checkpoints import small_checkpoints
from tests.reliability.load import POST, garbage
from tests.waiting import LONGEST, post, until

RATE = 200


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(URL, demo) of the app with small networks. Tests are taken for a proxy, since uvicorn trusts this computer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "GALLERY", [1, 2])
        patch.setattr(limits, "PAUSE", 0.0)
        demo = app.create_demo(small_checkpoints(tmp_path_factory.mktemp("app")))
        options = {"upload": 1, "rate": RATE, "waiting": 10}
        _, url, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **options)
        yield url, demo
        demo.close()


def board_of(demo, kind=app.LiveBoard):
    return next((id, block) for id, block in demo.blocks.items() if isinstance(block, kind))


def message(demo) -> bytes:
    drawing = {"drawing": to_data_url(random_doodle(1), "PNG")}
    body = {"session_hash": "t", "component_id": board_of(demo)[0], "fn_name": "redraw", "data": drawing}
    return json.dumps(body).encode()


def draw(served, address: str) -> dict:
    url, demo = served
    headers = {"content-type": "application/json", "x-forwarded-for": address}
    return post(f"{url}gradio_api/component_server", content=message(demo), headers=headers).json()


def connect(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", httpx.URL(url).port), timeout=LONGEST)


def read(visitor: socket.socket) -> str:
    """All that comes until the server closes."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):  # it does not wait for the rest
        while data := visitor.recv(10_000):
            answer += data
    return answer.decode()


def test_a_too_large_upload_is_refused_before_it_is_sent(served):
    url, _ = served
    with connect(url) as visitor:
        head = f"POST /gradio_api/upload HTTP/1.1\r\nhost: x\r\ncontent-length: {10**8}\r\n"
        visitor.sendall(f"{head}content-type: multipart/form-data; boundary=x\r\n\r\n".encode())
        answer = read(visitor)
    assert " 413 " in answer and "at most 1 MB" in answer


def test_an_upload_that_does_not_say_its_size_is_cut_off(served):
    url, _ = served
    with connect(url) as visitor:
        head = "POST /gradio_api/upload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
        parts = [f"{head}content-type: multipart/form-data; boundary=x\r\n\r\n".encode()]
        form = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        parts += [b"%x\r\n%b\r\n" % (len(part), part) for part in (form, *[bytes(100_000)] * 12)]
        with contextlib.suppress(OSError):  # it may close before all has been sent
            for part in parts:
                visitor.sendall(part)
        assert " 413 " in read(visitor)


def test_who_asks_too_often_is_refused_and_the_next_address_is_served(served, monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE", 0.1)
    # The clock of the rate stands still: on a slow machine all would be worked off before the last one asks.
    now = time.monotonic()
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now, thread_time=time.thread_time))
    url, _ = served
    with httpx.Client(headers={"x-forwarded-for": "9.9.9.9"}, timeout=LONGEST) as client:
        worst = crowd(client, f"{url}gradio_api/queue/status")  # each costs a page
    assert worst.status_code == 429
    assert "Wait a few seconds" in worst.json()["error"] and worst.headers["retry-after"]
    assert worst.headers["x-content-type-options"] == "nosniff"
    assert "picture" in draw(served, "9.9.9.8")


def crowd(client: httpx.Client, url: str) -> httpx.Response:
    """Forty requests at once; the worst answer."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(client.get(url))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(answers, key=lambda answer: answer.status_code)


def test_an_address_that_a_visitor_makes_up_counts_for_nothing(served, monkeypatch):
    """A proxy puts the real address behind what the visitor claims."""
    seen = []
    monkeypatch.setattr(limits, "network", lambda scope: seen.append(scope["client"][0]) or "one")
    for claim in ("1.1.1.1", "2.2.2.2", "127.0.0.1"):
        draw(served, f"{claim}, 9.9.9.7")
    assert set(seen) == {"9.9.9.7"}


def test_dropped_sockets_leave_no_work_behind(served):
    url, demo = served
    predict = board_of(demo)[1].predict
    function, held, worked = predict.function, threading.Event(), []

    def work(drawings):
        worked.extend(drawings)
        held.wait(LONGEST)
        return function(drawings)

    body = message(demo)
    request = f"{POST}content-length: {len(body)}\r\n\r\n".encode() + body
    predict.function = work
    try:
        sockets = [connect(url) for _ in range(6)]
        sockets[0].sendall(request)
        until(lambda: worked)
        for one in sockets[1:]:
            one.sendall(request)
        until(lambda: len(predict._requests) == 5)
        for one in sockets[1:]:
            one.close()
        until(lambda: not predict._requests)
    finally:
        held.set()
        predict.function = function
    assert b" 200 " in sockets[0].recv(1000)
    sockets[0].close()
    assert len(worked) == 1


def test_five_hundred_pieces_of_garbage_leave_the_worker_alive_and_no_traceback(served, capfd, caplog):
    url, demo = served
    boards = [board_of(demo)[0], board_of(demo, app.MixBoard)[0]]
    dice = random.Random(7)
    with httpx.Client(timeout=LONGEST) as client:
        for number in range(500):
            method, path, body, kind = garbage(dice, boards)
            headers = {"content-type": kind, "x-forwarded-for": f"8.8.{number % 100}.8"}
            try:
                answer = client.request(method, url + path, content=body, headers=headers)
            except httpx.RemoteProtocolError:  # Gradio finds out after it has begun to answer
                continue
            assert "Traceback" not in answer.text and "site-packages" not in answer.text
    for number in range(20):
        with connect(url) as noise:
            noise.sendall(dice.randbytes(1 + 100 * number) + b"\r\n\r\n")
    assert "picture" in draw(served, "9.9.9.6")
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed and not [record for record in caplog.records if record.exc_info]


def test_the_limits_are_options(served, monkeypatch, capsys):
    _, demo = served
    given = {}
    monkeypatch.setattr(app, "create_demo", lambda *_: demo)
    monkeypatch.setattr(app, "serve", lambda demo, **options: given.update(options))
    app.main([])
    assert [given[name] for name in ("upload", "rate", "waiting", "connections")] == [20, 75, 64, 800]
    app.main(["--max-upload", "5.5", "--max-rate", "7", "--max-waiting", "3", "--max-connections", "9"])
    assert [given[name] for name in ("upload", "rate", "waiting", "connections")] == [5.5, 7, 3, 9]
    for wrong in ("0", "-1", "nan", "inf", "many"):
        with pytest.raises(SystemExit):
            app.main(["--max-rate", wrong])
        assert "--max-rate" in capsys.readouterr().err
    assert demo.max_file_size == 1_000_000 and demo._queue.max_size == 10 and board_of(demo)[1].predict.waiting == 10
