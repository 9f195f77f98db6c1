"""Export of small networks: the published kinds, and what can go wrong. tests/test_export.py has the shipped models."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gan_core import Pix2PixPredictor, Segmenter, __main__, checkpoint, export
from gan_core.__main__ import main
from gan_core.checkpoint import CheckpointError
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.segmentation import SegmentationConfig, SegmentationGenerator
from gan_core.unet import UNetConfig, UNetGenerator


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    for name in ("predictor", "segmenter"):
        monkeypatch.setattr(f"gan_core.{name}.has_bfloat16", lambda device: False)


@pytest.fixture
def place(tmp_path, monkeypatch, lively):
    """A working directory with checkpoints of the published networks, narrower."""
    facades = lively(UNetGenerator(UNetConfig(base_channels=2)))
    checkpoint.save(tmp_path / "facades.safetensors", "facades", {"generator": facades})
    painter = lively(SegmentationGenerator(SegmentationConfig(MaxPoolUNetConfig(widths=(8, 16)), size=32)), 3)
    checkpoint.save(tmp_path / "segmentation.safetensors", "segmentation", {"generator": painter})
    monkeypatch.setattr(__main__, "CHECKPOINTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_published_generator_is_exported_too(place, building, capsys):
    assert main(["export", "facades", "-o", "new/mine.onnx"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("new/mine.onnx  ") and out.endswith(" MB\n") and not err
    maps = [building(seed)[0] for seed in range(3)]
    (targets,) = onnxruntime.InferenceSession("new/mine.onnx").run(None, {"source": np.stack(maps)})
    expected = np.stack(Pix2PixPredictor.from_checkpoint("facades.safetensors").predict_batch(maps))
    assert np.abs(targets.astype(int) - expected).max() <= 1
    assert targets.std() > 10


def test_of_the_published_segmentation_the_nearest_colours_count(place, portrait):
    assert main(["export", "segmentation", "--checkpoint", "segmentation.safetensors", "-o", "mine.onnx"]) == 0
    photo = portrait(0, 32)
    session = onnxruntime.InferenceSession("mine.onnx")
    labels, shares = session.run(["labels", "shares"], {"source": np.stack([photo] * 3)})
    expected = Segmenter.from_checkpoint("segmentation.safetensors").shares(photo)
    assert (labels == expected.argmax(axis=-1)).mean() > 0.99
    assert set(np.unique(shares)) == {0, 1}
    assert len(np.unique(labels)) > 1


def test_weights_that_float16_cannot_hold_stay_as_they_are():
    layer = nn.Conv2d(1, 2, 1)
    layer.weight.data[0] = 1e6
    file = onnx.load_from_string(export.to_onnx(export.Graph(layer, "x", torch.zeros(2, 1, 4, 4), ("y",)), {}))
    stored = {array.name: onnx.numpy_helper.to_array(array) for array in file.graph.initializer}
    assert any(np.array_equal(array, layer.weight.detach()) for array in stored.values())


def test_missing_packages_are_named_with_the_remedy(place, monkeypatch, capsys):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else "here")
    assert main(["export", "facades", "-o", "mine.onnx"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: exporting needs onnxscript,") and "pip install onnx onnxscript onnxruntime" in err
    assert not list(place.glob("*.onnx"))


def test_a_missing_checkpoint_and_one_for_another_task_are_refused(place, capsys):
    assert main(["export", "vaegan", "-o", "mine.onnx"]) == 1
    assert "there is no checkpoint at" in capsys.readouterr().err
    assert main(["export", "facades", "-o", "mine.onnx", "--checkpoint", "segmentation.safetensors"]) == 1
    assert "is a checkpoint for segmentation, not for facades" in capsys.readouterr().err
    checkpoint.save("judge.safetensors", "judge", {})
    with pytest.raises(CheckpointError, match="judge cannot be exported; use one for sketch2face, facades"):
        export.export("judge.safetensors", "mine.onnx")
    assert not list(place.glob("*.onnx"))


@pytest.mark.parametrize("command", ["facades", "facades -o mine.png", "judge -o mine.onnx", "-o mine.onnx"])
def test_wrong_usage_is_explained(place, capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main(["export", *command.split()])
    assert stopped.value.code == 2
    assert "usage: python -m gan_core export" in capsys.readouterr().err
