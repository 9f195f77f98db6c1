"""The app over HTTP, without a browser."""

import base64
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import app
from gan_core import FaceMixer, Pix2PixPredictor
from gan_core.facades import random_facade
from gan_core.image import read_data_url, to_data_url
from tests.waiting import LONGEST, get, post, until

CHECKPOINTS = Path("assets/checkpoints")
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def boards():
    """Task -> (URL, id of the board's component)."""
    demo = app.create_demo(CHECKPOINTS)
    _, url, _ = app.launch(demo, rate=1e6, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    found = {block.predictor.task.name: id for id, block in demo.blocks.items() if isinstance(block, app.LiveBoard)}
    yield {task: (url, id) for task, id in found.items()}
    demo.close()


@pytest.fixture
def board(boards):
    return boards["sketch2face"]


def ask(board, function, data, client=httpx, session="tester"):
    url, component = board
    body = {"session_hash": session, "component_id": component, "fn_name": function, "data": data}
    return client.post(f"{url}gradio_api/component_server", json=body, timeout=LONGEST)


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
        with httpx.Client(timeout=LONGEST) as client:
            return [
                ask(board, "redraw", {"drawing": drawing(number)}, client, f"visitor{number}").json()["picture"]
                for _ in range(3)
            ]

    with ThreadPoolExecutor(10) as pool:
        everyone = list(pool.map(visitor, range(10)))
    for number, answers in enumerate(everyone):
        assert len(answers) == 3
        for answer in answers:
            distances = [np.abs(np.asarray(read_data_url(answer), np.int16) - face).mean() for face in expected]
            assert int(np.argmin(distances)) == number


@pytest.mark.parametrize("task", ["sketch2face", "facades"])
def test_examples_are_drawings(boards, task):
    examples = ask(boards[task], "examples", None).json()
    assert len(examples) >= 6
    assert all(read_data_url(example["drawing"]).size == (256, 256) for example in examples)


def test_what_a_visitor_uploads_is_deleted_and_the_examples_stay(monkeypatch):
    deleted, remove = [], os.remove  # which fails for what is not there
    monkeypatch.setattr(os, "remove", lambda path, **options: remove(path, **options) or deleted.append(str(path)))
    monkeypatch.setattr(app, "UPLOADS_LIVE", (1, 1))
    demo = app.create_demo(CHECKPOINTS)
    _, url, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        example = next(block.value["path"] for block in demo.blocks.values() if isinstance(block, app.PhotoFile))
        (upload,) = post(f"{url}gradio_api/upload", files={"files": ("a.jpg", b"a photo")}).json()
        until(lambda: upload in deleted)
        assert Path(example).exists()
    finally:
        demo.close()


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


# --- Mix


@pytest.fixture(scope="module")
def mix_board(mixer_folder):
    demo = app.create_demo(mixer_folder)
    _, url, _ = app.launch(demo, rate=1e6, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield url, next(id for id, block in demo.blocks.items() if isinstance(block, app.MixBoard))
    demo.close()


def recipe(*seeds: int, **changes) -> dict:
    faces = [{"seed": seed} for seed in seeds]
    return {"faces": faces, "weights": [1.0] * len(seeds), "shifts": [0] * 8, "truncation": 1, **changes}


def test_a_recipe_becomes_a_face(mix_board, mixer_folder):
    mixer = FaceMixer.from_checkpoint(mixer_folder / "vaegan.safetensors")
    answer = ask(mix_board, "blend", recipe(1, 2, weights=[1, 0])).json()
    face = mixer.decode(mixer.sample(1, seed=1)[0])
    assert np.abs(np.asarray(read_data_url(answer["picture"]), np.int16) - np.asarray(face, np.int16)).max() <= 4


def test_thumbnails_come_in_the_order_of_the_faces(mix_board):
    pictures = ask(mix_board, "faces", {"faces": recipe(5, 6, 5)["faces"]}).json()["pictures"]
    assert pictures[0] == pictures[2] != pictures[1]


def test_an_own_picture_becomes_a_latent_that_can_be_mixed(mix_board, portrait):
    answer = ask(mix_board, "encode", {"picture": to_data_url(portrait(0), "PNG")}).json()
    faces = [{"latent": answer["latent"]}, {"seed": 1}]
    blend = ask(mix_board, "blend", recipe(1, 2, faces=faces, weights=[1, 0])).json()
    as_sent = read_data_url(to_data_url(read_data_url(blend["picture"]), "JPEG", quality=90))
    difference = np.asarray(as_sent, np.int16) - np.asarray(read_data_url(answer["picture"]), np.int16)
    assert np.abs(difference).mean() < 2


def test_a_sheet_repeats_with_its_seed(mix_board):
    one, again, other = (ask(mix_board, "sheet", recipe(1, 2, 3, seed=seed)).json() for seed in (5, 5, 6))
    assert read_data_url(one["picture"]).size == (960, 960)
    assert np.shape(one["weights"]) == (100, 3)
    assert one == again != other


BAD_MIX = {
    "nothing": None,
    "a text": "hello",
    "a list": [1],
    "empty": {},
    "no seed": recipe(1, 2, faces=[{}, {}]),
    "a damaged latent": recipe(1, 2, faces=[{"latent": "AAAA"}, {"seed": 1}]),
    "too many faces": recipe(*range(500)),
    "endless seed": recipe(1, 2, faces=[{"seed": 1e400}, {"seed": 1}]),
    "a broken picture": {"picture": "data:image/png;base64,@@@"},
    "sixty megapixels": {"picture": too_wide()},
}


@pytest.mark.parametrize("data", BAD_MIX.values(), ids=BAD_MIX.keys())
@pytest.mark.parametrize("function", ["blend", "faces", "encode", "sheet", "film"])
def test_bad_recipes_get_a_sentence_and_the_app_goes_on(mix_board, function, data):
    url, component = mix_board
    body = {"session_hash": "tester", "component_id": component, "fn_name": function, "data": data}
    text = json.dumps(body)  # which writes what is endless as Infinity; httpx refuses to
    response = post(f"{url}gradio_api/component_server", content=text, headers=JSON)
    assert response.status_code == 200
    message = response.json()["error"]
    assert message.endswith(".") and len(message) > 20 and "Something went wrong" not in message
    assert "picture" in ask(mix_board, "blend", recipe(1, 2)).json()


def test_ten_visitors_at_once_each_get_their_own_blend(mix_board):
    alone = [ask(mix_board, "blend", recipe(i, i + 1)).json()["picture"] for i in range(10)]
    expected = [np.asarray(read_data_url(picture), np.int16) for picture in alone]
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda i: ask(mix_board, "blend", recipe(i, i + 1)).json()["picture"], range(10)))
    for i, picture in enumerate(together):
        distances = [np.abs(np.asarray(read_data_url(picture), np.int16) - face).mean() for face in expected]
        assert int(np.argmin(distances)) == i


def test_without_a_checkpoint_the_mix_tab_says_how_to_train_one(tmp_path):
    demo = app.create_demo(tmp_path)
    texts = [block.value for block in demo.blocks.values() if type(block).__name__ == "Markdown"]
    assert any("python -m train.vae_gan --data" in text for text in texts)


# --- Learn


def listeners(demo) -> list:
    return [function for function in demo.fns.values() if function.name in ("look", "list_levels", "draw")]


def test_lessons_load_nothing_before_they_are_opened(monkeypatch):
    monkeypatch.setattr(app, "load_twin", lambda path: pytest.fail(f"{path} was loaded"))
    assert listeners(app.create_demo(CHECKPOINTS))


def test_lessons_have_no_public_endpoints(tmp_path):
    assert {function.api_visibility for function in listeners(app.create_demo(tmp_path))} == {"private"}


def test_without_checkpoints_the_lessons_of_the_shipped_models_say_so(tmp_path):
    demo = app.create_demo(tmp_path)
    texts = [block.value for block in demo.blocks.values() if type(block).__name__ == "Markdown"]
    assert sum("The model of this lesson is not here yet" in text for text in texts) == 3


def test_a_lesson_whose_net_is_missing_says_so(monkeypatch, tmp_path):
    warnings = []
    monkeypatch.setattr(app.gr, "Warning", lambda text, **_: warnings.append(text))
    with app.gr.Blocks():
        ((look, _, _),) = app.loss_lesson(lambda name: app.load_twin(tmp_path / f"{name}.safetensors"))
    look("facades/4_balconies.png")
    assert "there is no checkpoint" in warnings[0]


def test_a_blurred_picture_scores_lower_than_the_painted_one():
    """The discriminator of the shipped model teaches what the lesson says of it."""
    models = {"facades": Pix2PixPredictor.from_checkpoint(CHECKPOINTS / "facades.safetensors")}
    with app.gr.Blocks():
        ((look, _, _),) = app.patch_lesson(models)
    means = [
        float(look("facades/4_balconies.png", shown)["notes"][0][0].rpartition(": ")[2].rstrip("."))
        for shown in ("painted", "blurred")
    ]
    assert means[0] > means[1]


def test_a_page_is_made_without_copying_a_network(boards, monkeypatch):
    """Gradio copies the page's config for each visitor; a network in it took ten times as long as all the rest."""
    copied = []
    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", lambda self, memo: copied.append(self) or self)
    url, _ = boards["sketch2face"]
    assert "sketch-board" in get(url).text
    assert not copied
