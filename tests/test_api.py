"""What other programs are offered: the endpoints, the MCP tools, and the examples in docs/api.md."""

import asyncio
import base64
import io
import json
import os
import re
import shutil
import subprocess
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

import app
from gan_core import FaceMixer, Pix2PixPredictor, Segmenter
from gan_core.faces import crop_face
from gan_core.image import open_picture, to_data_url
from gan_core.lineart import PHOTO_SIDE, draw_lines
from gan_core.palette import VOC
from gan_core.segmenter import class_shares, lay_over
from tests.browser.chromium import open_browser
from tests.waiting import LONGEST, get, post

ROOT = Path(__file__).parent.parent
CHECKPOINTS = ROOT / "assets" / "checkpoints"
DRAWING = ROOT / "assets" / "examples" / "sketch2face" / "curly.png"
LABEL_MAP = ROOT / "assets" / "examples" / "facades" / "4_balconies.png"
PHOTO = ROOT / "assets" / "examples" / "segmentation" / "2_astronaut.jpg"
DOCS = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
ENDPOINTS = {"/sketch2face", "/lines", "/facades", "/segmentation", "/mix"}
MARK = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def demo():
    demo = app.create_demo(CHECKPOINTS)
    app.launch(demo, rate=1e6, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", mcp_server=True)
    yield demo
    demo.close()


@pytest.fixture(scope="module")
def url(demo) -> str:
    return demo.local_url


@pytest.fixture(scope="module")
def client(url) -> Client:
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def sketcher() -> Pix2PixPredictor:
    return Pix2PixPredictor.from_checkpoint(CHECKPOINTS / "sketch2face.safetensors")


def same(file: str | Path | bytes, expected: Image.Image) -> bool:
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
        return picture.mode == expected.mode and np.array_equal(np.asarray(picture), np.asarray(expected))


def upload(url: str, file: Path | bytes) -> dict:
    data = file if isinstance(file, bytes) else file.read_bytes()
    return {"path": post(f"{url}gradio_api/upload", files={"files": ("a.png", data)}).json()[0], **MARK}


def ask(url: str, endpoint: str, request: dict) -> tuple[str, list | dict]:
    """As a program without a client: ("complete", answers) or ("error", what went wrong)."""
    event = post(f"{url}gradio_api/call/v2{endpoint}", json=request).json()["event_id"]
    stream = get(f"{url}gradio_api/call{endpoint}/{event}").text
    kind, data = re.search(r"event: (complete|error)\ndata: (.*)", stream).groups()
    return kind, json.loads(data)


def call_tool(url: str, name: str, request: dict):
    """The answer of an MCP tool; without a name the list of tools."""

    async def call():
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await session.call_tool(name, request) if name else (await session.list_tools()).tools

    return asyncio.run(call())


# --- What there is


def test_the_endpoints_are_these_and_what_the_page_uses_is_private(url, demo):
    info = get(f"{url}gradio_api/info").json()
    assert set(info["named_endpoints"]) == ENDPOINTS
    assert not info["unnamed_endpoints"]
    assert {
        f"/{function.api_name}" for function in demo.fns.values() if function.api_visibility != "private"
    } == ENDPOINTS
    assert all(f"| `{endpoint}` |" in DOCS for endpoint in ENDPOINTS)


def test_only_tasks_with_a_checkpoint_have_an_endpoint(mixer_folder):
    assert set(app.create_demo(mixer_folder).get_api_info()["named_endpoints"]) == {"/mix"}


def test_each_tool_and_each_of_its_arguments_is_described(url):
    tools = call_tool(url, "", {})
    assert {f"/{tool.name}" for tool in tools} == ENDPOINTS
    for tool in tools:
        assert len(tool.description) > 40 and "Returns: " in tool.description
        for name, argument in tool.inputSchema["properties"].items():
            assert len(argument["description"]) > 15, f"{tool.name}: {name}"
            assert f"`{name}`" in DOCS


# --- What they answer


def test_a_drawing_becomes_the_face_of_the_library_and_its_variants(client, sketcher):
    face, variants = client.predict(drawing=handle_file(DRAWING), variants=2, seed=7, api_name="/sketch2face")
    drawing = open_picture(DRAWING)
    assert same(face, sketcher.predict(drawing))
    expected = sketcher.predict_variants(drawing, 2, 7)
    assert len(variants) == 2 and all(same(*pair) for pair in zip(variants, expected))


def test_a_photo_becomes_lines_and_its_lines_a_face(client, sketcher):
    expected = draw_lines(crop_face(open_picture(PHOTO), PHOTO_SIDE), 0.8)
    lines = client.predict(photo=handle_file(PHOTO), detail=0.8, api_name="/lines")
    assert same(lines, expected)
    face, variants = client.predict(drawing=handle_file(PHOTO), detail=0.8, api_name="/sketch2face")
    assert same(face, sketcher.predict(expected)) and variants == []


def test_a_label_map_becomes_a_building_and_so_does_a_pair(client, tmp_path):
    predictor = Pix2PixPredictor.from_checkpoint(CHECKPOINTS / "facades.safetensors")
    label_map = open_picture(LABEL_MAP)
    building, variants = client.predict(label_map=handle_file(LABEL_MAP), variants=1, seed=3, api_name="/facades")
    assert same(building, predictor.predict(label_map))
    assert same(variants[0], predictor.predict_variants(label_map, 1, 3)[0])
    pair = Image.new("RGB", (512, 256), "gray")
    pair.paste(label_map.resize((256, 256), Image.Resampling.NEAREST), (256, 0))
    pair.save(tmp_path / "pair.png")
    assert same(
        client.predict(label_map=handle_file(tmp_path / "pair.png"), api_name="/facades")[0], Image.open(building)
    )


@pytest.mark.parametrize("fast", [False, True])
def test_a_photo_becomes_a_class_map_an_overlay_and_a_legend(client, fast):
    photo = open_picture(PHOTO, draft=None)
    labels = Segmenter.from_checkpoint(CHECKPOINTS / "segmentation.safetensors").segment(photo, thorough=not fast)
    classes, overlay, legend = client.predict(photo=handle_file(PHOTO), fast=fast, api_name="/segmentation")
    assert same(classes, VOC.to_indexed(labels))
    with Image.open(classes) as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(VOC.to_picture(labels)))
    assert same(overlay, lay_over(photo, labels))
    assert {entry["number"]: entry["share"] for entry in legend} == pytest.approx(class_shares(labels))
    assert legend[0]["name"] == VOC.names[legend[0]["number"]]
    assert tuple(legend[0]["color"]) == VOC.colors[legend[0]["number"]]


def test_pictures_and_seeds_are_mixed_by_their_weights(client):
    mixer = FaceMixer.from_checkpoint(CHECKPOINTS / "vaegan.safetensors")
    seed = mixer.sample(1, 7)[0]
    assert same(client.predict(seeds=[7], api_name="/mix"), mixer.decode(seed))
    faces = [mixer.encode(open_picture(DRAWING)), mixer.encode(open_picture(LABEL_MAP)), seed]
    request = {"first": handle_file(DRAWING), "third": handle_file(LABEL_MAP), "seeds": [7]}
    assert same(client.predict(**request, api_name="/mix"), mixer.mix(faces, [1, 1, 1]))
    assert same(client.predict(**request, weights=[0.2, 0, 3], api_name="/mix"), mixer.mix(faces, [0.2, 0, 3]))


def test_a_tool_shows_the_picture(url, sketcher):
    answer = call_tool(url, "sketch2face", {"drawing": to_data_url(open_picture(DRAWING), "PNG"), "variants": 1})
    face, _, variants = answer.content
    assert not answer.isError
    assert face.mimeType == "image/png" and same(base64.b64decode(face.data), sketcher.predict(open_picture(DRAWING)))
    (variant,) = re.findall(r"'url': '(http.*?)'", variants.text)
    assert same(get(variant).content, sketcher.predict_variants(open_picture(DRAWING), 1)[0])


# --- What they refuse

BAD = {
    "too many variants": ("/sketch2face", {"variants": 17}, "variants: .*less than or equal to 16"),
    "no number": ("/sketch2face", {"variants": "many"}, "variants: .*valid integer"),
    "half a variant": ("/sketch2face", {"variants": 1.5}, "variants: .*valid integer"),
    "negative seed": ("/sketch2face", {"seed": -1}, "seed: .*greater than or equal to 0"),
    "too much detail": ("/sketch2face", {"detail": 2}, "detail: .*less than or equal to 1"),
    "no picture": ("/sketch2face", {"drawing": None}, "Upload one to gradio_api/upload"),
    "a text": ("/sketch2face", {"drawing": "hello"}, "Upload one to gradio_api/upload"),
    "no label map": ("/facades", {"label_map": DRAWING}, "no label map"),
    "no face": ("/lines", {"photo": LABEL_MAP}, "No face was found .* Use one"),
    "not an image": ("/segmentation", {"photo": b"hello"}, "not a picture .* Save it as PNG"),
    "cut short": ("/segmentation", {"photo": DRAWING.read_bytes()[:2000]}, "damaged or cut short"),
    "nothing to mix": ("/mix", {}, "There are 0 faces to mix; give 1 to 6"),
    "a crowd": ("/mix", {"seeds": list(range(7))}, "There are 7 faces to mix; give 1 to 6"),
    "weights that do not fit": ("/mix", {"seeds": [1, 2], "weights": [1]}, "2 faces and 1 weights; give one each"),
    "a weight below 0": ("/mix", {"seeds": [1, 2], "weights": [1, -1]}, "weights.1: .*greater than or equal to 0"),
    "an endless weight": ("/mix", {"seeds": [1, 2], "weights": [1, "inf"]}, "weights.1: .*less than or equal"),
    "one seed, no list": ("/mix", {"seeds": 7}, "seeds: .*valid list"),
}


@pytest.mark.parametrize(("endpoint", "request_", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_gets_a_sentence(url, endpoint, request_, message):
    files = {name: upload(url, value) for name, value in request_.items() if isinstance(value, (Path, bytes))}
    drawing = {"drawing": upload(url, DRAWING)} if endpoint == "/sketch2face" else {}
    kind, data = ask(url, endpoint, {**drawing, **request_, **files})
    assert kind == "error"
    assert re.search(message, data["error"]) and "Traceback" not in data["error"]


def test_a_tool_says_what_is_wrong(url):
    answer = call_tool(url, "mix", {"seeds": [1, 2], "weights": [1]})
    assert answer.isError and "give one each" in answer.content[0].text


def test_an_accident_gets_a_sentence_too(url, demo, monkeypatch):
    predictor = next(block.predictor for block in demo.blocks.values() if isinstance(block, app.LiveBoard))
    monkeypatch.setattr(predictor, "predict", lambda source: 1 / 0)
    kind, data = ask(url, "/sketch2face", {"drawing": upload(url, DRAWING)})
    assert kind == "error" and data["error"] == "Something went wrong here. Try another picture."


@pytest.mark.parametrize("mark", [MARK, {}, {**MARK, "is_stream": True}], ids=["marked", "unmarked", "stream"])
def test_what_nobody_uploaded_is_not_read(url, tmp_path, mark):
    secret = tmp_path / "secret.png"
    open_picture(DRAWING).save(secret)
    for place in (secret, DRAWING, Path(os.path.relpath(secret))):
        kind, data = ask(url, "/sketch2face", {"drawing": {"path": str(place), **mark}})
        assert kind == "error" and "path" not in str(data.get("data"))
        assert call_tool(url, "sketch2face", {"drawing": {"path": str(place), **mark}}).isError
        assert call_tool(url, "sketch2face", {"drawing": str(place)}).isError
    assert get(f"{url}gradio_api/file={secret}").status_code == 403


def test_no_address_leads_to_what_others_uploaded(url):
    mine = upload(url, DRAWING)["path"]
    assert get(f"{url}gradio_api/file={mine}").status_code == 200
    folder = Path(mine).parent
    assert len(folder.name) == 64  # nobody guesses that
    for place in (folder, folder.parent, folder.parent / "a.png"):
        assert get(f"{url}gradio_api/file={place}").status_code in (403, 404)


def test_addresses_of_this_computer_are_not_fetched(url):
    own = f"{url}gradio_api/file={upload(url, DRAWING)['path']}"
    assert ask(url, "/sketch2face", {"drawing": {"path": own, **MARK}})[0] == "error"
    assert call_tool(url, "sketch2face", {"drawing": own}).isError


def test_what_comes_back_is_among_what_is_deleted_after_a_while(url, demo):
    _, (face, variants) = ask(url, "/sketch2face", {"drawing": upload(url, DRAWING), "variants": 1})
    assert {face["path"], variants[0]["path"]} <= set().union(*demo.temp_file_sets)


def test_a_flood_of_requests_waits_and_the_boards_answer(url, demo, monkeypatch):
    component, board = next((id, block) for id, block in demo.blocks.items() if isinstance(block, app.LiveBoard))
    drawing = upload(url, DRAWING)
    started, go_on, at_work, together = threading.Event(), threading.Event(), [], []

    def slow(source):
        at_work.append(source)
        together.append(len(at_work))
        started.set()
        assert go_on.wait(LONGEST)
        return at_work.pop()

    def direct(_) -> httpx.Response:
        body = {"data": [drawing, 0, 0, 0.5]}
        return post(f"{url}gradio_api/run/sketch2face", json=body)

    monkeypatch.setattr(board.predictor, "predict", slow)
    with ThreadPoolExecutor(30) as pool:
        queued = [pool.submit(ask, url, "/sketch2face", {"drawing": drawing}) for _ in range(4)]
        pushing = {pool.submit(direct, i) for i in range(22)}
        try:
            assert started.wait(LONGEST)
            refused, waiting = set(), pushing
            while len(refused) < 4:  # one works and sixteen wait; at least four of the others are sent away at once
                done, waiting = wait(waiting, timeout=LONGEST, return_when=FIRST_COMPLETED)
                refused |= done
            request = {"drawing": to_data_url(open_picture(DRAWING), "PNG")}
            body = {"session_hash": "a", "component_id": component, "fn_name": "redraw", "data": request}
            assert "picture" in post(f"{url}gradio_api/component_server", json=body).json()
        finally:
            go_on.set()
        assert all("Too many people" in response.result().text for response in refused)
        kinds = [response.result().status_code for response in pushing - refused]
        assert kinds.count(200) >= 15
        answers = [answer.result() for answer in queued]
    assert all(kind == "complete" or "Too many people" in data["error"] for kind, data in answers)
    assert max(together) == 1


def test_without_its_package_mcp_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        app.main(["--mcp"])
    assert stop.value.code == 2 and 'pip install "gradio[mcp]"' in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "asked"), [([], None), (["--mcp"], True)])
def test_mcp_is_there_for_who_asks(monkeypatch, arguments, asked):
    seen = {}
    monkeypatch.setattr(app, "create_demo", lambda checkpoints, models: None)
    monkeypatch.setattr(app, "serve", lambda demo, **options: seen.update(options))
    app.main(arguments)
    assert seen["mcp_server"] is asked


# --- The examples in docs/api.md


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with the assets of the repository, to run the examples in."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples(language: str) -> list[str]:
    return [block for name, block in BLOCKS if name == language]


def at(url: str, block: str) -> str:
    """An example for the app of these tests."""
    return block.replace("http://127.0.0.1:7860", url.rstrip("/"))


def test_all_examples_are_run_here():
    assert {name for name, _ in BLOCKS} == {"python", "bash", "javascript", "json"}
    assert all("http://127.0.0.1:7860" in block for _, block in BLOCKS)


@pytest.mark.parametrize("block", examples("python"))
def test_the_python_in_the_docs(block, url, place, sketcher, capsys):
    found = {}
    exec(compile(at(url, block), "api.md", "exec"), found)
    expected = sketcher.predict(open_picture(DRAWING))
    printed = capsys.readouterr().out
    if "face" in found:
        assert same(found["face"], expected) and len(found["variants"]) == 4
        documented, seen = (float(re.search(r"([\d.]+)% cat", text)[1]) for text in (block, printed))
        assert documented == pytest.approx(seen, abs=1)  # bfloat16 sees another one pixel in 500
        assert open_picture(found["blend"]).size == (96, 96)
    elif "AppError" in found:
        assert "No face was found in this photo. Use one" in printed
    else:
        assert same(place / "face.png", expected) and "sketch2face" in printed


@pytest.mark.parametrize("block", examples("bash"))
def test_the_commands_in_the_docs(block, url, place, sketcher):
    assert shutil.which("curl") and shutil.which("bash"), "Install them (Debian: apt-get install curl bash)."
    command = ["bash", "-euo", "pipefail", "-c", at(url, block)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, done.stderr
    if "sketch2face" in block:
        assert "event: complete" in done.stdout
        assert same(place / "face.png", sketcher.predict(open_picture(DRAWING)))
    else:
        mixer = FaceMixer.from_checkpoint(CHECKPOINTS / "vaegan.safetensors")
        assert same(place / "blend.png", mixer.mix([mixer.sample(1, 7)[0], mixer.sample(1, 8)[0]], [3, 1]))


def test_the_javascript_in_the_docs(url):
    (block,) = examples("javascript")
    code = at(url, block)
    with open_browser() as browser:
        page = browser.new_page()
        page.goto(f"{url}gradio_api/info")
        page.evaluate(f"async () => {{ {code} }}")
        page.wait_for_function("[...document.images].length === 3 && [...document.images].every((i) => i.naturalWidth)")
        assert page.evaluate("[...document.images].map((image) => image.naturalWidth)") == [256] * 3
        assert len(set(page.evaluate("[...document.images].map((image) => image.src)"))) == 3
        with pytest.raises(Exception, match="variants: Input should be less than or equal to 16"):
            page.evaluate(f"async () => {{ {code} await ask('sketch2face', {{ drawing, variants: 99 }}); }}")


def test_the_mcp_configuration_in_the_docs(url):
    (block,) = examples("json")
    (server,) = json.loads(at(url, block))["mcpServers"].values()
    assert server == {"url": f"{url}gradio_api/mcp/"}  # where the other tests find the tools
