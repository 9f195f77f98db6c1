"""Small checkpoints of all four tasks, and what strangers may give out under their names."""

import json
import pickle
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter, checkpoint
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import VOC
from gan_core.patchgan import PatchDiscriminator
from gan_core.segmentation import SegmentationConfig, SegmentationGenerator
from gan_core.unet import UNetGenerator
from gan_core.vae_gan import VAE, VAEConfig
from tests.conftest import TINY_PATCHGAN, TINY_UNET, enliven
from train.mixture import fit_latent_space

MODELS = {
    "sketch2face": Pix2PixPredictor,
    "facades": Pix2PixPredictor,
    "segmentation": Segmenter,
    "vaegan": FaceMixer,
}
CLASSES = SegmentationConfig(
    MaxPoolUNetConfig(12, len(VOC), widths=(8, 16), residual=1, context=True), paints="classes", block=2, size=32
)
TINY_VAE = VAEConfig(latent=16, widths=(8, 8, 16, 16, 16), upsampling="mixed", refine_channels=8)


def small_checkpoints(folder: Path) -> Path:
    """`<task>.safetensors` of all tasks: the networks that ship, a thousand times smaller."""
    torch.manual_seed(0)
    rgb = replace(TINY_UNET, in_channels=3), replace(TINY_PATCHGAN, source_channels=3)
    for task, unet, patchgan in (("sketch2face", TINY_UNET, TINY_PATCHGAN), ("facades", *rgb)):
        networks = {"generator": enliven(UNetGenerator(unet)), "discriminator": PatchDiscriminator(patchgan)}
        facts = {"recipe": {"adversarial": "bce"}}
        checkpoint.save(folder / f"{task}.safetensors", task, networks, facts)
    generator = enliven(SegmentationGenerator(CLASSES))
    checkpoint.save(folder / "segmentation.safetensors", "segmentation", {"generator": generator})
    space = fit_latent_space(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)), clusters=2)
    networks = {"vae": enliven(VAE(TINY_VAE)), "latents": space}
    checkpoint.save(folder / "vaegan.safetensors", "vaegan", networks, {"direction_names": ["Hair dark or light"]})
    return folder


@dataclass(frozen=True)
class BadCheckpoint:
    """kind: what is wrong. task: the name it is put under."""

    kind: str
    task: str
    name: str
    data: bytes


def header_of(data: bytes) -> tuple[dict, bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: object, body: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


class Evil:
    """What a pickle can do to whoever opens it: here, it leaves a file in the working directory."""

    def __reduce__(self):
        return open, ("pwned", "w")


WRONG = [None, True, 0, 1, -1, 3, 5, 2**31, 10**9, 10**30, 0.5, float("nan"), float("inf"), "", "4", "batch", [], [1]]
WRONG += [{}, {"a": 1}, [-1, 4], [10**6] * 3, [1] * 100, "x" * 10_000]


def bad_checkpoints(folder: Path) -> Iterator[BadCheckpoint]:
    """folder: with those of `small_checkpoints`."""
    whole = {task: (folder / f"{task}.safetensors").read_bytes() for task in MODELS}
    for task, data in whole.items():
        for tenth in range(10):
            yield BadCheckpoint("truncated", task, f"{tenth} tenths", data[: len(data) * tenth // 10])
        length = struct.unpack("<Q", data[:8])[0]
        for i, size in enumerate(
            (0, 1, 7, length - 1, length + 1, len(data), len(data) + 1, 10**8, 2**32, 2**63, 2**64 - 1)
        ):
            yield BadCheckpoint("lying header size", task, f"size {i}", struct.pack("<Q", size) + data[8:])
        header, body = header_of(data)
        rng = np.random.default_rng(zlib.crc32(task.encode()))
        for i in range(40):
            broken = bytearray(data)
            broken[rng.integers(8 + length)] = rng.integers(256)
            yield BadCheckpoint("flipped bytes", task, f"flipped {i}", bytes(broken))
        for text in (b"", b"{}", b"[]", b"null", b"{", b"\xff" * 50, b"[" * 100_000, b'{"__metadata__": 5}'):
            yield BadCheckpoint("header", task, f"{text[:20]!r}", with_header(text, body))
        yield from bad_metadata(task, header, body)
        yield from bad_tensors(task, header, data)
        for other in whole:
            if other != task:
                yield BadCheckpoint("of another task", task, f"that of {other}", whole[other])
        yield BadCheckpoint("pickle", task, "pickle", pickle.dumps({"generator": Evil(), "task": task}))
        yield BadCheckpoint("pickle", task, "old pickle", pickle.dumps([Evil(), task], protocol=0))
        yield BadCheckpoint("no checkpoint", task, "text", f"hello {task}".encode())
        yield BadCheckpoint("no checkpoint", task, "zip", b"PK\x03\x04" + task.encode() * 50)
        yield BadCheckpoint("no checkpoint", task, "zeros", bytes(100_000 + len(task)))
        yield BadCheckpoint("tail", task, "a tail", data + b"A" * 1000)


def bad_metadata(task: str, header: dict, body: bytes) -> Iterator[BadCheckpoint]:
    good = header["__metadata__"]

    def changed(name: str, metadata: dict) -> BadCheckpoint:
        return BadCheckpoint("metadata", task, name, with_header(header | {"__metadata__": metadata}, body))

    for key in good:
        yield changed(f"no {key}", {k: v for k, v in good.items() if k != key})
        for text in ("", "null", "5", "[]", "{}", '"a"', "[[]]", "{", "NaN", "-1", "999", "[" * 50_000, "\0", "1e400"):
            yield changed(f"{key} is {text[:10]!r}", good | {key: text})
    configs, facts = json.loads(good["configs"]), json.loads(good["facts"])
    for network, config in configs.items():
        for key in config:
            for value in WRONG:
                wrong = configs | {network: config | {key: value}}
                yield changed(f"{network}.{key} is {value!r:.20}", good | {"configs": json.dumps(wrong)})
        yield changed(f"{network} unknown", good | {"configs": json.dumps(configs | {network: config | {"evil": 1}})})
        for value in WRONG:
            yield changed(f"{network} is {value!r:.20}", good | {"configs": json.dumps(configs | {network: value})})
    for key in ("recipe", "direction_names"):
        for value in WRONG:
            yield changed(f"{key} is {value!r:.20}", good | {"facts": json.dumps(facts | {key: value})})


def bad_tensors(task: str, header: dict, data: bytes) -> Iterator[BadCheckpoint]:
    tensors, metadata = load(data), header["__metadata__"]

    def changed(name: str, key: str, value: torch.Tensor) -> BadCheckpoint:
        return BadCheckpoint("weights", task, f"{key} {name}", save(tensors | {key: value.contiguous()}, metadata))

    first, *_, last = (key for key, value in tensors.items() if value.is_floating_point() and value.numel() > 1)
    for key in (first, last):
        value = tensors[key]
        yield changed("NaN", key, torch.full_like(value, torch.nan))
        yield changed("infinite", key, torch.full_like(value, -torch.inf))
        yield changed(
            "one NaN",
            key,
            value.clone().index_put((torch.tensor(0),) * value.ndim, torch.tensor(torch.nan).to(value.dtype)),
        )
        yield changed("huge", key, torch.full_like(value, 65_504))
        yield changed("huge in float32", key, torch.full_like(value, 3e38, dtype=torch.float32))
        yield changed("zero", key, torch.zeros_like(value))
        yield changed("negative", key, -value.abs() - 1)
        yield changed("doubled", key, torch.cat([value, value]))
        yield changed("flat", key, value.flatten())
        yield changed("empty", key, torch.empty(0))
        yield changed("scalar", key, torch.tensor(1.0))
        for dtype in (
            torch.int8,
            torch.bool,
            torch.int64,
            torch.float64,
            torch.bfloat16,
            torch.float8_e4m3fn,
            torch.complex64,
        ):
            yield changed(f"as {dtype}", key, torch.ones(value.shape).to(dtype))
        less = {k: v for k, v in tensors.items() if k != key}
        yield BadCheckpoint("weights", task, f"{key} missing", save(less, metadata))
    yield changed("too many", "generator.evil", torch.zeros(3))
    yield changed("of another network", "evil.weight", torch.zeros(3))
    yield BadCheckpoint("weights", task, "none at all", save({"a": torch.zeros(len(task))}, metadata))
