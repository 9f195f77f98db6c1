"""Figures of generated pictures against real ones. Pictures of one call have one size."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)
from torchmetrics.functional.image import structural_similarity_index_measure

from gan_core.faces import find_eyes, find_face
from gan_core.image import to_tensor
from gan_core.palette import VOC
from gan_core.segmentation import VOID


def gradient_energy(pictures: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, of `(N, C, H, W)`: how much fine structure there is."""
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).square().mean()
    right = (pictures[..., :, 1:] - pictures[..., :, :-1]).square().mean()
    return down + right


def as_batch(pictures: list[Image.Image]) -> Tensor:
    """`(N, C, H, W)` in [0, 1]."""
    return torch.cat([to_tensor(picture) for picture in pictures]) * 0.5 + 0.5


def compare(generated: list[Image.Image], real: list[Image.Image]) -> dict[str, float]:
    """Figures of generated pictures against the real ones they should be.

    l1: mean absolute difference, of 1. ssim: Wang et al. 2004. sharpness_ratio: gradient energy, generated
    over real; 1 is as sharp as a photo, less is blurred.
    """
    a, b = as_batch(generated), as_batch(real)
    return {
        "l1": float((a - b).abs().mean()),
        "ssim": float(structural_similarity_index_measure(a, b, data_range=1.0)),
        "sharpness_ratio": float(gradient_energy(a) / gradient_energy(b)),
    }


def face_rate(pictures: list[Image.Image]) -> float:
    """Share of the pictures in which OpenCV's frontal cascade finds a face."""
    return sum(find_face(picture) is not None for picture in pictures) / len(pictures)


def eye_rate(pictures: list[Image.Image]) -> float:
    """Share of the pictures in which OpenCV's eye cascade sees two eyes in the face."""
    boxes = [find_face(picture) for picture in pictures]
    return sum(box is not None and all(find_eyes(picture, box)) for picture, box in zip(pictures, boxes)) / len(boxes)


def label_scores(predicted: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    """Pixel accuracy and mean intersection over union, over the classes that occur in the labels; `(N, H, W)` both."""
    iou = multiclass_jaccard_index(predicted, labels, classes, average="none")
    present = torch.bincount(labels.flatten(), minlength=classes) > 0
    return {
        "accuracy": float(multiclass_accuracy(predicted, labels, classes, average="micro")),
        "iou": float(iou[present].mean()),
    }


def confusion(predicted: Tensor, labels: Tensor) -> Tensor:
    """How many pixels of each VOC class (row) were taken for each class (column), `(21, 21)`; void is not counted.

    predicted, labels: classes of one shape. The matrices of several pictures can be added.
    """
    return multiclass_confusion_matrix(predicted, labels, len(VOC), ignore_index=VOID)


def segmentation_scores(matrix: Tensor) -> dict:
    """Figures of a confusion matrix: pixel accuracy, mIoU over the classes that occur in the labels, IoU by name."""
    matrix = matrix.double()
    hits, labelled = matrix.diagonal(), matrix.sum(dim=1)
    present = labelled > 0
    iou = hits / (labelled + matrix.sum(dim=0) - hits).clamp(min=1)
    return {
        "accuracy": float(hits.sum() / labelled.sum().clamp(min=1)),
        "miou": float(iou[present].mean()) if present.any() else 0.0,
        "iou": {name: float(value) for name, value, there in zip(VOC.names, iou, present) if there},
    }


PATCH, PATCHES, PROJECTIONS, LEVELS = 7, 128, 512, 3


def sliced_wasserstein(generated: list[Image.Image], real: list[Image.Image], seed: int = 0) -> float:
    """Distance of the distributions of small patches, whatever picture they come from; 0 for equal ones.

    Karras et al. (arXiv 1710.10196), section 5: 7x7 patches of the levels of a Laplacian pyramid, normalised in
    each channel; mean over the levels, times 1000 as there. It needs no network, hence no weights.
    The patches are taken at the same places of all pictures, so that chance adds nothing to the distance.
    """
    rng = torch.Generator().manual_seed(seed)
    pyramids = [laplacian_pyramid(as_batch(pictures)) for pictures in (generated, real)]
    distances = []
    for levels in zip(*pyramids):
        places = [torch.randint(side - PATCH + 1, (PATCHES,), generator=rng) for side in levels[0].shape[-2:]]
        patches = [patches_at(level, *places) for level in levels]
        directions = F.normalize(torch.randn(patches[0].shape[1], PROJECTIONS, generator=rng), dim=0)
        # A few projections at a time: all of them, of a thousand pictures, would fill gigabytes.
        parts = [wasserstein(*(x @ part for x in patches)) for part in directions.split(16, dim=1)]
        distances.append(torch.cat(parts).mean())
    return float(torch.stack(distances).mean() * 1000)


def wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Distance of the values `(N, K)` and `(M, K)` in each of K columns, `(K,)`."""
    a, b = (torch.from_numpy(np.sort(x.T.contiguous().numpy())) for x in (a, b))  # ten times as fast as torch's
    count = min(a.shape[1], b.shape[1])
    a, b = (x[:, torch.linspace(0, x.shape[1] - 1, count).long()] for x in (a, b))
    return (a - b).abs().mean(dim=1)


def laplacian_pyramid(x: Tensor) -> list[Tensor]:
    """What each halving loses, fine to coarse, and the rest; of `(N, C, H, W)`."""
    levels = []
    for _ in range(LEVELS - 1):
        half = F.avg_pool2d(x, 2)
        levels.append(x - F.interpolate(half, scale_factor=2, mode="bilinear"))
        x = half
    return [*levels, x]


def patches_at(x: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
    """`(N * PATCHES, C * 49)` of `(N, C, H, W)`; each channel has mean 0 and deviation 1."""
    offsets = torch.arange(PATCH)
    rows = tops[:, None, None] + offsets[:, None]  # (PATCHES, 7, 1)
    columns = lefts[:, None, None] + offsets  # (PATCHES, 1, 7)
    patches = x.permute(0, 2, 3, 1)[:, rows, columns]  # (N, PATCHES, 7, 7, C)
    patches = patches.reshape(-1, PATCH * PATCH, x.shape[1])
    patches = (patches - patches.mean(dim=(0, 1))) / patches.std(dim=(0, 1)).clamp(min=1e-6)
    return patches.flatten(1)


def pairwise_distance(pictures: list[Image.Image]) -> float:
    """Mean root mean square difference of any two of the pictures, of 1: how much they differ from one another."""
    batch = as_batch(pictures).flatten(1)
    return float(F.pdist(batch).mean() / batch.shape[1] ** 0.5)
