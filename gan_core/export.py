"""Trained models as ONNX files, which run where there is neither Python nor PyTorch.

Pictures go in and come out as people have them: uint8 `(N, height, width, channels)`, RGB, or gray where there is one
channel. What the networks need beyond that is part of the graph; N is free. For the shipped models:

| file | in | out |
|---|---|---|
| sketch2face.onnx | `source`, a drawing `(N, 256, 256, 1)` | `target` `(N, 256, 256, 3)` |
| facades.onnx | `source`, a label map `(N, 256, 256, 3)` | `target` `(N, 256, 256, 3)` |
| segmentation.onnx | `source`, a photo `(N, height, width, 3)` | `labels`, class numbers, uint8 `(N, height, width)`; \
`shares` of the classes, float32 `(N, height, width, 21)` |
| vaegan-encoder.onnx | `source`, a face `(N, 96, 96, 3)` | `latent`, float32 `(N, 256)` |
| vaegan-decoder.onnx | `latent`, float32 `(N, 256)` | `target` `(N, 96, 96, 3)` |

Only this module needs the packages onnx and onnxscript.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils import parametrize

from gan_core import checkpoint
from gan_core.checkpoint import Checkpoint, CheckpointError
from gan_core.files import UsageError, write
from gan_core.palette import FACADES, VOC
from gan_core.segmentation import SegmentationConfig, SegmentationGenerator, enlarge
from gan_core.segmenter import weight_of
from gan_core.tasks import TASKS
from gan_core.unet import UNetConfig, UNetGenerator
from gan_core.vae_gan import VAE, Decoder, Encoder, VAEConfig

OPSET = 18  # of 2022, so that runtimes of some age read it too
NEEDED = ("onnx", "onnxscript")
PALETTES = {"facades": FACADES, "segmentation": VOC}
LICENCE = "code: MIT; weights: see the model card of the checkpoint and the terms of the training data it names"


class ExportError(RuntimeError):
    """Nothing can be exported; the message says why and what to do."""


def export(path: str | Path, out: str | Path, task: str | None = None) -> list[Path]:
    """Writes the model of a checkpoint to the file `out`; a VAE-GAN to two, NAME-encoder.onnx and NAME-decoder.onnx.

    Raises CheckpointError as `checkpoint.load`, UsageError if `out` does not end in .onnx, ExportError if packages are
    missing.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise UsageError(f"models are written as ONNX: {out} must end in .onnx")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ExportError(
            f"exporting needs {' and '.join(missing)}, which the app does not. "
            "Install what it takes to export and to run: pip install onnx onnxscript onnxruntime"
        )
    loaded = checkpoint.load(path, task)
    facts = describe(loaded, Path(path))
    files = []
    for graph in graphs(loaded):
        files.append(out.with_stem(f"{out.stem}{graph.suffix}"))
        write(files[-1], to_onnx(graph, facts))
    return files


def describe(loaded: Checkpoint, path: Path) -> dict[str, str]:
    """What an ONNX file says about itself, in its metadata."""
    facts = {
        "task": loaded.task,
        "checkpoint": f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}",
        "licence": LICENCE,
    }
    if palette := PALETTES.get(loaded.task):
        facts["classes"] = json.dumps(
            {name: f"#{bytes(color).hex()}" for name, color in zip(palette.names, palette.colors)}
        )
    return facts


# --- What is exported -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Graph:
    """One ONNX file. free: names of those dimensions of the input, from the first on, that are not fixed."""

    network: nn.Module
    input: str
    example: Tensor
    outputs: tuple[str, ...]
    free: tuple[str, ...] = ("N",)
    suffix: str = ""


def graphs(loaded: Checkpoint) -> Iterator[Graph]:
    """The networks of a checkpoint, ready for export. Raises CheckpointError."""

    def pictures(height: int, width: int, channels: int = 3) -> Tensor:
        return torch.zeros(2, height, width, channels, dtype=torch.uint8)  # of one, N would be taken for fixed

    if loaded.task in ("sketch2face", "facades"):
        generator = loaded.build("generator", UNetGenerator, UNetConfig)
        size = TASKS[loaded.task].size
        source = pictures(size, size, generator.config.in_channels)
        yield Graph(Translator(generator), "source", source, ("target",))
    elif loaded.task == "segmentation":
        generator = loaded.build("generator", SegmentationGenerator, SegmentationConfig)
        size = generator.config.size
        source = pictures(size, size + generator.config.multiple)
        yield Graph(Labeller(generator), "source", source, ("labels", "shares"), ("N", "height", "width"))
    elif loaded.task == "vaegan":
        vae = loaded.build("vae", VAE, VAEConfig)
        size, latent = vae.config.size, torch.zeros(2, vae.config.latent)
        yield Graph(FaceEncoder(vae.encoder), "source", pictures(size, size), ("latent",), suffix="-encoder")
        yield Graph(FaceDecoder(vae.decoder), "latent", latent, ("target",), suffix="-decoder")
    else:
        raise CheckpointError(f"a checkpoint for {loaded.task} cannot be exported; use one for {', '.join(TASKS)}.")


class Translator(nn.Module):
    """Sources -> targets: what `Pix2PixPredictor.predict` does once it has read the source."""

    def __init__(self, generator: UNetGenerator):
        super().__init__()
        self.generator = generator

    def forward(self, source: Tensor) -> Tensor:
        return to_bytes(self.generator(from_bytes(source)))  # (N, size, size, 3)


class Labeller(nn.Module):
    """Photos -> their class numbers, and the shares of the classes as `Segmenter.shares` gives them."""

    def __init__(self, generator: SegmentationGenerator):
        super().__init__()
        self.generator, self.config = generator, generator.config

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        photo = from_bytes(source)  # (N, 3, H, W)
        if self.config.paints == "picture":
            shares = self.generator.probabilities(self.to_pixels(self.look(photo)[0]))
        else:
            scores, presence = self.look(torch.cat([photo, photo.flip(3)]))  # (2 N, 21, h, w), (2 N, 21)
            shares, mirrored = self.generator.probabilities(scores).unflatten(0, (2, -1))
            shares = self.to_pixels((shares + mirrored.flip(3)) / 2)  # (N, 21, 4 h, 4 w)
            if presence is not None:
                presence = presence.sigmoid().unflatten(0, (2, -1)).mean(dim=0)  # (N, 21)
                shares = shares * weight_of(presence)[:, :, None, None]
        rows, columns = (torch.arange(length) for length in photo.shape[2:])
        shares = shares.index_select(2, rows).index_select(3, columns)  # (N, 21, H, W)
        shares = (shares / shares.sum(dim=1, keepdim=True)).permute(0, 2, 3, 1)  # (N, H, W, 21)
        return shares.argmax(dim=3).to(torch.uint8), shares

    def look(self, photo: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores `(N, 21, h, w)` of the blocks of photos of any height and width; and logits `(N, 21)` of presence."""
        height, width = photo.shape[2:]
        rows, columns = (mirrored_beyond(length, self.config.multiple) for length in (height, width))
        scores, presence = self.generator.scores_and_presence(photo.index_select(2, rows).index_select(3, columns))
        block = self.config.block
        return scores[:, :, : (height + block - 1) // block, : (width + block - 1) // block], presence

    def to_pixels(self, blocks: Tensor) -> Tensor:
        return enlarge(blocks, tuple(length * self.config.block for length in blocks.shape[2:]))


def mirrored_beyond(length: int, multiple: int) -> Tensor:
    """0, 1, ... length - 1, and back from there, until there is a multiple of `multiple`."""
    places = torch.arange((length + multiple - 1) // multiple * multiple)
    return torch.where(places < length, places, 2 * (length - 1) - places).clamp(min=0)


class FaceEncoder(nn.Module):
    """Faces -> latents, as `FaceMixer.encode`."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, source: Tensor) -> Tensor:
        return self.encoder(from_bytes(source) * 0.5 + 0.5)[0]  # (N, latent)


class FaceDecoder(nn.Module):
    """Latents -> faces, as `FaceMixer.decode`."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, latent: Tensor) -> Tensor:
        return to_bytes(self.decoder(latent) * 2 - 1)  # (N, size, size, 3)


def from_bytes(pictures: Tensor) -> Tensor:
    """uint8 `(N, H, W, C)` -> float32 `(N, C, H, W)` in [-1, 1]: `image.to_tensor` as a part of the graph."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(pictures: Tensor) -> Tensor:
    """float32 `(N, C, H, W)` in [-1, 1] -> uint8 `(N, H, W, C)`: `image.to_array` as a part of the graph."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


# --- How it is exported ---------------------------------------------------------------------------------


class Widen(nn.Module):
    """Weights in the float16 of the checkpoint, used as float32: half the file, and not a bit of it lost."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()


def to_onnx(graph: Graph, facts: dict[str, str]) -> bytes:
    """The ONNX file of a graph. facts: for its metadata."""
    network = graph.network.eval().requires_grad_(False)
    with torch.no_grad():
        network(graph.example)  # pixel noise is made when it is first needed
    # Norms stay by themselves, or the weights would fit in float16 no more; runtimes fold both when they load the file.
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.weight.data = checkpoint.compact(module.weight)
            parametrize.register_parametrization(module, "weight", Widen(), unsafe=True)
    with quiet():
        program = torch.onnx.export(
            network,
            (graph.example,),
            input_names=[graph.input],
            output_names=list(graph.outputs),
            dynamic_shapes=({i: Dim(name) for i, name in enumerate(graph.free)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props.update(facts)
    for node in program.model.graph:
        node.metadata_props.clear()  # where in whose folders the code of each layer stands
    return program.model_proto.SerializeToString()


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch logs about packages that it looks for and that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
