import subprocess
import sys

import pytest

from train.lock import FolderInUse, locked

HOLD = "import sys, pathlib, train.lock\nwith train.lock.locked(pathlib.Path(sys.argv[1])): print('held'); input()"


def test_a_folder_is_made_and_has_one_holder_at_a_time(tmp_path):
    folder = tmp_path / "runs" / "mine"
    with locked(folder):
        said = r"another process is writing to .*mine\. Wait .* another folder"
        with pytest.raises(FolderInUse, match=said), locked(folder):
            pass
        with locked(tmp_path / "runs" / "other"):
            pass
    with locked(folder):
        pass


def test_whoever_is_killed_lets_go(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderInUse), locked(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with locked(tmp_path):
        pass
