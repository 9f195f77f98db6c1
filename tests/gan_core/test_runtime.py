import ctypes
import os
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import nn

from gan_core import runtime
from gan_core.runtime import compile_graph, give_back_memory


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


# --- the compiled graph, and where it is kept


@pytest.fixture
def network(lively) -> nn.Module:
    return lively(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))).eval()


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """The folder of compiled graphs, of this test alone."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "gan_core"


def test_one_item_and_several_get_the_same_answers(network, batch):
    run = compile_graph(network, batch[:1])
    assert run.streams is not None
    with torch.no_grad():
        expected = network(batch)
    assert torch.allclose(run(batch), expected, atol=1e-4)
    assert torch.allclose(torch.cat([run(item) for item in batch.split(1)]), expected, atol=1e-4)


def test_a_graph_is_compiled_once(network, batch, kept, monkeypatch):
    first = compile_graph(network, batch[:1])(batch[:1])
    assert len(list(kept.iterdir())) == 1
    monkeypatch.setattr(runtime, "to_openvino", lambda *_: pytest.fail("it was compiled again"))
    assert torch.equal(compile_graph(network, batch[:1])(batch[:1]), first)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:-1] + b"?", lambda data: b""]
)
def test_a_damaged_file_is_made_again(network, batch, kept, damage):
    first = compile_graph(network, batch[:1])(batch)
    (file,) = kept.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="damaged"):
        runtime.read(file)
    assert torch.equal(compile_graph(network, batch[:1])(batch), first)
    runtime.read(file)


def test_other_weights_are_another_graph(network, batch, kept):
    before = compile_graph(network, batch[:1])(batch)
    network[0].weight.data *= 2
    after = compile_graph(network, batch[:1])(batch)
    assert not torch.allclose(before, after)
    assert len(list(kept.iterdir())) == 2


def test_where_nothing_can_be_kept_graphs_work_all_the_same(network, batch, kept):
    kept.parent.mkdir()
    kept.write_text("a file where the folder should be")
    run = compile_graph(network, batch[:1])
    with torch.no_grad():
        assert torch.allclose(run(batch), network(batch), atol=1e-4)
    assert run.streams is None


def test_only_the_newest_graphs_are_kept(kept):
    for i in range(runtime.KEPT + 3):
        runtime.keep(kept / f"{i}.blob", b"graph")
        os.utime(kept / f"{i}.blob", (i, i))
    runtime.keep(kept / "last.blob", b"graph")
    left = {file.stem for file in kept.iterdir()}
    assert left == {"last", *map(str, range(4, runtime.KEPT + 3))}


def test_typical_inputs_make_it_integers_on_x86_alone(network, batch, monkeypatch):
    asked = []
    monkeypatch.setattr("gan_core.quantization.quantize", lambda model, typical: asked.append(len(typical)))
    for capability in ("NEON", "AVX2"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        compile_graph(network, batch[:1], typical=batch)
    assert asked == [5]


def test_a_processor_without_some_layer_in_integers_does_it_in_floats(network, batch, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")

    def spoil(model, typical):
        model.get_ordered_ops()[0].set_partial_shape(openvino.PartialShape([1, 2, 16, 16]))  # nothing can compile it

    monkeypatch.setattr("gan_core.quantization.quantize", spoil)
    with torch.no_grad():
        assert torch.allclose(compile_graph(network, batch[:1], typical=batch)(batch), network(batch), atol=1e-4)
