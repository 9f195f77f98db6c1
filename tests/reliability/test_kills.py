"""The trials that docs/reliability.md tells of, with fewer kills than there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SEED = 8  # these kills come before file operations, which are the same on every machine


@pytest.mark.parametrize("options", [["--times", "1"], ["--prepare", "--times", "2"]], ids=["training", "prepare"])
def test_what_is_killed_and_goes_on_is_what_it_would_be_without(options):
    command = [sys.executable, "-m", "tests.reliability.kills", *options, "--seed", str(SEED)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{options[-1]} kills in" in done.stdout
