"""What the app keeps, serves and tells: nothing of one visitor to another, nothing to anybody else."""

import base64
import io
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

import app
from gan_core.facades import random_facade
from gan_core.image import to_data_url
from gan_core.provenance import SOURCE_TYPE
from tests.reliability.checkpoints import small_checkpoints
from tests.reliability.pictures import NAMES, encode, portrait
from tests.waiting import LONGEST, get, post

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(URL, demo) of the app with small networks; `secret.txt` and a checkpoint lie in its neighbourhood."""
    folder = tmp_path_factory.mktemp("app")
    small_checkpoints(folder)
    (folder / "secret.txt").write_text("the secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "GALLERY", [1, 2])
        demo = app.create_demo(folder)
    _, url, _ = app.launch(demo, rate=1e6, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield url, demo, folder
    demo.close()


def ask(served, board, function: str, data: dict) -> dict:
    url, demo, _ = served
    id = next(id for id, block in demo.blocks.items() if isinstance(block, board))
    body = {"session_hash": "tester", "component_id": id, "fn_name": function, "data": data}
    return post(f"{url}gradio_api/component_server", json=body).json()


# --- Files -----------------------------------------------------------------------------------------------


def test_no_file_outside_the_uploads_is_served(served, tmp_path):
    url, _, folder = served
    link = tmp_path / "link.png"
    link.symlink_to(folder / "secret.txt")
    wanted = [
        folder / "secret.txt",
        folder / "vaegan.safetensors",
        link,
        Path("/etc/passwd"),
        Path("/proc/self/environ"),
    ]
    wanted += [ROOT / "app.py", ROOT / "assets/checkpoints/vaegan.safetensors", ROOT / "requirements.txt"]
    paths = [str(path) for path in wanted]
    paths += [
        "app.py",
        "./app.py",
        "assets/checkpoints/vaegan.safetensors",
        "requirements.txt",
        ".git/config",
        "..",
        "/",
    ]
    paths += ["../" * n + "etc/passwd" for n in range(1, 12)] + ["..\\" * 5 + "etc\\passwd", "file:///etc/passwd"]
    paths += [f"{app.ASSETS}/../app.py", "//etc/passwd", "/etc//passwd", "/./etc/passwd", "~/.bashrc"]
    roots = ("gradio_api/file=", "file=", "static/", "assets/", "gradio_api/proxy=", "theme.css/", "svelte/", "")
    with httpx.Client(timeout=LONGEST) as client:
        for root in roots:
            for path in paths:
                for text in (quote(path), quote(path, safe=""), quote(quote(path, safe=""), safe="")):
                    answer = client.get(f"{url}{root}{text}")
                    # The page itself, which unknown addresses may give, is no file.
                    page = answer.headers.get("content-type", "").startswith("text/html")
                    assert answer.status_code >= 400 or page or root == "theme.css/", (root, path)
                    for secret in (
                        "the secret",
                        "root:",
                        "create_demo",
                        "torch>=",
                        "[core]",
                        "Traceback",
                        "__metadata__",
                    ):
                        assert secret not in answer.text, (root, path)


def test_an_upload_keeps_no_way_out_of_its_name(served, tmp_path):
    url, _, _ = served
    data = encode(portrait(), "PNG")
    for name in NAMES:
        try:
            answer = post(f"{url}gradio_api/upload", files={"files": (name, data, "image/png")})
        except UnicodeEncodeError:  # a name that cannot be sent
            continue
        if answer.status_code != 200:
            assert "Traceback" not in answer.text
            continue
        for path in map(Path, answer.json()):
            assert path.resolve() == path and path.parent.parent.name == Path(path.parent.parent).name
            assert path.read_bytes() == data
            assert not set(path.name) & set('/\\\0\n\r<>"')


def test_an_uploaded_page_is_never_shown_as_one(served):
    url, _, _ = served
    for name in ("a.html", "a.svg", "a.xhtml", "a.js", "a.pdf"):
        (path,) = post(f"{url}gradio_api/upload", files={"files": (name, b"<script>alert(1)</script>")}).json()
        answer = get(f"{url}gradio_api/file={path}")
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/etc/passwd", "secret", "../../etc/passwd", "http://127.0.0.1:1/a.png", None, 7, {}])
def test_a_message_cannot_name_a_file_that_was_not_uploaded(served, path):
    url, demo, folder = served
    path = str(folder / "secret.txt") if path == "secret" else path
    (number,) = (id for id, function in demo.fns.items() if function.name == "show")
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [file], "fn_index": number, "session_hash": f"s{path!r}"}
    assert post(f"{url}gradio_api/queue/join", json=body).status_code < 500
    with httpx.stream(
        "GET", f"{url}gradio_api/queue/data", params={"session_hash": body["session_hash"]}, timeout=LONGEST
    ) as stream:
        done = next(line for line in stream.iter_lines() if "process_completed" in line or "unexpected" in line)
    assert "secret" not in done.replace("secret.txt", "") and "Traceback" not in done
    assert "root:" not in done


# --- Headers and cookies --------------------------------------------------------------------------------


def test_pages_say_what_browsers_shall_refuse_and_set_no_cookie(served):
    url, _, _ = served
    for path in ("", "config", "gradio_api/info", "theme.css"):
        answer = get(f"{url}{path}")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'self' https://huggingface.co" in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers


def test_another_site_cannot_read_an_app_on_this_computer(served):
    url, _, _ = served
    answer = get(f"{url}config", headers={"origin": "https://example.com"})
    assert "access-control-allow-origin" not in answer.headers


def test_nobody_else_sees_how_the_app_is_used(served):
    url, _, _ = served
    for path in ("monitoring", "monitoring/summary", "gradio_api/runs"):
        answer = get(f"{url}{path}")
        assert answer.status_code >= 400 or "sessions" not in answer.text.lower()


# --- Nothing is told to anybody --------------------------------------------------------------------------

WATCH = """
import sys
calls = []
sys.addaudithook(lambda event, args: calls.append((event, repr(args[-1] if event == "socket.connect" else args[:2])))
                 if event in ("socket.connect", "socket.getaddrinfo") else None)
import httpx, app
demo = app.create_demo(sys.argv[1])
_, url, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
assert httpx.get(url, timeout=60).status_code == 200
import time; time.sleep(1)
demo.close()
strangers = [call for call in calls if "127.0.0.1" not in call[1] and "localhost" not in call[1]]
assert not strangers, strangers
print(len(calls), "calls, all to this computer")
"""


def test_the_app_calls_nobody(tmp_path):
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WATCH}", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "all to this computer" in done.stdout


def test_analytics_and_run_history_are_off(served):
    url, demo, _ = served
    config = get(f"{url}config").json()
    assert not demo.analytics_enabled and config["analytics_enabled"] is False and config["run_history"] is False


def test_the_face_of_a_visitor_is_forgotten_with_the_upload(served):
    _, demo, _ = served
    states = [block for block in demo.blocks.values() if type(block).__name__ == "State"]
    assert states and all(state.time_to_live == app.UPLOADS_LIVE[1] for state in states)
    assert demo.state_session_capacity == app.SESSIONS


# --- What is made says so --------------------------------------------------------------------------------


def test_every_generated_picture_of_the_app_says_that_it_is_one(served):
    drawing = to_data_url(Image.new("L", (64, 64), "white"), "PNG")
    recipe = {"faces": [{"seed": 1}, {"seed": 2}], "weights": [1, 1], "seed": 1}
    pictures = [
        ask(served, app.LiveBoard, "redraw", {"drawing": drawing})["picture"],
        *ask(served, app.LiveBoard, "variants", {"drawing": drawing, "seed": 1})["pictures"],
        *(ask(served, app.MixBoard, name, recipe)["picture"] for name in ("blend", "large", "sheet")),
    ]
    assert len(pictures) == 8
    for picture in pictures:
        assert SOURCE_TYPE.encode() in bytes_of(picture)
    assert Image.open(io.BytesIO(bytes_of(pictures[-2]))).size == (app.SAVED, app.SAVED)


def bytes_of(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def test_a_label_map_on_the_board_of_facades_gives_a_labelled_building(served):
    url, demo, _ = served
    id = [id for id, block in demo.blocks.items() if isinstance(block, app.LiveBoard)][1]
    drawing = to_data_url(random_facade(1), "PNG")
    body = {"session_hash": "t", "component_id": id, "fn_name": "redraw", "data": {"drawing": drawing}}
    answer = post(f"{url}gradio_api/component_server", json=body).json()
    assert SOURCE_TYPE.encode() in bytes_of(answer["picture"])
