"""A share of the bad inputs at every entry; all of them: python -m tests.reliability.hostile."""

import json
from itertools import islice

import httpx
import pytest

import app
from tests.reliability.hostile import entries, try_all
from tests.reliability.messages import GOOD, bad_messages
from tests.reliability.pictures import bad_pictures
from tests.waiting import LONGEST, get, post

EVERY = 700
TOTAL = 2_000


@pytest.fixture(scope="module")
def all_entries(tmp_path_factory):
    with entries(tmp_path_factory.mktemp("hostile")) as found:
        yield found


def test_every_entry_answers_or_explains_and_lives_on(all_entries):
    distinct = set()
    for number, entry in enumerate(all_entries):
        row = try_all(entry, islice(entry.inputs(), number, None, EVERY))
        assert not row.problems, (entry.name, row.problems)
        assert row.refused or row.answered
        distinct |= row.distinct
    assert len(distinct) > TOTAL / EVERY


def test_there_are_two_thousand_bad_inputs():
    pictures = {picture.data for picture in bad_pictures()}
    messages = {bad.key for board in ("pix2pix", "mix") for bad in bad_messages(board)}
    assert len(pictures) > 1_500 and len(pictures) + len(messages) > TOTAL


# --- Over HTTP -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(all_entries, tmp_path_factory):
    """(URL of a running app, id of its board to sketch on); its networks are small."""
    demo = app.create_demo("checkpoints")  # of the working directory of `entries`
    _, url, _ = app.launch(demo, rate=1e6, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield url, next(id for id, block in demo.blocks.items() if isinstance(block, app.LiveBoard))
    demo.close()


def answered(board) -> bool:
    url, id = board
    body = {"session_hash": "honest", "component_id": id, "fn_name": "redraw", "data": GOOD["redraw"]}
    return "picture" in post(f"{url}gradio_api/component_server", json=body).json()


def test_messages_over_http_get_a_sentence_and_the_worker_lives(board):
    url, id = board
    for bad in islice(bad_messages("pix2pix"), 0, None, 25):
        body = {"session_hash": "s", "component_id": id, "fn_name": bad.kind, "data": bad.data}
        text = json.dumps(body)  # with NaN and Infinity, which httpx would refuse
        answer = post(f"{url}gradio_api/component_server", content=text)
        assert "Traceback" not in answer.text and "site-packages" not in answer.text, bad.name
        assert "Something went wrong" not in answer.text, bad.name
    assert answered(board)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"fn_name": "__init__", "component_id": 1, "data": null, "session_hash": "s"}',
        b'{"fn_name": "predict", "component_id": 1, "data": null, "session_hash": "s"}',
        b'{"fn_name": "redraw", "component_id": 99999, "data": null, "session_hash": "s"}',
        b'{"fn_name": "redraw", "component_id": 1e400, "data": null, "session_hash": "s"}',
        b'{"fn_name": "redraw", "component_id": 1, "data": ' + b"9" * 5_000 + b"}",
        b'{"data": "' + b"A" * 30_000_000 + b'"}',
    ],
    ids=lambda text: repr(text[:60]),
)
def test_requests_that_are_none_show_no_traceback(board, text):
    url, _ = board
    for path in ("gradio_api/component_server", "gradio_api/queue/join", "gradio_api/upload"):
        answer = post(f"{url}{path}", content=text, headers={"content-type": "application/json"})
        assert answer.status_code >= 400 or "error" in answer.text
        assert "Traceback" not in answer.text and "site-packages" not in answer.text
    assert answered(board)


def test_uploads_over_http_get_a_sentence(board):
    url, _ = board
    config = get(f"{url}config").json()
    number = next(fn["id"] for fn in config["dependencies"] if fn["api_name"] == "show")
    for bad in islice(bad_pictures(), 0, None, 120):
        files = {"files": ("a.png", bad.data, "image/png")}
        (path,) = post(f"{url}gradio_api/upload", files=files).json()
        body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}], "fn_index": number, "session_hash": "u"}
        post(f"{url}gradio_api/queue/join", json=body)
        with httpx.stream(
            "GET", f"{url}gradio_api/queue/data", params={"session_hash": "u"}, timeout=LONGEST
        ) as stream:
            told = [line for line in stream.iter_lines() if line.startswith("data:")]
        assert any('"success":true' in line or '"success": true' in line for line in told), (bad.name, told)
        assert not any("Traceback" in line or "Something went wrong" in line for line in told), bad.name
    assert answered(board)
