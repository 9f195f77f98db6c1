import ctypes
import sys

import numpy as np
import pytest

from gan_core import runtime
from gan_core.runtime import give_back_memory


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="only the allocator of Linux keeps what is free")
def test_what_is_free_goes_back_to_the_system():
    size, count = 100_000, 3000  # too small for pages of their own
    kept = [np.ones(size, np.uint8) for _ in range(count)]
    last = np.ones(size, np.uint8)  # so that the free ones are not at the end of the heap
    del kept
    before = resident()
    give_back_memory()
    assert resident() < before - size * count / 2
    assert last.all()


def test_elsewhere_nothing_is_asked_of_the_allocator(monkeypatch):
    monkeypatch.setattr(runtime.sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: 1 / 0)
    give_back_memory()
