"""Who may import whom, and that importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {package: sorted((ROOT / package).rglob("*.py")) for package in ("gan_core", "train")}
MODULES = [path for paths in SOURCES.values() for path in paths]

# Run in a fresh interpreter: third parties may do what they like on import, our modules may not.
WATCH = """
import importlib, os, sys
import av, cv2, numpy, PIL.Image, safetensors.torch, torch, torch.nn.utils.fusion, torch.nn.utils.parametrizations
import torch.utils.data, torchmetrics.functional.image, tqdm
PIL.Image.init()
deeds = []

def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        deeds.append((event, arguments[0]))
    if event.split(".")[0] in ("socket", "subprocess", "shutil") or event in ("os.mkdir", "os.rename", "os.system"):
        deeds.append((event, *map(str, arguments)))

sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not deeds, f"importing {name} did {deeds}"
assert not {"gradio", "app"} & set(sys.modules), "the library pulled in the app"
"""


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(path.parent.name if node.level else node.module.split(".")[0])
    return names


def test_the_sources_are_found():
    assert {path.name for path in SOURCES["gan_core"]} >= {"image.py", "unet.py", "predictor.py"}
    assert {path.name for path in SOURCES["train"]} >= {"data.py", "pix2pix.py"}


@pytest.mark.parametrize("path", SOURCES["gan_core"], ids=lambda path: path.stem)
def test_the_library_imports_only_what_it_promises(path):
    allowed = {"torch", "numpy", "PIL", "cv2", "av", "safetensors", "gan_core"} | set(sys.stdlib_module_names)
    of_its_own = {"__main__.py": {"tqdm"}, "hub.py": {"huggingface_hub"}}
    of_its_own |= {name: {"openvino"} for name in ("runtime.py", "quantization.py")}
    assert imported(path) <= allowed | of_its_own.get(path.name, set())


@pytest.mark.parametrize("path", SOURCES["train"], ids=lambda path: path.stem)
def test_training_does_not_know_the_app(path):
    assert not imported(path) & {"gradio", "app"}


def test_no_file_is_called_utils():
    tracked = [path for folder in ("gan_core", "train", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in [*tracked, *ROOT.glob("*.py")] if path.stem in ("utils", "util", "helpers", "misc")]


UNSAFE_MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "__import__", "os.system", "os.popen", "torch.hub.load", "torch.jit.load"}
UNSAFE_OPTIONS = {"allow_pickle", "shell", "trust_remote_code"}


@pytest.mark.parametrize("path", [*MODULES, ROOT / "app.py"], ids=lambda path: path.stem)
def test_nothing_that_executes_what_it_reads(path):
    """Weights are safetensors. The one torch.load is for the state of one's own run, and reads nothing but weights."""
    assert not imported(path) & UNSAFE_MODULES
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert name not in UNSAFE_CALLS
            assert {given.get(option, "False") for option in UNSAFE_OPTIONS} == {"False"}
            if name == "torch.load":
                assert (path.parent.name, path.name, given.get("weights_only")) == ("train", "run.py", "True")


def test_importing_a_module_does_no_work(tmp_path):
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    command = [sys.executable, "-B", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WATCH}", *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
