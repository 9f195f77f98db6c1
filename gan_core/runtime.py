"""The quickest way through a network on a processor: its graph, compiled by OpenVINO where that is installed."""

import ctypes
import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn


def compile_graph(network: nn.Module, example: Tensor, bfloat16: bool = False) -> Callable[[Tensor], Tensor] | None:
    """The function of a network in eval mode, compiled for this processor; None where OpenVINO is not installed.

    example: one item `(1, ...)`, float32. The function takes `(N, ...)` of the same shape but for N, and gives float32.
    It goes through a batch one by one: a processor gains nothing from doing them together, and would need memory for
    each size of batch. Several threads may call it at once.

    In float32 it differs from PyTorch by rounding.
    """
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # Not by openvino.convert_model, which counts its users over the network. torch.export, the successor of
    # torch.jit.trace, gives the same graph and takes six times as long.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network(example)  # what is made at the first call must not become part of the graph
        traced = torch.jit.trace(network, example, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced, example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    loaded = frontend.load(decoder)
    model = frontend.convert(loaded)
    model.reshape({model.input(0): openvino.PartialShape(list(example.shape))})
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # there are several networks, and a web server beside them
        },
    )
    request, turn = compiled.create_infer_request(), threading.Lock()

    def run(batch: Tensor) -> Tensor:
        answers = []
        for item in batch.float().contiguous().split(1):
            with turn:
                answers.append(torch.from_numpy(request.infer({0: item.numpy()})[0].copy()))
        return torch.cat(answers)

    return run


def give_back_memory() -> None:
    """What many visitors at once have needed, back to the system; the allocator of Linux would keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
