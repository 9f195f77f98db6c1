import numpy as np
import openvino
import pytest
import torch
from torch import nn

from gan_core import quantization
from gan_core.doubling import DoubledConv
from gan_core.quantization import best_range, meet_zero, quantize, rounded
from gan_core.runtime import to_openvino


@pytest.fixture(scope="module")
def network(lively) -> nn.Module:
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU())
    return lively(nn.Sequential(*layers, nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.Conv2d(8, 3, 3, padding=1))).eval()


@pytest.fixture(scope="module")
def items() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (8, 1, 3, 32, 32)).astype(np.float32)


def compiled(model: openvino.Model) -> openvino.CompiledModel:
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def quantized(network: nn.Module, items: np.ndarray) -> openvino.Model:
    model = to_openvino(network, torch.from_numpy(items[0]))
    quantize(model, items[:4])
    return model


@pytest.mark.parametrize("vnni", [True, False])
def test_answers_stay_close_to_those_in_floats(network, items, vnni, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    exact, quick = (
        compiled(model) for model in (to_openvino(network, torch.from_numpy(items[0])), quantized(network, items))
    )
    a, b = (np.concatenate([model(item)[0] for item in items[4:]]) for model in (exact, quick))
    error = np.sqrt(np.square(a - b).mean()) / a.std()
    assert 0.001 < error < (0.03 if vnni else 0.05)


def test_all_convolutions_but_the_first_are_done_in_integers(network, items):
    done = [op.get_rt_info() for op in compiled(quantized(network, items)).get_runtime_model().get_ordered_ops()]
    kinds = {kind: [] for kind in ("Convolution", "Deconvolution")}
    for info in done:
        if (kind := info["layerType"].astype(str)) in kinds:
            kinds[kind].append(info["runtimePrecision"].astype(str))
    assert kinds["Convolution"][0] == "f32"
    assert set(kinds["Convolution"][1:]) == {"u8"} and len(kinds["Convolution"]) == 3
    assert kinds["Deconvolution"] == ["u8"]


def test_integers_are_padded_not_floats(lively):
    """Before the convolution of a doubled picture, where there are many channels."""
    network = lively(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), DoubledConv(8, 16))).eval()
    items = np.random.default_rng(0).uniform(-1, 1, (4, 1, 3, 16, 16)).astype(np.float32)
    model = quantized(network, items)
    done = [op.get_rt_info() for op in compiled(model).get_runtime_model().get_ordered_ops()]
    assert [op["outputPrecisions"].astype(str) for op in done if op["layerType"].astype(str) == "Pad"] == ["u8"]
    exact = to_openvino(network, torch.from_numpy(items[0]))
    a, b = (np.concatenate([compiled(each)(item)[0] for item in items]) for each in (exact, model))
    assert np.sqrt(np.square(a - b).mean()) < 0.03 * a.std()


def test_without_vnni_weights_leave_room_for_sums(network, items, monkeypatch):
    """Two products of a byte and a 7-bit number fit into 16 bits."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    marks = [op for op in quantized(network, items).get_ordered_ops() if op.get_type_name() == "FakeQuantize"]
    weights = [op for op in marks if op.input_value(0).get_node().get_type_name() == "Constant"]
    assert len(weights) == 3
    for op in weights:
        values, high = (op.input_value(i).get_node().data for i in (0, 2))
        assert np.abs(values / (high / 127)).max() <= 64


def test_a_range_clips_what_is_rare():
    values = np.random.default_rng(0).normal(0, 1, 100_000)
    low, high = best_range(np.append(values, 1000.0))
    assert high > 900  # one such value costs more than all others together
    low, high = best_range(values)
    assert 2.5 < high < values.max() and values.min() < low < -2.5


def test_a_range_of_what_is_never_negative_begins_at_zero():
    assert best_range(np.linspace(0, 6, 1000)) == (0, 6)
    low, high = best_range(np.zeros(10))
    assert low == 0 < high


@pytest.mark.parametrize("ends", [(-1.0, 3.0), (-0.2, 7.7), (-5.0, 0.1), (0.0, 2.0)])
def test_zero_stays_zero(ends):
    moved = meet_zero(*ends)
    assert rounded(np.zeros(1), *moved)[0] == pytest.approx(0, abs=1e-6)
    assert np.abs(np.subtract(moved, ends)).max() <= (ends[1] - ends[0]) / quantization.STEPS


def test_rounding_is_off_by_half_a_step_at_most():
    values = np.linspace(-1, 3, 10_001)
    assert np.abs(rounded(values, -1, 3) - values).max() == pytest.approx(4 / quantization.STEPS / 2, rel=0.01)
