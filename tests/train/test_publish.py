"""Spaces and models, put on a Hub on this computer."""

import ast
import json
import re
import sys
from importlib import metadata

import pytest
from huggingface_hub import ModelCard, SpaceCard
from packaging.requirements import Requirement

from gan_core import FaceMixer, Pix2PixPredictor, checkpoint, hub
from gan_core.tasks import TASKS
from tests.fake_hub import FakeHub
from train import publish
from train.publish import (
    ROOT,
    PublishError,
    card_section,
    check_files,
    check_settings,
    gather_space,
    main,
    pin,
    write_front_page,
    write_requirements,
)

CARDS = (ROOT / "assets" / "checkpoints" / "README.md").read_text()


@pytest.fixture
def own_models(small_models) -> list[str]:
    """Options that put a small checkpoint in the place of each that ships."""
    return [part for task in TASKS for part in ("--model", f"{task}={small_models / f'{task}.safetensors'}")]


@pytest.fixture
def logged_in(fake_hub, monkeypatch) -> FakeHub:
    monkeypatch.setenv("HF_TOKEN", FakeHub.TOKEN)
    return fake_hub


def failure(*arguments: str) -> str:
    with pytest.raises(SystemExit) as error:
        main(list(arguments))
    assert str(error.value.code).startswith("error: ")
    return error.value.code


# --- A Space -----------------------------------------------------------------------------------------


def test_a_space_has_just_the_files_it_needs(logged_in, own_models, small_models, capsys):
    main(["space", "someone/faces", *own_models])
    files = logged_in.repos["spaces/someone/faces"]
    assert {name.split("/")[0] for name in files} == {
        *("app.py", "gan_core", "assets", "LICENSE", "README.md", "requirements.txt", ".gitattributes")
    }
    assert {f"gan_core/{path.name}" for path in (ROOT / "gan_core").glob("*.py")} <= files.keys()
    used = {path for path in ROOT.joinpath("assets").rglob("*") if path.is_file() and path.suffix != ".safetensors"}
    assert {path.relative_to(ROOT).as_posix() for path in used} <= files.keys()
    weights = {name for name in files if name.endswith(".safetensors")}
    lessons = {f"assets/lessons/{file.name}" for file in ROOT.joinpath("assets/lessons").glob("*.safetensors")}
    assert lessons and weights == {f"assets/checkpoints/{task}.safetensors" for task in TASKS} | lessons
    for task in TASKS:
        assert files[f"assets/checkpoints/{task}.safetensors"] == (small_models / f"{task}.safetensors").read_bytes()
    (made,) = logged_in.made
    assert (made["type"], made["sdk"], made["hardware"]) == ("space", "gradio", "cpu-basic")
    assert f"it runs at {logged_in.url}/spaces/someone/faces" in capsys.readouterr().out


def test_a_space_that_is_there_is_brought_up_to_date(logged_in, own_models):
    logged_in.repos["spaces/someone/faces"] = {"gan_core/old.py": b"", "packages.txt": b"", "app.py": b"old"}
    main(["space", "someone/faces", "--private", *own_models])
    files = logged_in.repos["spaces/someone/faces"]
    assert "gan_core/old.py" not in files and "packages.txt" in files
    assert files["app.py"] == (ROOT / "app.py").read_bytes()
    assert logged_in.made[0]["visibility"] == "private"


def test_what_ships_makes_a_space_without_the_judge():
    files = gather_space(ROOT, [], "cpu-basic")
    assert "assets/checkpoints/judge.safetensors" not in files
    assert files["assets/checkpoints/facades.safetensors"] == ROOT / "assets" / "checkpoints" / "facades.safetensors"
    card = files["assets/checkpoints/README.md"]
    assert all(f"## {task}.safetensors" in card for task in TASKS)
    assert "## judge" not in card and "How sketch2face was made" in card


def test_the_card_of_a_space_says_whose_models_it_shows(fake_hub, small_models, monkeypatch):
    file = small_models / "sketch2face.safetensors"
    files = gather_space(ROOT, [("sketch2face", "someone/lines", file)], "cpu-basic")
    card = files["assets/checkpoints/README.md"]
    assert "2,324 portraits" not in card and "- steps: 7" in card  # what ours was trained on, and what this one says
    assert SpaceCard(files["README.md"]).data.to_dict()["models"] == ["someone/lines"]
    monkeypatch.chdir(small_models.parent)
    near = f"{small_models.name}/sketch2face.safetensors"  # which could be a name on the Hub
    of_a_file = gather_space(ROOT, [hub.read_model(f"sketch2face={near}")], "cpu-basic")
    assert "models" not in SpaceCard(of_a_file["README.md"]).data.to_dict()


def test_the_repository_is_a_space():
    """Its own README, as it is, with what it asks for."""
    settings = SpaceCard((ROOT / "README.md").read_text()).data.to_dict()
    (gradio,) = re.findall(r"(?m)^gradio.*", (ROOT / "requirements.txt").read_text())
    assert Requirement(gradio).specifier.contains(settings["sdk_version"])
    assert (settings["sdk"], settings["app_file"], settings["license"]) == ("gradio", "app.py", "mit")


@pytest.mark.parametrize("hardware", ["cpu-basic", "zero-gpu"])
def test_the_front_page_fits_the_hardware_and_leads_nowhere_else(tmp_path, hardware):
    files = gather_space(ROOT, [], hardware)
    (tmp_path / "requirements.txt").write_text(files["requirements.txt"])
    (tmp_path / "app.py").write_text("")
    card = SpaceCard(files["README.md"])
    check_settings(card.data.to_dict(), tmp_path)
    assert card.data.to_dict()["suggested_hardware"] == {"cpu-basic": "cpu-basic", "zero-gpu": "zero-a10g"}[hardware]
    assert card.text.strip().startswith("# Draw a line, see a face")
    assert set(re.findall(r"\]\(([^)]+)\)", card.text)) <= files.keys()


def test_the_front_page_brings_its_gradio_up_to_date():
    readme = "---\nsdk: gradio\nsdk_version: 6.0.0\n---\n\n# A\n\n![x](docs/x.png)\n\nb\n\n## C\n\nd\n"
    page = write_front_page(readme, [], "cpu-basic")
    assert SpaceCard(page).data["sdk_version"] == metadata.version("gradio")
    assert "# A\n\nb\n" in page and "docs" not in page and "## C" not in page


def test_every_version_is_pinned_to_what_is_installed_here():
    lines = write_requirements("cpu-basic").splitlines()
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in lines
    pins = dict(line.split("==") for line in lines if not line.startswith(("#", "--")))
    assert pins == {name: metadata.version(name).partition("+")[0] for name in pins}
    assert {"fastapi", "starlette", "pydantic", "numpy", "av"} <= pins.keys()  # what Gradio needs too
    assert not {"datasets", "matplotlib", "triton", "pytest"} & pins.keys()


def test_zero_gpu_gets_a_pytorch_that_it_knows():
    lines = write_requirements("zero-gpu").splitlines()
    assert "torch==2.11.0" in lines and "spaces" in lines
    assert not any(line.startswith("--") for line in lines)


def test_a_package_that_is_missing_is_named():
    with pytest.raises(PublishError, match=r"nothing-like-this is not installed here\. Run pip install"):
        pin(["nothing-like-this"])


def test_what_the_app_imports_is_asked_for():
    names = {"PIL": "pillow", "cv2": "opencv-python-headless"}
    for path in [ROOT / "app.py", *(ROOT / "gan_core").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            for module in {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names):
                name = names.get(module, module)
                assert name in {*publish.PACKAGES, "spaces", "gan_core"}, f"{path.name} imports {module}"


SETTINGS = {
    "title": "A",
    "sdk": "gradio",
    "sdk_version": "6.31.0",
    "python_version": "3.12.12",
    "app_file": "app.py",
    "short_description": "b",
    "colorFrom": "red",
    "colorTo": "pink",
    "license": "mit",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sdk", "docker"),
        ("sdk_version", "6.30.0"),
        ("python_version", "3.8"),
        ("app_file", "main.py"),
        ("short_description", "x" * 61),
        ("colorTo", "mauve"),
        ("license", None),
    ],
)
def test_settings_that_the_hub_would_refuse_are_named(tmp_path, name, value):
    (tmp_path / "requirements.txt").write_text("gradio==6.31.0\n")
    (tmp_path / "app.py").write_text("")
    check_settings(SETTINGS, tmp_path)
    with pytest.raises(PublishError, match=rf"README.md are wrong: {name} \({value}\)"):
        check_settings(SETTINGS | {name: value}, tmp_path)


@pytest.mark.parametrize(
    "secret", ["hf_" + "aB3" * 11, "ghp_" + "a1" * 18, "AKIA" + "A1" * 8, "-----BEGIN RSA PRIVATE KEY-----"]
)
def test_secrets_stay_at_home(tmp_path, secret):
    (tmp_path / "app.py").write_text("print()")
    check_files(tmp_path)
    (tmp_path / "app.py").write_text(f"key = '{secret}'")
    with pytest.raises(PublishError, match=r"app\.py holds what looks like a secret") as error:
        check_files(tmp_path)
    assert secret not in str(error.value)


def test_files_that_are_too_large_are_named(tmp_path, monkeypatch):
    (tmp_path / "a.js").write_bytes(b" " * 2000)
    (tmp_path / "a.safetensors").write_bytes(b" " * 2000)
    monkeypatch.setattr(publish, "LARGEST", 1000)
    with pytest.raises(PublishError, match=r"a\.js has"):
        check_files(tmp_path)
    (tmp_path / "a.js").unlink()
    check_files(tmp_path)
    monkeypatch.setattr(publish, "MOST", 1000)
    with pytest.raises(PublishError, match="the files have"):
        check_files(tmp_path)


def test_a_dry_run_starts_the_app_and_asks_each_tab(fake_hub, own_models, tmp_path, capsys):
    out = tmp_path / "space"
    main(["space", "someone/faces", "--dry-run", "--reuse-environment", "--out", str(out), *own_models])
    said = capsys.readouterr().out
    assert "these tabs answered: sketch2face, facades, segmentation, vaegan." in said
    assert re.search(r"\d+  assets/checkpoints/vaegan\.safetensors\n", said) and "Nothing was uploaded." in said
    assert (out / "requirements.txt").is_file() and not list(out.rglob("__pycache__"))
    assert not fake_hub.repos and not fake_hub.made


def test_a_damaged_model_makes_no_space(fake_hub, small_models, own_models, tmp_path, capsys):
    (tmp_path / "facades.safetensors").write_text("hello")
    with pytest.raises(SystemExit) as error:
        main(["space", "someone/faces", "--dry-run", "--model", f"facades={tmp_path / 'facades.safetensors'}"])
    assert error.value.code == 2
    assert "is damaged or is no safetensors file" in capsys.readouterr().err


# --- A model -----------------------------------------------------------------------------------------


def test_a_model_comes_back_as_it_was_put_there(logged_in, small_models, doodle, capsys):
    file = small_models / "sketch2face.safetensors"
    main(["model", "sketch2face", str(file), "someone/lines"])
    files = logged_in.repos["models/someone/lines"]
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}
    assert files["model.safetensors"] == file.read_bytes()
    config = json.loads(files["config.json"])
    assert config["task"] == "sketch2face" and config["networks"] == checkpoint.load(file).configs
    again = Pix2PixPredictor.from_checkpoint(hub.find("someone/lines"))
    assert again.predict(doodle).tobytes() == Pix2PixPredictor.from_checkpoint(file).predict(doodle).tobytes()
    said = capsys.readouterr().out
    assert f"It is at {logged_in.url}/someone/lines" in said and "The card says nothing of the data yet" in said


def test_the_card_of_a_model_says_what_it_is_and_how_to_use_it(fake_hub, small_models, tmp_path):
    (tmp_path / "notes.md").write_text("## Data\n\nMy own drawings.")
    arguments = ["model", "vaegan", str(small_models / "vaegan.safetensors"), "someone/mix", "--dry-run"]
    main([*arguments, "--notes", str(tmp_path / "notes.md"), "--out", str(tmp_path / "out")])
    card = ModelCard((tmp_path / "out" / "README.md").read_text())
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "unconditional-image-generation" and "vae-gan" in data["tags"]
    assert "- direction names: Hair dark or light" in card.text and "M parameters" in card.text
    assert "python app.py --model vaegan=someone/mix" in card.text and "My own drawings." in card.text
    assert 'FaceMixer.from_checkpoint(hf_hub_download("someone/mix", "model.safetensors"))' in card.text
    assert FaceMixer.from_checkpoint(tmp_path / "out" / "model.safetensors").latent == 16
    assert not fake_hub.made


def test_a_model_that_ships_takes_its_card_along(tmp_path):
    file = ROOT / "assets" / "checkpoints" / "facades.safetensors"
    card = publish.gather_model("facades", file, "someone/houses")["README.md"]
    assert "The CMP facade base, 400 pairs" in card and "2,324 portraits" not in card


def test_sections_of_the_card_belong_to_their_models():
    assert card_section(CARDS, "sketch2face").startswith("## sketch2face.safetensors")
    assert "## How sketch2face was made" in card_section(CARDS, "sketch2face")
    assert "vaegan" not in card_section(CARDS, "segmentation")


def test_a_checkpoint_of_another_task_is_refused(fake_hub, small_models):
    said = failure("model", "facades", str(small_models / "vaegan.safetensors"), "someone/houses", "--dry-run")
    assert "is a checkpoint for vaegan, not for facades" in said
    said = failure("model", "facades", "gone.safetensors", "someone/houses", "--dry-run")
    assert "there is no checkpoint at gone.safetensors" in said


# --- What they share ---------------------------------------------------------------------------------


@pytest.fixture
def model(small_models) -> list[str]:
    return ["model", "vaegan", str(small_models / "vaegan.safetensors"), "someone/mix"]


def test_uploads_take_a_login(fake_hub, model):
    assert "nobody is logged in to the Hub. Run `hf auth login`, or set HF_TOKEN" in failure(*model)
    assert not fake_hub.asked


def test_a_token_that_does_not_work_is_an_error(fake_hub, model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "y" * 34)
    assert "the Hub does not let you do this with someone/mix" in failure(*model)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((402, "CPU Basic takes a subscription"), r"wants a subscription for someone/mix \(.*huggingface\.co/pricing"),
        ((403, "not your name"), "does not let you do this with someone/mix. .*a token that may .*write"),
        ((418, "I am a teapot"), r"the Hub answered 418 for someone/mix \(.*Try again later"),
    ],
)
def test_what_the_hub_refuses_is_explained(logged_in, model, refusal, said):
    logged_in.refusal = refusal
    logged_in.repos = {}
    assert re.search(said, failure(*model))


def test_without_a_network_it_says_so(logged_in, model):
    logged_in.close()
    assert "the Hub cannot be reached" in failure(*model)


@pytest.mark.parametrize("repo", ["faces", "https://huggingface.co/a/b", "a/b/c", ".a/b"])
def test_a_repository_is_called_user_and_name(repo, model, capsys):
    with pytest.raises(SystemExit) as error:
        main([*model[:3], repo])
    assert error.value.code == 2
    assert "is not USER/NAME" in capsys.readouterr().err


def test_files_of_somebody_are_not_overwritten(model, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert "is not empty. Choose another --out." in failure(*model, "--dry-run", "--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
