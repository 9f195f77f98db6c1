"""`python app.py`, up to the server: whose models it shows, and where it runs."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import gradio as gr
import pytest
from gradio.utils import get_upload_folder
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

import app
from gan_core import hub

LIMITS = {"upload": 20, "rate": 75, "waiting": 64, "connections": 800}


@pytest.fixture
def started(monkeypatch):
    """`main` without a server: the pages that it would have shown, with the options of each."""
    pages = []
    monkeypatch.setattr(app, "serve", lambda demo, **options: pages.append((demo, options)))
    return pages


def test_no_time_is_spent_on_stubs_for_editors():
    """Gradio would parse each file that defines a component, and write another beside it."""
    watch = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda event, what: event == 'open' and opened.append(str(what[0])))\n"
        "import app, inspect\n"
        "print(len(opened) > 100, [file for file in opened if file.endswith('.pyi')], inspect.getfile(app.gr.HTML))\n"
    )
    done = subprocess.run([sys.executable, "-c", watch], cwd=app.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=2)[:2] == ["True", "[]"]
    assert done.stdout.rstrip().endswith("html.py")


def boards(demo: gr.Blocks) -> set[str]:
    return {block.predictor.task.name for block in demo.blocks.values() if isinstance(block, app.LiveBoard)}


def test_models_come_from_the_hub_and_from_files(started, fake_hub, small_models, tmp_path):
    fake_hub.repos["models/someone/lines"] = {hub.WEIGHTS: (small_models / "sketch2face.safetensors").read_bytes()}
    facades = small_models / "facades.safetensors"
    app.main(["--checkpoints", str(tmp_path), "--model", "sketch2face=someone/lines", "--model", f"facades={facades}"])
    ((demo, options),) = started
    assert boards(demo) == {"sketch2face", "facades"}
    assert options == {"server_name": None, "server_port": None, "mcp_server": None, **LIMITS}


def test_a_model_counts_before_the_folder(started, small_models, lively):
    app.main(["--checkpoints", str(small_models), "--model", f"facades={small_models / 'facades.safetensors'}"])
    assert boards(started[0][0]) == {"sketch2face", "facades"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("facades=someone/lines", "is a checkpoint for sketch2face, not for facades"),
        ("sketch2face=someone/gone", "there is no someone/gone on the Hub that you may see"),
        ("lines=someone/lines", "is not TASK=FILE or TASK=USER/REPO"),
    ],
)
def test_a_model_that_cannot_be_used_is_said_before_anything_starts(
    started, fake_hub, small_models, text, said, capsys
):
    fake_hub.repos["models/someone/lines"] = {hub.WEIGHTS: (small_models / "sketch2face.safetensors").read_bytes()}
    with pytest.raises(SystemExit) as error:
        app.main(["--model", text])
    assert error.value.code == 2 and said in capsys.readouterr().err and not started


@pytest.fixture
def empty_page(monkeypatch):
    monkeypatch.setattr(app, "create_demo", lambda *_: gr.Blocks())


def test_on_zero_gpu_one_function_may_use_the_gpu(started, empty_page, monkeypatch):
    """Which the platform looks for when the app starts."""
    wrapped, module = [], ModuleType("spaces")
    module.GPU = lambda duration: lambda function: wrapped.append((function, duration)) or function
    monkeypatch.setitem(sys.modules, "spaces", module)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    app.main([])
    assert wrapped == [(app.may_use_gpu, 1)]
    assert started[0][1]["waiting"] == 64  # Gradio would let one visitor wait there, and turn the others away


@pytest.mark.parametrize("setting", [None, "false"])
def test_elsewhere_nothing_of_zero_gpu_is_needed(started, empty_page, monkeypatch, setting):
    monkeypatch.setitem(sys.modules, "spaces", None)  # an import of it would fail
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    if setting:
        monkeypatch.setenv("SPACES_ZERO_GPU", setting)
    app.main(["--host", "0.0.0.0", "--port", "7000"])
    assert started[0][1] == {"server_name": "0.0.0.0", "server_port": 7000, "mcp_server": None, **LIMITS}


def test_the_page_is_open_before_the_networks_are_compiled(small_models, monkeypatch):
    order = []
    monkeypatch.setattr(app, "launch", lambda demo, **options: order.append(options))
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda demo: order.append("waits"))
    demo = app.create_demo(small_models)
    for block in demo.blocks.values():
        if isinstance(block, app.LiveBoard):
            block.warm_up = lambda task=block.predictor.task.name: order.append(task)
    app.serve(demo, server_port=7000)
    assert order == [{"prevent_thread_lock": True, "server_port": 7000}, "sketch2face", "facades", "waits"]


def test_uploads_have_a_folder_of_their_own_while_the_app_runs(started, empty_page, monkeypatch):
    folders = []
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    monkeypatch.setattr(app, "serve", lambda demo, **options: folders.append(Path(get_upload_folder())))
    app.main([])
    app.main([])
    assert folders[0] != folders[1] and not any(folder.exists() for folder in folders)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "chosen")
    app.main([])
    assert folders[2].name == "chosen"


def test_on_a_space_the_address_comes_from_its_proxies(monkeypatch):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "")
    monkeypatch.delenv("FORWARDED_ALLOW_IPS")  # and as it was, afterwards
    monkeypatch.setattr(app, "get_space", lambda: "someone/faces")
    monkeypatch.setattr(gr.Blocks, "launch", lambda demo, **options: None)
    app.launch(gr.Blocks())
    proxies = ProxyHeadersMiddleware(None, os.environ["FORWARDED_ALLOW_IPS"]).trusted_hosts
    assert "10.16.3.80" in proxies and "9.9.9.9" not in proxies
    assert proxies.get_trusted_client_address("made up, 9.9.9.9, 10.0.0.1")[0] == "9.9.9.9"
