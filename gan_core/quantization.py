"""Convolutions in 8-bit integers, which a processor multiplies two to four times as fast as floats.

Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference (CVPR 2018,
arXiv 1712.05877), section 2, after the training. What goes into a convolution gets one scale and zero point, weights
get a scale for each output channel. (NNCF does that too, and brings ten packages for it, SciPy and scikit-learn among
them.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import openvino  # which opens files when it is imported

OUTPUT_AXIS = {"Convolution": 0, "ConvolutionBackpropData": 1}  # of their weights
STEPS = 255  # from the lowest to the highest 8-bit number
SAMPLES = 20_000  # values that are looked at, of each convolution and each typical input


def quantize(model: openvino.Model, typical: Iterable[np.ndarray]) -> None:
    """Marks all convolutions of a model but the first, which sees the picture itself, for OpenVINO to do in integers.

    typical: inputs such as will be asked for, `(1, ...)` each. Their values decide the scales: a larger one is clipped.
    """
    convolutions = [op for op in model.get_ordered_ops() if op.get_type_name() in OUTPUT_AXIS][1:]
    # Without VNNI sums of two products are kept in 16 bits: weights of 7 bits cannot overflow them.
    headroom = 1 if torch.cpu._is_vnni_supported() else 2
    for op, values in zip(convolutions, observe(model, convolutions, typical)):
        low, high = best_range(values)
        before = op.input_value(0).get_node()
        entrance = before.input(0) if before.get_type_name() == "Pad" else op.input(0)  # so that integers are padded
        entrance.replace_source_output(fake_quantize(entrance.get_source_output(), low, high, STEPS + 1))
        weights = op.input_value(1)
        axis = OUTPUT_AXIS[op.get_type_name()]
        others = tuple(i for i in range(4) if i != axis)
        largest = headroom * np.abs(weights.get_node().data).max(axis=others, keepdims=True).clip(min=1e-8)
        op.input(1).replace_source_output(fake_quantize(weights, -largest, largest, STEPS))
    model.validate_nodes_and_infer_types()


def observe(
    model: openvino.Model, convolutions: Sequence[openvino.Node], typical: Iterable[np.ndarray]
) -> list[np.ndarray]:
    """For each convolution some of the values that go into it."""
    import openvino

    watched = openvino.Model([op.input_value(0) for op in convolutions], model.get_parameters(), "calibration")
    request = openvino.Core().compile_model(watched, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    rng = np.random.default_rng(0)
    seen = [[] for _ in convolutions]
    for item in typical:
        for values, kept in zip(request.infer({0: item}).to_tuple(), seen):
            kept.append(rng.choice(values.ravel(), SAMPLES))
    return [np.concatenate(kept) for kept in seen]


def best_range(values: np.ndarray) -> tuple[float, float]:
    """The lowest and highest number for integers to reach so that the values lose least, in the mean of squares.

    Wide ones have coarse steps, narrow ones clip. 0, which most values are after a ReLU, is always met.
    """
    low, high = min(values.min(), 0.0), max(values.max(), 1e-6)
    ranges = [meet_zero(share * low, share * high) for share in np.linspace(0.1, 1, 37)]
    return min(ranges, key=lambda ends: np.square(rounded(values, *ends) - values).mean())


def meet_zero(low: float, high: float) -> tuple[float, float]:
    """A range as long, moved by less than a step, so that 0 is one of its steps."""
    step = (high - low) / STEPS
    zero = round(-low / step)
    return -zero * step, (STEPS - zero) * step


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    step = (high - low) / STEPS
    return np.rint((values.clip(low, high) - low) / step) * step + low


def fake_quantize(value: openvino.Output, low, high, levels: int) -> openvino.Output:
    """Rounds floats to so many levels; OpenVINO makes integers of what lies between two of these."""
    from openvino import opset13 as ops

    ends = [ops.constant(np.asarray(end, dtype=np.float32)) for end in (low, high)]
    return ops.fake_quantize(value, *ends, *ends, levels).output(0)
