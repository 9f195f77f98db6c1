"""The app over HTTP, without a browser."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

import app
from gan_core import Pix2PixPredictor
from gan_core.facades import random_facade
from gan_core.image import read_data_url, to_data_url

CHECKPOINTS = Path("assets/checkpoints")


@pytest.fixture(scope="module")
def boards():
    """Task -> (URL, id of the board's component)."""
    demo = app.create_demo(CHECKPOINTS)
    _, url, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    found = {block.predictor.task.name: id for id, block in demo.blocks.items() if isinstance(block, app.LiveBoard)}
    yield {task: (url, id) for task, id in found.items()}
    demo.close()


@pytest.fixture
def board(boards):
    return boards["sketch2face"]


def ask(board, function, data, client=httpx, session="tester"):
    url, component = board
    body = {"session_hash": session, "component_id": component, "fn_name": function, "data": data}
    return client.post(f"{url}gradio_api/component_server", json=body, timeout=60)


def drawing(seed: int) -> str:
    paper = Image.new("L", (256, 256), "white")
    points = np.random.default_rng(seed).uniform(30, 226, (6, 2))
    ImageDraw.Draw(paper).line([tuple(p) for p in points], fill=0, width=4)
    return to_data_url(paper, "PNG")


def label_map(seed: int) -> str:
    return to_data_url(random_facade(seed), "PNG")


@pytest.mark.parametrize(("task", "draw"), [("sketch2face", drawing), ("facades", label_map)])
def test_a_drawing_becomes_a_picture(boards, task, draw):
    answer = ask(boards[task], "redraw", {"drawing": draw(1), "realism": True}).json()
    assert read_data_url(answer["picture"]).size == (256, 256)
    assert read_data_url(answer["realism"]).size == (256, 256)


def too_wide() -> str:
    buffer = io.BytesIO()
    Image.new("1", (60_000, 1_000)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


BAD = {
    "nothing": None,
    "a text": "hello",
    "a number": 7,
    "a list": [1, 2],
    "no drawing": {},
    "empty drawing": {"drawing": ""},
    "drawing of another type": {"drawing": ["a"]},
    "not a data URL": {"drawing": "https://example.com/a.png"},
    "an SVG": {"drawing": "data:image/svg+xml;base64,PHN2Zy8+"},
    "broken base64": {"drawing": "data:image/png;base64,@@@"},
    "base64 of text": {"drawing": "data:image/png;base64,aGVsbG8="},
    "cut short": {"drawing": drawing(1)[:200]},
    "five million characters": {"drawing": "data:image/png;base64," + "A" * 5_000_000},
    "sixty megapixels": {"drawing": too_wide()},
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("function", ["redraw", "variants"])
@pytest.mark.parametrize("task", ["sketch2face", "facades"])
def test_bad_canvas_data_gets_a_sentence_and_the_app_goes_on(boards, task, function, data):
    board = boards[task]
    response = ask(board, function, data)
    assert response.status_code == 200
    message = response.json()["error"]
    assert message.endswith(".") and len(message) > 20 and "Traceback" not in message
    draw = {"sketch2face": drawing, "facades": label_map}[task]
    assert "picture" in ask(board, "redraw", {"drawing": draw(2)}).json()


def test_a_drawing_on_the_board_for_label_maps_is_explained(boards):
    assert "no label map" in ask(boards["facades"], "redraw", {"drawing": drawing(1)}).json()["error"]


def test_variants_repeat_with_their_seed(board):
    one, again, other = (ask(board, "variants", {"drawing": drawing(3), "seed": seed}).json() for seed in (5, 5, 6))
    assert len(one["pictures"]) == 4
    assert one == again != other


def test_ten_visitors_at_once_each_get_their_own_pictures(board):
    predictor = Pix2PixPredictor.from_checkpoint(CHECKPOINTS / "sketch2face.safetensors")
    expected = [np.asarray(predictor.predict(read_data_url(drawing(i))), np.int16) for i in range(10)]

    def visitor(number: int) -> list[str]:
        with httpx.Client() as client:
            return [
                ask(board, "redraw", {"drawing": drawing(number)}, client, f"visitor{number}").json()["picture"]
                for _ in range(5)
            ]

    with ThreadPoolExecutor(10) as pool:
        everyone = list(pool.map(visitor, range(10)))
    for number, answers in enumerate(everyone):
        assert len(answers) == 5
        for answer in answers:
            distances = [np.abs(np.asarray(read_data_url(answer), np.int16) - face).mean() for face in expected]
            assert int(np.argmin(distances)) == number


@pytest.mark.parametrize("task", ["sketch2face", "facades"])
def test_examples_are_drawings(boards, task):
    examples = ask(boards[task], "examples", None).json()
    assert len(examples) >= 6
    assert all(read_data_url(example["drawing"]).size == (256, 256) for example in examples)


@pytest.mark.parametrize("damage", ["missing", "truncated", "other task", "not a checkpoint"])
def test_without_a_usable_checkpoint_the_tab_says_how_to_train_one(tmp_path, damage):
    file = tmp_path / "sketch2face.safetensors"
    whole = (CHECKPOINTS / "sketch2face.safetensors").read_bytes()
    if damage == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    if damage == "other task":
        file.write_bytes(whole.replace(b'"task":"sketch2face"', b'"task":"sketch2fade"', 1))
    if damage == "not a checkpoint":
        file.write_text("hello")
    demo = app.create_demo(tmp_path)
    texts = [block.value for block in demo.blocks.values() if type(block).__name__ == "Markdown"]
    assert any("python -m train.pix2pix sketch2face" in text for text in texts)
    assert not any(isinstance(block, app.LiveBoard) for block in demo.blocks.values())
