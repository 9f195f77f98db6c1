"""Each shipped model as an ONNX file against the predictor that the app uses; and every command of docs/export.md."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter, checkpoint
from gan_core.__main__ import main
from gan_core.export import graphs
from gan_core.image import open_picture
from tests.browser.chromium import open_browser, oval

ROOT = Path(__file__).parent.parent
CHECKPOINTS, EXAMPLES = ROOT / "assets" / "checkpoints", ROOT / "assets" / "examples"
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("  #")[0]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.strip().splitlines()
]
FILES = ("sketch2face", "facades", "segmentation", "vaegan-encoder", "vaegan-decoder")
STEP = 1  # of 255
CLOSE = 1e-3


def commands(start: str) -> list[str]:
    found = [command for command in COMMANDS if command.startswith(start)]
    assert found, f"docs/export.md has no command that starts with {start}"
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder like that of the project, in which the page's commands have exported all models."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "assets").symlink_to(ROOT / "assets")
    shutil.copytree(ROOT / "docs" / "export", folder / "docs" / "export", ignore=shutil.ignore_patterns("node_modules"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands("python -m gan_core export"):
            assert main(shlex.split(command)[3:]) == 0
    return folder


@pytest.fixture
def model(place):
    """`model(name)`, a session of ONNX Runtime."""

    def open_model(name: str) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(place / "out" / f"{name}.onnx")

    return open_model


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """In bfloat16 the predictors themselves would be further from the truth than any export."""
    for name in ("predictor", "segmenter", "mixer"):
        monkeypatch.setattr(f"gan_core.{name}.has_bfloat16", lambda device: False)


def apart(a, b) -> float:
    assert np.shape(a) == np.shape(b)
    return np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).max()


# --- The files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("task", ["sketch2face", "facades"])
def test_a_source_becomes_what_the_predictor_makes_of_it(model, task, count):
    predictor = Pix2PixPredictor.from_checkpoint(CHECKPOINTS / f"{task}.safetensors")
    pictures = [open_picture(file) for file in sorted((EXAMPLES / task).glob("*.png"))[:count]]
    read = [
        predictor.task.read_source(picture).convert("L" if task == "sketch2face" else "RGB") for picture in pictures
    ]
    source = np.stack(read).reshape(count, 256, 256, -1)
    (targets,) = model(task).run(["target"], {"source": source})
    expected = np.stack(predictor.predict_batch(pictures))
    assert targets.dtype == np.uint8
    assert apart(targets, expected) <= STEP
    assert (targets != expected).mean() < 0.01
    assert len({target.tobytes() for target in targets}) == count


@pytest.mark.parametrize("size", [(300, 224), (224, 340)])
def test_a_photo_becomes_the_shares_that_the_segmenter_finds(model, size):
    segmenter = Segmenter.from_checkpoint(CHECKPOINTS / "segmentation.safetensors")
    photos = [open_picture(file).resize(size) for file in sorted((EXAMPLES / "segmentation").glob("*.jpg"))]
    expected = np.stack([segmenter.shares(photo) for photo in photos])
    for count in (1, 3):
        labels, shares = model("segmentation").run(["labels", "shares"], {"source": np.stack(photos[:count])})
        assert apart(shares, expected[:count]) < CLOSE
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, shares.argmax(axis=-1))
        assert (labels != expected[:count].argmax(axis=-1)).mean() < CLOSE
    assert len(np.unique(labels)) > 2


@pytest.mark.parametrize("size", [(231, 97), (20, 9)])
def test_a_photo_of_any_size_keeps_it(model, size):
    photo = np.array(open_picture(EXAMPLES / "segmentation" / "1_cat.jpg").resize(size))[None]
    labels, shares = model("segmentation").run(["labels", "shares"], {"source": photo})
    assert labels.shape == (1, size[1], size[0])
    (graph,) = graphs(checkpoint.load(CHECKPOINTS / "segmentation.safetensors"))
    with torch.inference_mode():
        assert apart(shares, graph.network(torch.from_numpy(photo))[1]) < CLOSE


@pytest.mark.parametrize("count", [1, 3])
def test_faces_become_latents_and_latents_faces(model, count):
    mixer = FaceMixer.from_checkpoint(CHECKPOINTS / "vaegan.safetensors")
    latents = mixer.sample(count, seed=7)
    (faces,) = model("vaegan-decoder").run(["target"], {"latent": latents})
    expected = mixer.decode(latents)
    assert apart(faces, expected) <= STEP
    assert (faces != np.stack(expected)).mean() < 0.01
    (back,) = model("vaegan-encoder").run(["latent"], {"source": faces})
    assert apart(back, [mixer.encode(Image.fromarray(face)) for face in faces]) < CLOSE


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_sound_small_and_says_what_it_is(place, name):
    path = place / "out" / f"{name}.onnx"
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert [(opset.domain, opset.version) for opset in file.opset_import] == [("", 18)]
    for value in [*file.graph.input, *file.graph.output]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"
        assert f"`{value.name}`" in PAGE
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}.onnx`"))
    assert path.stat().st_size / 1e6 == pytest.approx(float(row.split("|")[-2]), abs=0.1)
    assert path.stat().st_size < (CHECKPOINTS / f"{name.split('-')[0]}.safetensors").stat().st_size * 1.05
    facts = {fact.key: fact.value for fact in file.metadata_props}
    assert facts["task"] == name.split("-")[0]
    assert facts["checkpoint"].startswith(f"{facts['task']}.safetensors, sha256 ")
    assert "model card" in facts["licence"]
    assert ("classes" in facts) == (name in ("facades", "segmentation"))
    assert b".py" not in path.read_bytes()  # no places of this machine's code


# --- The page -------------------------------------------------------------------------------------------


def run(command: str, place: Path) -> None:
    program, *arguments = shlex.split(command)
    program = sys.executable if program == "python" else program
    done = subprocess.run([program, *arguments], cwd=place, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def test_no_command_of_the_page_is_left_out():
    tested = ("python -m gan_core export", "pip install", "npm install", "node ", "cp ", "python -m http.server")
    assert [command for command in COMMANDS if not command.startswith(tested)] == []


def test_what_is_to_be_installed_is_what_is_tested():
    wanted = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    (command,) = commands("pip install")
    assert set(command.split()[2:]) <= set(re.findall(r"^[\w-]+", wanted, re.MULTILINE))
    assert commands("npm install") == ["npm install --prefix docs/export"]
    assert (ROOT / "docs" / "export" / "package.json").exists()


def test_the_python_of_the_page_runs(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (before,) = re.findall(r"`python (-m gan_core vaegan .*?)`", PAGE)
    assert main(shlex.split(before)[2:]) == 0
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "docs/export.md", "exec"), {})
    assert "'cat'" in capsys.readouterr().out
    assert Image.open("out/face.png").size == (256, 256)
    assert Image.open("out/between.png").size == (96, 96)


@pytest.fixture
def node(place) -> Path:
    """`place` with ONNX Runtime for JavaScript; it is no part of what `make test` installs."""
    modules = ROOT / "docs" / "export" / "node_modules"
    if not shutil.which("node") or not modules.exists():
        pytest.skip("needs Node 18 (Debian: apt-get install nodejs npm), then: npm install --prefix docs/export")
    link = place / "docs" / "export" / "node_modules"
    if not link.exists():
        link.symlink_to(modules)
    return place


def test_node_gives_the_pictures_that_python_gives(node, model):
    for command in commands("node "):
        run(command, node)
        name, source, target = (node / word for word in shlex.split(command)[2:])
        with Image.open(source) as picture:
            picture = np.asarray(picture.convert("L" if "sketch2face" in name.stem else "RGB"))
        (expected,) = model(name.stem).run(["target"], {"source": picture.reshape(1, 256, 256, -1)})
        assert apart(Image.open(target), expected[0]) <= STEP


def test_in_the_browser_a_drawing_becomes_a_face(node):
    for command in commands("cp "):
        run(command, node)
    (command,) = commands("python -m http.server 8000 ")
    command = [sys.executable, *shlex.split(command.replace(" 8000 ", " 0 "))[1:]]
    server = subprocess.Popen(command, cwd=node, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        port = re.search(rb"port (\d+)", server.stdout.readline())[1].decode()
        with open_browser() as browser:
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}")
            paper = page.locator("#paper").bounding_box()
            for line in (
                [(0.25, 0.4), (0.5, 0.1), (0.75, 0.4)],
                oval(0.5, 0.5, 0.25, 0.35),
                oval(0.4, 0.45, 0.05, 0.03),
            ):
                places = [(paper["x"] + x * paper["width"], paper["y"] + y * paper["height"]) for x, y in line]
                page.mouse.move(*places[0])
                page.mouse.down()
                for at in places[1:]:
                    page.mouse.move(*at)
                page.mouse.up()
            page.wait_for_function(
                "() => document.querySelector('output').value.startsWith('A face in')", timeout=60_000
            )
            page.locator("#face[aria-busy=false]").wait_for()
            seen, drawn = (
                np.array(
                    page.evaluate(
                        "(id) => [...document.getElementById(id).getContext('2d').getImageData(0, 0, 256, 256).data]",
                        id,
                    )
                ).reshape(256, 256, 4)
                for id in ("face", "paper")
            )
    finally:
        server.terminate()
        server.wait()
    source = np.ascontiguousarray(drawn[None, :, :, :1], dtype=np.uint8)
    assert (source < 128).sum() > 500
    session = onnxruntime.InferenceSession(node / "out" / "sketch2face.onnx")
    (expected,) = session.run(["target"], {"source": source})
    assert (seen[..., 3] == 255).all()
    assert apart(seen[..., :3], expected[0]) <= STEP
