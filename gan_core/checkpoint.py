"""One .safetensors file a model: weights in float16 where they fit, and in its metadata what it takes to rebuild it.

Metadata of the file, all texts:

    format    "gan_core"
    version   of this layout; a reader refuses what is newer than itself
    task      "sketch2face", ...
    configs   JSON: name of each network in the file -> its config
    facts     JSON: what is worth knowing about the training (steps, data, recipe ...)

The names of the weights start with the name of their network: "generator.downs.0.0.weight".
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gan_core.files import whole

FORMAT, VERSION = "gan_core", 1


class CheckpointError(RuntimeError):
    """The checkpoint cannot be used; the message says why and what to do."""


class Unfilled(TorchFunctionMode):
    """Weights stay as they are allocated: on "meta" there is nothing to fill, and torch would load sympy to do so."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function.__name__.endswith("_") and not function.__name__.endswith("__"):  # changes its first argument
            return arguments[0] if arguments else next(iter(options.values()))
        return function(*arguments, **(options or {}))


@dataclass(frozen=True)
class Checkpoint:
    """What `load` finds in a file. weights: network -> its state dict, float32."""

    task: str
    configs: dict[str, dict]
    weights: dict[str, dict[str, Tensor]]
    facts: dict = field(default_factory=dict)

    def build(self, name: str, network: type[nn.Module], config: type) -> nn.Module:
        """Rebuilds one network around its weights, in eval mode. Strict: every weight must be there and fit."""
        if name not in self.weights:
            there = ", ".join(self.weights) or "no weights"
            raise CheckpointError(f"the checkpoint holds no {name}; it has {there}. Use another one.")
        try:
            with torch.device("meta"), Unfilled():  # no time and no memory, whatever a damaged config asks for
                module = network(config(**self.configs[name]))
            module.load_state_dict(self.weights[name], assign=True)
        except Exception as error:  # a stranger's config can bring a constructor to raise anything
            raise CheckpointError(
                f"the {name} of this checkpoint does not fit {network.__name__}: {error}. "
                "It was made by another version of the code; train it again or use the version that made it."
            ) from error
        return module.eval()


def save(path: str | Path, task: str, networks: dict[str, nn.Module], facts: dict | None = None) -> None:
    """Writes networks (each with a `config`) to one file; the file appears whole or not at all.

    Raises CheckpointError if a weight is not finite, OSError if the file cannot be written; an earlier one stays then.
    """
    path = Path(path)
    weights = {
        f"{name}.{key}": compact(value.detach().cpu()).contiguous()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    if broken := find_broken(weights):
        raise CheckpointError(
            f"the weights in {broken} are not finite, so {path} was not written. "
            "Train with lower --learning-rate and --learning-rate-d, or with --precision float32."
        )
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "task": task,
        "configs": json.dumps({name: asdict(network.config) for name, network in networks.items()}),
        "facts": json.dumps(facts or {}),
    }
    write(path, weights, metadata)


def compact(value: Tensor) -> Tensor:
    """In float16, unless something in it is too large for that, as variances can be."""
    if not value.is_floating_point():
        return value
    half = value.half()
    return half if half.isfinite().all() else value.float()


def find_broken(weights: dict[str, Tensor]) -> str | None:
    """The name of the first tensor with something in it that is no finite real number, if there is one."""
    return next(
        (name for name, value in weights.items() if value.is_complex() or not value.float().isfinite().all()), None
    )


def add_facts(path: str | Path, **facts) -> None:
    """Adds to what a checkpoint says about itself; its weights stay as they are. Raises CheckpointError as `load`."""
    known = load(path).facts
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {"facts": json.dumps(known | facts)}
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, the file is no dict
    write(Path(path), weights, metadata)


def write(path: Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        try:
            save_file(weights, partial, metadata)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written ({error})") from error
        partial.chmod(0o644)  # safetensors lets nobody else read it, such as the user that an app runs as


def load(path: str | Path, task: str | None = None) -> Checkpoint:
    """Reads a checkpoint. Raises CheckpointError if it is missing, damaged, newer, or of another task."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}; check the path, or train one (the README says how).")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, the file is no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or is no safetensors file ({error}). Fetch it again, or train it again."
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by this project. Use a file made by one of its train commands.")
    try:
        version = int(metadata["version"])
        if version > VERSION:
            raise CheckpointError(
                f"{path} has version {version} and this code reads up to {VERSION}. "
                "Update the code (git pull) and try again."
            )
        found, configs, facts = metadata["task"], json.loads(metadata["configs"]), json.loads(metadata["facts"])
        if not all(isinstance(block, dict) for block in (configs, facts, *dict(configs).values())):
            raise ValueError("configs, each of them, and facts must be JSON objects")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the description inside {path} is damaged. Fetch the file again.") from error
    if task is not None and found != task:
        raise CheckpointError(f"{path} is a checkpoint for {found}, not for {task}. Put it under its own name.")
    if broken := find_broken(tensors):
        raise CheckpointError(
            f"{path} has weights that are no numbers, in {broken}. Fetch it again, or train it again."
        )
    weights: dict[str, dict[str, Tensor]] = {name: {} for name in configs}
    for key, value in tensors.items():
        name, _, rest = key.partition(".")
        weights.setdefault(name, {})[rest] = value.float() if value.is_floating_point() else value
    return Checkpoint(found, configs, weights, facts)
