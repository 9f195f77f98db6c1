"""Puts the app, or a model, on the Hugging Face Hub.

    python -m train.publish space USER/NAME [--model TASK=PLACE] [--hardware cpu-basic|zero-gpu] [--private]
    python -m train.publish model TASK CHECKPOINT USER/REPO [--notes FILE] [--private]

`--dry-run` uploads nothing and needs no account: it lists the files, and of a Space it installs what they ask for into
an environment of its own, starts the app there and asks each tab for an answer. `--out DIR` leaves the files in DIR.
"""

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from huggingface_hub import HfApi, ModelCardData, SpaceCard, get_token
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter, checkpoint, hub
from gan_core.checkpoint import Checkpoint, CheckpointError
from gan_core.tasks import TASKS
from train.rehearsal import RehearsalError, rehearse

ROOT = Path(__file__).parent.parent
MODELS = {"segmentation": Segmenter, "vaegan": FaceMixer}  # the other tasks: Pix2PixPredictor
PACKAGES = [
    "av",
    "gradio",
    "gradio_client",
    "huggingface_hub",
    "numpy",
    "opencv-python-headless",
    "openvino",
    "pillow",
    "pydantic",
    "safetensors",
    "starlette",
    "torch",
    "tqdm",
]
KEPT = {  # folder -> endings of the files in it that a Space needs
    "gan_core": {".py"},
    "assets/lessons": {".safetensors"},
    "assets": {".html", ".js", ".css", ".json", ".md", ".svg", ".png", ".jpg", ".webp", ".gif", ".mp4", ".woff2"},
}
BINARY = {".safetensors", ".png", ".jpg", ".webp", ".gif", ".mp4", ".woff2"}  # which the Hub keeps outside of git
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
# The newest PyTorch that ZeroGPU knew in November 2026. It must be built for CUDA: the platform patches it.
ZERO_GPU_TORCH = "2.11.0"
HARDWARE = {"cpu-basic": "cpu-basic", "zero-gpu": "zero-a10g"}  # here -> on the Hub
LARGEST = 10_000_000  # bytes of a file in plain git there
MOST = 1_000_000_000  # bytes of a Space
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SECRET = re.compile(
    rb"\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_\w{30,}|\bgithub_pat_\w{30,}|\bAKIA[0-9A-Z]{16}\b|\bsk-[\w-]{30,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY"
)

Files = dict[str, Path | str]  # name in the repository -> the file, or what is in it


class PublishError(RuntimeError):
    """It cannot be published; the message says why and what to do."""


# --- A Space -----------------------------------------------------------------------------------------


def gather_space(root: Path, models: list[tuple[str, str, Path]], hardware: str) -> Files:
    """The files of a Space. models: (task, place, file) of those that stand in for what is in assets/checkpoints."""
    own = {task: file for task, _, file in models}
    files: Files = {"app.py": root / "app.py", "LICENSE": root / "LICENSE"}
    for folder, endings in KEPT.items():
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root)
            if path.suffix in endings and not any(part.startswith((".", "__")) for part in name.parts[:-1]):
                files[name.as_posix()] = path
    cards = (root / "assets" / "checkpoints" / "README.md").read_text(encoding="utf-8")
    sections = ["# Model card"]
    for task in TASKS:
        name = f"assets/checkpoints/{task}.safetensors"
        files[name] = own.get(task, root / name)
        section = card_section(cards, task)
        if task in own:
            section = f"## {task}.safetensors\n\n{describe(checkpoint.load(own[task], task))}"
        sections.append(section)
    files["assets/checkpoints/README.md"] = "\n\n".join(sections) + "\n"
    files["requirements.txt"] = write_requirements(hardware)
    files[".gitattributes"] = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in sorted(BINARY))
    places = [place for _, place, file in models if file != Path(place)]  # those that were fetched from the Hub
    files["README.md"] = write_front_page((root / "README.md").read_text(encoding="utf-8"), places, hardware)
    return files


def write_front_page(readme: str, places: list[str], hardware: str) -> str:
    """README.md of a Space: the settings on top of ours, brought up to date, and its first words.

    places: models on the Hub that the Space shows.
    """
    card = SpaceCard(readme)
    card.data["sdk_version"] = metadata.version("gradio")
    card.data["suggested_hardware"] = HARDWARE[hardware]
    if places:
        card.data["models"] = places
    words = [line for line in card.text.split("\n## ")[0].splitlines() if not line.startswith(("!", "<", "["))]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(words)).strip()
    card.text = f"{text}\n\nThe models have a [card](assets/checkpoints/README.md).\n"
    return str(card).rstrip() + "\n"


def write_requirements(hardware: str) -> str:
    """What the app needs, as it is installed here; PyTorch for the processor alone, unless the hardware is ZeroGPU."""
    pins = pin(PACKAGES)
    lines = [f"# For {hardware}, by train.publish: what the app was last run with."]
    if hardware == "zero-gpu":
        pins["torch"] = ZERO_GPU_TORCH
        lines.append("spaces")  # the platform's own: as new as the platform
    else:
        lines.append(f"--extra-index-url {CPU_WHEELS}")
    return "\n".join([*lines, *(f"{name}=={version}" for name, version in sorted(pins.items()))]) + "\n"


def pin(names: Iterable[str]) -> dict[str, str]:
    """Packages, all that they need, and the versions that are installed here. Raises PublishError if one is missing.

    What PyTorch needs is left to PyTorch, which differs from build to build.
    """
    pins: dict[str, str] = {}
    todo, needed = list(names), {canonicalize_name(name) for name in names}
    while todo:
        name = canonicalize_name(todo.pop())
        if name in pins:
            continue
        try:
            pins[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError as error:
            if name in needed:
                raise PublishError(f"{name} is not installed here. Run pip install -r requirements.txt.") from error
            continue
        if name != "torch":
            wanted = map(Requirement, metadata.requires(name) or [])
            todo += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return pins


def check_space(folder: Path) -> None:
    """Raises PublishError, or CheckpointError, if the Hub would refuse these files, or the app fail with them."""
    check_settings(SpaceCard((folder / "README.md").read_text(encoding="utf-8")).data.to_dict(), folder)
    for task in TASKS:
        MODELS.get(task, Pix2PixPredictor).from_checkpoint(folder / "assets" / "checkpoints" / f"{task}.safetensors")
    check_files(folder)


def check_settings(settings: dict, folder: Path) -> None:
    """The front matter of a Space's README.md; see huggingface.co/docs/hub/spaces-config-reference."""
    requirements = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    python = re.match(r"3\.(\d+)", str(settings.get("python_version", "")))
    rules = {
        "sdk": settings.get("sdk") == "gradio",
        "sdk_version": f"gradio=={settings.get('sdk_version')}" in requirements,
        "python_version": bool(python) and 10 <= int(python[1]) <= 12,
        "app_file": (folder / str(settings.get("app_file"))).is_file(),
        "title": bool(settings.get("title")),
        "short_description": len(settings.get("short_description", "")) <= 60,
        "colorFrom": settings.get("colorFrom") in COLORS,
        "colorTo": settings.get("colorTo") in COLORS,
        "license": bool(settings.get("license")),
    }
    wrong = [f"{name} ({settings.get(name, 'missing')})" for name, right in rules.items() if not right]
    if wrong:
        raise PublishError(f"the settings on top of README.md are wrong: {', '.join(wrong)}. Mend them there.")


def check_files(folder: Path) -> None:
    """Neither too large nor secret. Raises PublishError."""
    sizes = list_sizes(folder)
    for name, size in sizes.items():
        if size > LARGEST and Path(name).suffix not in BINARY:
            raise PublishError(f"{name} has {size / 1e6:.0f} MB; the Hub takes text up to {LARGEST / 1e6:.0f} MB.")
        if Path(name).suffix not in BINARY and (found := SECRET.search((folder / name).read_bytes())):
            raise PublishError(f"{name} holds what looks like a secret, {found[0][:8].decode()}... Take it out.")
    if sum(sizes.values()) > MOST:
        raise PublishError(f"the files have {sum(sizes.values()) / 1e6:.0f} MB; a Space may have {MOST / 1e6:.0f} MB.")


# --- A model -----------------------------------------------------------------------------------------

# task -> what it does, and what the Hub calls that
KINDS = {
    "sketch2face": ("Line drawing of a face -> photo-like face, 256x256; pix2pix.", "image-to-image", "pix2pix"),
    "facades": ("Label map of a facade -> photo-like building, 256x256; pix2pix.", "image-to-image", "pix2pix"),
    "segmentation": ("Photo -> map of Pascal VOC's 21 classes; pix2pix.", "image-segmentation", "pix2pix"),
    "vaegan": ("Drawn face, 96x96 <-> latent; a VAE-GAN.", "unconditional-image-generation", "vae-gan"),
}


def gather_model(task: str, file: Path, repo: str, notes: str = "", root: Path = ROOT) -> Files:
    """The files of a model. notes: Markdown for its card, such as what it was trained on.

    Of the models that ship with this project, the card has what theirs says.
    """
    loaded = checkpoint.load(file, task)
    MODELS.get(task, Pix2PixPredictor).from_checkpoint(file)
    if is_shipped(task, file, root):
        section = card_section((root / "assets" / "checkpoints" / "README.md").read_text(encoding="utf-8"), task)
        notes = f"{notes}\n\n{section}".strip()
    config = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, "task": task, "networks": loaded.configs}
    return {
        "README.md": write_card(loaded, repo, notes),
        "config.json": json.dumps(config, indent=2) + "\n",
        hub.WEIGHTS: file,
    }


def is_shipped(task: str, file: Path, root: Path = ROOT) -> bool:
    shipped = root / "assets" / "checkpoints" / f"{task}.safetensors"
    return shipped.is_file() and shipped.read_bytes() == file.read_bytes()


def write_card(loaded: Checkpoint, repo: str, notes: str) -> str:
    """The model card: what the checkpoint says about itself, how to use it, and notes."""
    _, pipeline, system = KINDS[loaded.task]
    data = ModelCardData(library_name="pytorch", pipeline_tag=pipeline, tags=[system, loaded.task])
    model = MODELS.get(loaded.task, Pix2PixPredictor).__name__
    usage = {"vaegan": "vaegan --samples 3 -o out/"}.get(loaded.task, f"{loaded.task} picture.png -o out/")
    card = f"""---
{data.to_yaml()}
---

# {repo.partition("/")[2]}

{describe(loaded)}

## Use

With the project that made it, on screen, on the command line and in Python:

```bash
python app.py --model {loaded.task}={repo}
python -m gan_core {usage} --checkpoint {repo}
```

```python
from huggingface_hub import hf_hub_download
from gan_core import {model}

model = {model}.from_checkpoint(hf_hub_download("{repo}", "{hub.WEIGHTS}"))
```
"""
    return f"{card}\n{notes}\n" if notes else card


def describe(loaded: Checkpoint) -> str:
    """What a checkpoint says about itself, in Markdown."""
    lines = [KINDS[loaded.task][0], ""]
    for name, weights in loaded.weights.items():
        lines.append(f"- {name}: {sum(value.numel() for value in weights.values()) / 1e6:.1f} M parameters")
    facts = {key: value for key, value in loaded.facts.items() if key != "recipe" and value is not None}
    lines += [f"- {key.replace('_', ' ')}: {as_text(value)}" for key, value in facts.items()]
    if "recipe" in loaded.facts:
        lines += ["", "The recipe it was trained by:", "", "```json", json.dumps(loaded.facts["recipe"]), "```"]
    return "\n".join(lines)


def as_text(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def card_section(cards: str, task: str) -> str:
    """What the card of the shipped models says of one: all sections with its name in their titles."""
    parts = [part for part in re.split(r"(?m)^(?=## )", cards) if re.match(rf"## .*\b{task}\b", part)]
    return "\n".join(part.strip() + "\n" for part in parts).strip()


# --- What they share ---------------------------------------------------------------------------------


def write_files(files: Files, folder: Path) -> None:
    """Raises PublishError if the folder holds anything already."""
    if folder.exists() and any(folder.iterdir()):
        raise PublishError(f"{folder} is not empty. Choose another --out.")
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_text(content, encoding="utf-8")


def list_sizes(folder: Path) -> dict[str, int]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def list_files(folder: Path) -> None:
    sizes = list_sizes(folder)
    for name, size in sizes.items():
        print(f"{size:>12,}  {name}")
    print(f"{sum(sizes.values()):>12,}  in {len(sizes)} files")


def upload(folder: Path, repo: str, kind: str, private: bool, stale: list[str] | None = None, **space: str) -> str:
    """Makes the repository if need be, and puts the files into it as one commit. Returns its address.

    stale: patterns of files to delete there if they are not among these. space: options of `create_repo`.
    """
    api = HfApi()
    try:
        url = api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True, **space)
        api.upload_folder(
            repo_id=repo, repo_type=kind, folder_path=folder, delete_patterns=stale, commit_message="Publish"
        )
    except Exception as error:  # of the Hub or of the network; the library lets those of its HTTP client through
        raise PublishError(hub.explain(error, repo)) from error
    return str(url)


def repo_name(text: str) -> str:
    """An argparse type: USER/NAME."""
    if not hub.NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text} is not USER/NAME, your name on the Hub and one for this repository")
    return text


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.publish", description=__doc__.split("\n\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    space = commands.add_parser("space", help="the app, as a Space")
    space.add_argument("repo", type=repo_name, metavar="USER/NAME")
    place = "show another checkpoint for one task: FILE, or USER/REPO on the Hub; may be repeated"
    space.add_argument("--model", type=hub.read_model, action="append", default=[], metavar="TASK=PLACE", help=place)
    space.add_argument("--hardware", default="cpu-basic", choices=HARDWARE, help="default: cpu-basic")
    reuse = "with --dry-run: start the app in this environment instead of a new one, which fetches PyTorch"
    space.add_argument("--reuse-environment", action="store_true", help=reuse)
    model = commands.add_parser("model", help="a checkpoint, with a card")
    model.add_argument("task", choices=TASKS)
    model.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file")
    model.add_argument("repo", type=repo_name, metavar="USER/REPO")
    model.add_argument("--notes", type=Path, metavar="FILE", help="Markdown for the card: data, terms, limits")
    for command in (space, model):
        command.add_argument("--private", action="store_true", help="for you alone")
        command.add_argument("--dry-run", action="store_true", help="check all and upload nothing; needs no account")
        command.add_argument("--out", type=Path, metavar="DIR", help="leave the files there, to look at")
    return parser.parse_args(arguments)


def publish(options: argparse.Namespace, folder: Path) -> None:
    if options.command == "space":
        write_files(gather_space(ROOT, options.model, options.hardware), folder)
        check_space(folder)
    else:
        notes = options.notes.read_text(encoding="utf-8") if options.notes else ""
        file = hub.find(options.checkpoint)
        write_files(gather_model(options.task, file, options.repo, notes), folder)
        check_files(folder)
        if not notes and not is_shipped(options.task, file):
            print(
                "The card says nothing of the data yet, of their terms, and of what the model does badly: see --notes."
            )
    list_files(folder)
    if options.dry_run:
        if options.command == "space":
            print("Installing them and starting the app ...", flush=True)
            print(f"It started, and these tabs answered: {', '.join(rehearse(folder, options.reuse_environment))}.")
        print("Nothing was uploaded.")
    elif options.command == "space":
        hardware = HARDWARE[options.hardware]
        stale = [f"{name}/*" for name in KEPT]
        url = upload(folder, options.repo, "space", options.private, stale, space_sdk="gradio", space_hardware=hardware)
        print(f"It is being built; in some minutes it runs at {url}")
    else:
        print(f"It is at {upload(folder, options.repo, 'model', options.private)}")


def main(arguments: list[str] | None = None) -> None:
    options = read_arguments(arguments)
    try:
        if not options.dry_run and not get_token():
            raise PublishError(
                "nobody is logged in to the Hub. Run `hf auth login`, or set HF_TOKEN, with a token that may write; "
                "--dry-run needs neither."
            )
        with tempfile.TemporaryDirectory(prefix="publish-") as scratch:
            publish(options, options.out or Path(scratch) / "files")
    except (PublishError, RehearsalError, CheckpointError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
