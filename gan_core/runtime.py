"""The quickest way through a network on a processor: its graph, compiled by OpenVINO where that is installed."""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import io
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gan_core.files import write

KEPT = 12  # compiled graphs on the disk, of 5 to 60 MB
STREAMS = 8  # items that are worked on at once, at most: each needs memory of its own


def compile_graph(
    network: nn.Module, example: Tensor, bfloat16: bool = False, typical: Tensor | None = None
) -> Callable[[Tensor], Tensor] | None:
    """The function of a network in eval mode, compiled for this processor; None where OpenVINO is not installed.

    example: one item `(1, ...)`, float32. The function takes `(N, ...)` of the same shape but for N, and gives float32.
    Several threads may call it at once.

    In float32 it differs from PyTorch by rounding. typical: inputs such as will be asked for, `(N, ...)`; with them
    convolutions are done in 8-bit integers on processors of the x86 family that can, see gan_core/quantization.py.

    What was compiled is kept beside the models of torch.hub, so that the next start need not compile it.
    """
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino

    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        typical = None
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        # Beside integers there is little left to do, and float32 takes no longer for it.
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 and typical is None else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # there are several networks, and a web server beside them
    }
    processor = core.get_property("CPU", "FULL_DEVICE_NAME"), torch.backends.cpu.get_cpu_capability()
    tensors = [example, *network.state_dict().values(), *([] if typical is None else [typical])]
    file = place(repr((openvino.__version__, processor, settings, network)), tensors)

    def load(**others):
        return core.import_model(io.BytesIO(read(file)), "CPU", settings | others)

    try:
        compiled = load()
    except (OSError, ValueError, RuntimeError):  # it is not there, or damaged
        model = to_openvino(network, example)
        if typical is not None:
            from gan_core.quantization import quantize

            quantize(model, [item.numpy() for item in typical.split(1)])
        try:
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError:
            if typical is None:
                raise
            return compile_graph(network, example, bfloat16)  # this processor lacks some layer in integers
        with contextlib.suppress(OSError):  # a disk that is full, or nobody may write to
            keep(file, compiled.export_model().getvalue())
            compiled = load()  # which needs less memory than what it was made of
    streams = min(STREAMS, torch.get_num_threads())
    return Graph(compiled, lambda: load(PERFORMANCE_HINT="THROUGHPUT", NUM_STREAMS=streams))


class Graph:
    """The function of a compiled graph. One item has all threads; several share them, because threads that work on one
    item wait for each other at the end of every layer. It goes through a batch item by item in both cases: a
    processor gains nothing from larger ones, and would need memory for each size of batch.

    load_streams: gives the same graph with a stream for each item, or raises an error; called once there is a batch.
    """

    def __init__(self, compiled, load_streams: Callable[[], object]):
        self.request, self.turn = compiled.create_infer_request(), threading.Lock()
        self.load_streams = load_streams

    def __call__(self, batch: Tensor) -> Tensor:
        items = [item.numpy() for item in batch.float().contiguous().split(1)]
        with self.turn:
            if len(items) == 1 or self.streams is None:
                return together([self.request.infer({0: item})[0].copy() for item in items])
            answers = [None] * len(items)

            def store(request, i: int) -> None:
                answers[i] = request.get_output_tensor().data.copy()

            self.streams.set_callback(store)
            for i, item in enumerate(items):
                self.streams.start_async({0: item}, i)
            self.streams.wait_all()
        return together(answers)

    @functools.cached_property
    def streams(self):
        """An openvino.AsyncInferQueue, or None if the graph could not be kept."""
        import openvino

        try:
            return openvino.AsyncInferQueue(self.load_streams())
        except (OSError, ValueError, RuntimeError):
            return None


def together(answers: list[np.ndarray]) -> Tensor:
    """By NumPy: threads of torch would stay awake for a while, in the way of those that work on the next item."""
    return torch.from_numpy(np.concatenate(answers))


def to_openvino(network: nn.Module, example: Tensor):
    """The graph of a network, an openvino.Model for inputs of the example's shape."""
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.passes import ConstantFolding, Manager

    # Not by openvino.convert_model, which counts its users over the network. torch.export, the successor of
    # torch.jit.trace, gives the same graph and takes six times as long.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network(example)  # what is made at the first call must not become part of the graph
        traced = torch.jit.trace(network, example, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced, example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape({model.input(0): openvino.PartialShape(list(example.shape))})
    passes = Manager()
    passes.register_pass(ConstantFolding())  # weights that the network turns before it uses them
    passes.run_passes(model)
    return model


def place(setting: str, tensors: list[Tensor]) -> Path:
    """Where a compiled graph is kept. Its name changes with the setting, the tensors and the code of this package."""
    digest = hashlib.sha256(setting.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    return Path(torch.hub.get_dir()) / "gan_core" / f"{digest.hexdigest()[:32]}.blob"


def keep(file: Path, graph: bytes) -> None:
    """Writes a compiled graph, after its checksum, and deletes the oldest ones."""
    write(file, hashlib.sha256(graph).digest() + graph)
    others = sorted(file.parent.glob("*.blob"), key=lambda other: other.stat().st_mtime, reverse=True)
    for old in others[KEPT:]:
        old.unlink(missing_ok=True)


def read(file: Path) -> bytes:
    """Raises OSError if there is no such file, ValueError if it is damaged."""
    data = file.read_bytes()
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise ValueError(f"{file} is damaged")
    return data[32:]


def give_back_memory() -> None:
    """What many visitors at once have needed, back to the system; the allocator of Linux would keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
