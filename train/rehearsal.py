"""Starts the files of a Space as the platform does, in an environment of their own, and asks each tab for an answer."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from gan_core.facades import random_facade
from gan_core.image import to_data_url
from gan_core.lineart import random_doodle

PATIENCE = 600  # seconds for a start, or an answer, on a slow machine
INDEX = "--extra-index-url"
SESSION = "rehearsal"


class RehearsalError(RuntimeError):
    """The files do not make a working app; the message says what went wrong."""


def rehearse(folder: Path, reuse_environment: bool = False) -> list[str]:
    """Tasks whose tab gave an answer: all of them, or RehearsalError is raised.

    reuse_environment: run in this one instead of installing requirements.txt into a new one, which fetches PyTorch.
    """
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as scratch:
        python = Path(sys.executable) if reuse_environment else install(folder, Path(scratch))
        with serve(folder, python, Path(scratch)) as url:
            page = Page(url)
            return [task for task, ask in ASK.items() if ask(page)]


def install(folder: Path, scratch: Path) -> Path:
    """A new environment with what requirements.txt asks for, and nothing else. Returns its Python."""
    lines = (folder / "requirements.txt").read_text().splitlines()
    for line in [line for line in lines if line.startswith(INDEX)]:
        if not reachable(line.removeprefix(INDEX).strip()):
            print(
                f"{line.removeprefix(INDEX).strip()} cannot be reached: PyTorch comes from where pip looks by itself."
            )
            lines.remove(line)
    (scratch / "requirements.txt").write_text("\n".join(lines) + "\n")
    venv.create(scratch / "venv", with_pip=True)
    python = scratch / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, "-r", scratch / "requirements.txt"], capture_output=True, text=True)
    if done.returncode:
        raise RehearsalError(f"the requirements cannot be installed:\n{last_lines(done.stderr)}")
    return python


def reachable(url: str) -> bool:
    try:
        with urlopen(Request(url, method="HEAD"), timeout=10):
            return True
    except (OSError, ValueError):
        return False


@contextmanager
def serve(folder: Path, python: Path, scratch: Path) -> Iterator[str]:
    """`python app.py` in the folder, or as good as, on a free port, without the settings and secrets around it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (scratch / "home").mkdir()
    environment = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS", "SYSTEMROOT") if name in os.environ}
    environment |= {"HOME": str(scratch / "home"), "GRADIO_TEMP_DIR": str(scratch / "uploads")}
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    environment |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    log = scratch / "log.txt"
    with open(log, "w") as output:
        command = [python, "app.py"]
        app = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_for(url, app, log)
            yield url
        except (OSError, KeyError, ValueError) as error:
            raise RehearsalError(
                f"the app does not answer ({error!r}). It said:\n{last_lines(log.read_text())}"
            ) from error
        finally:
            app.terminate()
            try:
                app.wait(30)
            except subprocess.TimeoutExpired:
                app.kill()
                app.wait()


def wait_for(url: str, app: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if app.poll() is not None:
            raise RehearsalError(f"the app ended with {app.returncode}. It said:\n{last_lines(log.read_text())}")
        try:
            with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=10):
                return
        except OSError:
            time.sleep(0.3)
    raise RehearsalError(f"the app did not start in {PATIENCE} seconds. It said:\n{last_lines(log.read_text())}")


def last_lines(text: str, count: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


# --- A visitor without a browser -------------------------------------------------------------------------


class Page:
    """The page as a browser gets it, whose components are known by the ids that this project gave them."""

    def __init__(self, url: str):
        self.url = url
        self.config = self.get("config")
        self.components = {part["props"].get("elem_id"): part for part in self.config["components"]}

    def get(self, path: str) -> dict:
        with urlopen(self.url + path, timeout=PATIENCE) as response:
            return json.load(response)

    def post(self, path: str, body: dict) -> dict:
        request = Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=PATIENCE) as response:
            return json.load(response)

    def find(self, name: str) -> dict:
        if name not in self.components:
            missing = [id for id in self.components if id and id.startswith("missing-")]
            raise RehearsalError(f"the page has no {name}; {', '.join(missing) or 'no tab'} stands for a missing model")
        return self.components[name]

    def call(self, name: str, function: str, data: dict) -> bool:
        """Asks a board, as its JavaScript does, for a picture."""
        body = {"session_hash": SESSION, "component_id": self.find(name)["id"], "fn_name": function, "data": data}
        answer = self.post("gradio_api/component_server", body)
        if not str(answer.get("picture")).startswith("data:image/"):
            raise RehearsalError(f"{name} answered {str(answer)[:200]}")
        return True

    def change(self, name: str) -> dict:
        """Hands the value of a component in once more, as a visitor's click does. Returns what the event puts out."""
        part = self.find(name)
        event = next(e for e in self.config["dependencies"] if [part["id"], "change"] in map(list, e["targets"]))
        body = {"session_hash": SESSION, "fn_index": event["id"], "data": [part["props"]["value"]]}
        self.post("gradio_api/queue/join", body)
        with urlopen(f"{self.url}gradio_api/queue/data?session_hash={SESSION}", timeout=PATIENCE) as lines:
            for line in lines:
                message = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
                if message.get("msg") == "process_completed":
                    return message["output"]
        raise RehearsalError(f"{name} gave no answer")


def segment(page: Page) -> bool:
    answer = page.change("segment-photo")
    if '"classes"' not in json.dumps(answer):
        raise RehearsalError(f"segment-photo answered {str(answer)[:200]}")
    return True


RECIPE = {"faces": [{"seed": 1}, {"seed": 2}], "weights": [1, 1], "shifts": [0] * 8, "truncation": 1}
ASK = {
    "sketch2face": lambda page: page.call("sketch-board", "redraw", {"drawing": to_data_url(random_doodle(1), "PNG")}),
    "facades": lambda page: page.call("facade-board", "redraw", {"drawing": to_data_url(random_facade(1), "PNG")}),
    "segmentation": segment,
    "vaegan": lambda page: page.call("mix-board", "blend", RECIPE),
}
