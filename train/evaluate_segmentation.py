"""What a segmentation checkpoint is worth: `python -m train.evaluate segmentation`, see train/evaluate.py."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gan_core import Segmenter
from gan_core.image import fit, open_picture, side_by_side
from gan_core.palette import VOC
from train.data import evenly
from train.metrics import confusion, segmentation_scores
from train.voc import LabelledPhotos

SHOWN = 192  # side of a picture on the contact sheet


def evaluate_segmentation(segmenter: Segmenter, data: Path, out: Path, thorough: bool = False) -> dict:
    """Segments DIR/val at the size of its labels. Writes `contact_sheet.jpg` and `confusion.png` to out.

    Returns pixel accuracy, mIoU over the classes that occur, and the IoU of each; void is not counted.
    """
    dataset = LabelledPhotos(data / "val")
    shown = set(evenly(len(dataset), 24))
    matrix, rows = torch.zeros(len(VOC), len(VOC), dtype=torch.long), []
    for i, (photo_file, _) in enumerate(tqdm(dataset.files, unit="picture")):
        photo, labels = open_picture(photo_file), dataset.labels(i)
        predicted = segmenter.segment(photo, thorough)
        matrix += confusion(torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(labels.astype(np.int64)))
        if i in shown:
            rows.append([fit(x, SHOWN) for x in (photo, VOC.to_picture(predicted), VOC.to_picture(labels))])
    side_by_side(*zip(*rows)).save(out / "contact_sheet.jpg", quality=90)
    plot_confusion(matrix, out / "confusion.png")
    figures = segmentation_scores(matrix)
    figures["iou"] = {name: round(value, 4) for name, value in figures["iou"].items()}
    return {"pictures": len(dataset), "test_time_augmentation": thorough} | figures


def plot_confusion(matrix: Tensor, file: Path) -> None:
    """Each row: what share of a class's pixels was taken for which class. Classes that never occur are left out."""
    from matplotlib.figure import Figure

    seen = ((matrix.sum(dim=0) + matrix.sum(dim=1)) > 0).nonzero().flatten()
    part = matrix[seen][:, seen].double()
    shares = (part / part.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    names = [VOC.names[i] for i in seen]
    side = 2.5 + 0.45 * len(names)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if share >= 0.005:
                color = "white" if share > 0.5 else "black"
                axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=color)
    figure.savefig(file, dpi=100)
