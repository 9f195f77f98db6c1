"""Checkpoints on the Hugging Face Hub. The one place that downloads anything, and only where somebody names a model.

A model there is a repository with the files that PyTorchModelHubMixin writes, `config.json` and `model.safetensors`;
the latter is a checkpoint as any other, see `gan_core.checkpoint`. `train.publish model` makes one. Pickled weights are
never asked for.
"""

import argparse
import re
from pathlib import Path

from gan_core import checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.tasks import TASKS

WEIGHTS = "model.safetensors"
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # USER/REPO


def find(place: str | Path) -> Path:
    """A file as it is; of USER/REPO the checkpoint in it, from the cache of the Hub or fetched into it.

    Raises CheckpointError, which says what is missing: the file, the network, the right to read, the checkpoint.
    """
    path = Path(place)
    if path.is_file() or path.suffix == ".safetensors":
        return path
    if path.is_dir():
        raise CheckpointError(f"{place} is a folder. Name the .safetensors file in it.")
    if not NAME.fullmatch(str(place)):
        raise CheckpointError(
            f"{place} is neither a .safetensors file nor a model on the Hugging Face Hub, which is called USER/REPO. "
            "Check the name."
        )
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise CheckpointError(f"{place} is on the Hub, so it takes `pip install huggingface_hub`.") from error
    try:
        return Path(HfApi().hf_hub_download(str(place), WEIGHTS))
    except Exception as error:  # of the Hub or of the network; the library lets those of its HTTP client through
        raise CheckpointError(explain(error, str(place))) from error


def read_model(text: str) -> tuple[str, str, Path]:
    """An argparse type: TASK=FILE or TASK=USER/REPO -> task, place as it was given, and file."""
    task, _, place = text.partition("=")
    if task not in TASKS or not place:
        raise argparse.ArgumentTypeError(f"{text} is not TASK=FILE or TASK=USER/REPO; tasks: {', '.join(TASKS)}")
    try:
        file = find(place)
        checkpoint.load(file, task)  # is it one, and of this task? It is better to know before anything else begins
    except CheckpointError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return task, place, file


def explain(error: Exception, repo: str) -> str:
    """What stands between a person and a repository of the Hub, and what to do."""
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT, is_offline_mode

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    page = f"{ENDPOINT}/{repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    log_in = "log in by `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is given to those who ask for it: do so at {page}, then {log_in}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no {repo} on the Hub that you may see. Check the name; if it is private, {log_in}."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return (
            f"{repo} holds no {WEIGHTS}, and nothing but safetensors is loaded. "
            "Choose a model that was published by `python -m train.publish model`."
        )
    if isinstance(error, errors.HFValidationError):
        return f"{repo} cannot be the name of a repository ({error}). It is USER/REPO."
    if status in (401, 403):
        return (
            f"the Hub does not let you do this with {repo}. Check the name; {log_in}, with a token that may read it "
            "(to publish: write)."
        )
    if status == 402:
        return (
            f"the Hub wants a subscription for {repo} ({first_line(error)}). Subscribe, or choose other hardware: what "
            "is free changes, see https://huggingface.co/pricing."
        )
    if status is not None:
        return f"the Hub answered {status} for {repo} ({first_line(error)}). Try again later."
    if is_offline_mode():
        return f"{repo} has not been fetched before, and HF_HUB_OFFLINE forbids it now. Unset it, or give a file."
    return (
        f"{repo} is not here yet, and the Hub cannot be reached ({first_line(error)}). "
        "Connect to the internet, or give a file."
    )


def first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
