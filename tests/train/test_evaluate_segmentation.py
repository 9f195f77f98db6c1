import json

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import checkpoint
from gan_core.segmentation import SegmentationGenerator
from train.evaluate import main
from train.evaluate_segmentation import plot_confusion
from train.metrics import confusion, segmentation_scores


def test_the_figures_by_hand():
    """
    labels     predicted
    0 0 0 8    0 0 8 8
    0 8 8 V    0 8 12 12
    """
    labels = torch.tensor([[0, 0, 0, 8], [0, 8, 8, 255]])
    predicted = torch.tensor([[0, 0, 8, 8], [0, 8, 12, 12]])
    matrix = confusion(predicted, labels)
    assert matrix.sum() == 7, "void is not counted"
    assert (matrix[0, 0], matrix[0, 8], matrix[8, 8], matrix[8, 12]) == (3, 1, 2, 1)
    scores = segmentation_scores(matrix)
    assert scores["accuracy"] == pytest.approx(5 / 7)
    assert scores["iou"] == pytest.approx({"background": 3 / 4, "cat": 2 / 4})  # no dog in the labels
    assert scores["miou"] == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_matrices_add_up_over_pictures_of_any_size():
    rng = torch.Generator().manual_seed(0)
    pairs = [torch.randint(0, 21, (2, side, 7), generator=rng) for side in (5, 9)]
    total = sum(confusion(*pair) for pair in pairs)
    assert torch.equal(total, confusion(*torch.cat(pairs, dim=1)))


def test_a_perfect_answer_scores_one_and_nothing_but_void_is_no_crash():
    labels = torch.arange(21).reshape(3, 7)
    assert segmentation_scores(confusion(labels, labels))["miou"] == 1
    nothing = segmentation_scores(confusion(labels, torch.full_like(labels, 255)))
    assert (nothing["miou"], nothing["accuracy"], nothing["iou"]) == (0, 0, {})


def test_the_confusion_matrix_is_drawn_for_the_classes_that_occur(tmp_path):
    matrix = torch.zeros(21, 21, dtype=torch.long)
    matrix[0, 0], matrix[8, 12] = 9, 3
    plot_confusion(matrix, tmp_path / "few.png")
    plot_confusion(matrix + 1, tmp_path / "all.png")
    sides = [Image.open(tmp_path / f"{name}.png").width for name in ("few", "all")]
    assert sides[0] < sides[1]


@pytest.fixture
def evaluate(tmp_path, prepared):
    """`python -m train.evaluate segmentation` of x.safetensors."""

    def evaluate(*options: str) -> None:
        paths = {"checkpoint": tmp_path / "x.safetensors", "data": prepared, "out": tmp_path / "out"}
        main(["segmentation", *(f"--{name}={path}" for name, path in paths.items()), *options])

    return evaluate


@pytest.mark.parametrize("options", [(), ("--test-time-augmentation",)])
@pytest.mark.parametrize("kind", ["class_config", "picture_config"])
def test_the_command_writes_figures_and_pictures(request, tmp_path, evaluate, lively, kind, options):
    generator = lively(SegmentationGenerator(request.getfixturevalue(kind)))
    checkpoint.save(tmp_path / "x.safetensors", "segmentation", {"generator": generator})
    evaluate(*options)
    out = tmp_path / "out"
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["pictures"] == 2 and figures["test_time_augmentation"] == bool(options)
    assert figures["miou"] == pytest.approx(np.mean(list(figures["iou"].values())), abs=1e-3)
    assert set(figures["iou"]) <= {"background", "cat", "dog", "person"}
    with Image.open(out / "contact_sheet.jpg") as sheet:
        assert sheet.size == (2 * 194 - 2, 3 * 194 - 2)
    assert (out / "confusion.png").is_file()


def test_a_checkpoint_of_another_task_is_refused(tmp_path, evaluate, generator):
    checkpoint.save(tmp_path / "x.safetensors", "facades", {"generator": generator})
    with pytest.raises(SystemExit, match=r"error: .*for facades, not for segmentation"):
        evaluate()
