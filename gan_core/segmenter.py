"""Photo in, class map out: at the photo's own size, with the photo's own edges."""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_core import checkpoint
from gan_core.image import resize, shrink, to_pictures, to_rgb, to_tensor
from gan_core.palette import VOC
from gan_core.predictor import has_bfloat16, ready
from gan_core.segmentation import SegmentationConfig, SegmentationGenerator, enlarge
from gan_core.tasks import TASKS

LONGEST = 3  # a photo's longer side is at most this many working sizes; of a panorama the shorter side gets less
GUIDE_SIDE = 1024  # pixels of the longer side of the photo that is looked at, and in which edges are looked for
RADIUS, SMOOTH = 5, 1e-4  # of the edge filter: pixels at the working size; variance of [0, 1] that is no edge
LEAST_SHARE = 0.004  # of the picture; a class with less is confetti
SCALES = (0.75, 1.0, 1.25)  # of a thorough look
STRENGTH = 0.55  # of the colours of an overlay
LEAST_PRESENCE, ABSENT = 0.2, 1e-3  # a class that the picture as a whole shows with less counts as that little
# Power of what the picture as a whole says of a class. At 1 mIoU on val is 1.1 points higher, but pixel accuracy 0.2
# lower, and of a rocket at night 8 % are people and cats, rather than 5 %.
TRUST = 2


class Segmenter:
    """Says for each pixel of a photo which of VOC's classes it shows.

    For people: `Segmenter.from_checkpoint(path)`. For tests: the network itself.
    All methods may be called from several threads at once, and are deterministic.
    """

    task = TASKS["segmentation"]

    def __init__(self, generator: SegmentationGenerator, device: str | torch.device = "cpu"):
        self.config, self.device = generator.config, torch.device(device)
        self.dtype = torch.bfloat16 if has_bfloat16(self.device) else torch.float32
        self.generator = ready(generator, self.device, self.dtype)
        self.generator.colors = generator.colors.detach().to(self.device, torch.float32)  # exact, to compare with

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu") -> "Segmenter":
        """Raises CheckpointError if the file is missing, damaged, too new or for another task."""
        loaded = checkpoint.load(path, cls.task.name)
        return cls(loaded.build("generator", SegmentationGenerator, SegmentationConfig), device)

    def segment(self, photo: Image.Image, thorough: bool = False) -> np.ndarray:
        """Class numbers, uint8 `(H, W)`, of a photo of any mode and size.

        A generator that scores classes sees the photo and its mirror image, thorough: at three sizes, and its answer
        is fitted to the edges of the photo. One that paints a picture is taken at its word: the nearest colours.
        """
        return self.look(photo, thorough)[0]

    def palette_picture(self, photo: Image.Image) -> Image.Image:
        """What the generator itself paints, at its working size: RGB, not decoded, not refined."""
        photo = to_rgb(photo)
        return self._paint(self._views(shrink(photo, GUIDE_SIDE), (1.0,))[1.0][0][:1], photo.size)

    def look(self, photo: Image.Image, thorough: bool = False) -> tuple[np.ndarray, Image.Image]:
        """What `segment` and `palette_picture` give, both at once."""
        photo = to_rgb(photo)
        seen = shrink(photo, GUIDE_SIDE)  # once: a photo may have 50 million pixels
        views = self._views(seen, SCALES if thorough else (1.0,))
        shares, painted = self._shares(views, photo.size), self._paint(views[1.0][0][:1], photo.size)
        if self.config.paints == "picture":
            labels = shares.argmax(axis=-1).astype(np.uint8)
            return cv2.resize(labels, photo.size, interpolation=cv2.INTER_NEAREST_EXACT), painted
        classes = classes_in(shares)
        if len(classes) == 1:
            return np.full((photo.height, photo.width), classes[0], dtype=np.uint8), painted
        refined = follow_edges(shares[..., classes], np.asarray(seen))
        return np.asarray(classes, dtype=np.uint8)[winners(refined, photo.size)], painted

    def shares(self, photo: Image.Image, scales: tuple[float, ...] = (1.0,)) -> np.ndarray:
        """The share of each class in each pixel, float32 `(h, w, 21)` at the working size. photo: RGB."""
        return self._shares(self._views(photo, scales), photo.size)

    def _views(self, photo: Image.Image, scales: tuple[float, ...]) -> dict[float, tuple[Tensor, Tensor | None]]:
        """Scale -> what `_scores` says; a generator that paints a picture is asked once."""
        scores_classes = self.config.paints != "picture"
        return {
            scale: self._scores(photo, self.working_size(photo.size, scale), mirrored=scores_classes)
            for scale in (scales if scores_classes else (1.0,))
        }

    @torch.inference_mode()
    def _paint(self, scores: Tensor, size: tuple[int, int]) -> Image.Image:
        """Scores `(1, C, h / block, w / block)` of a photo of size (W, H) -> what the generator paints."""
        width, height = self.working_size(size)
        return to_pictures(self.generator.paint(enlarge(scores, (height, width))) * 2 - 1)[0]

    @torch.inference_mode()
    def _shares(self, views: dict[float, tuple[Tensor, Tensor | None]], size: tuple[int, int]) -> np.ndarray:
        width, height = self.working_size(size)
        if self.config.paints == "picture":
            return as_array(self.generator.probabilities(enlarge(views[1.0][0], (height, width))))
        total, presence = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for scores, logits in views.values():
            mean = self.generator.probabilities(scores).mean(dim=0, keepdim=True)  # (1, 21, h / block, w / block)
            total = total + enlarge(mean, (height, width))
            if logits is not None:
                presence = presence + logits.sigmoid().mean(dim=0)  # (21,)
        if presence.ndim:
            total = total * weight_of(presence / len(views))[:, None, None]
        return as_array(total / total.sum(dim=1, keepdim=True))

    def working_size(self, size: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
        """Width and height, multiples of the block, in which the network sees a photo of this size."""
        side, block = self.config.size * scale, self.config.block
        wanted = (side, side)
        if not self.config.square:
            factor = min(side / min(size), LONGEST * side / max(size))
            wanted = (size[0] * factor, size[1] * factor)
        return tuple(max(1, round(length / block)) * block for length in wanted)

    @torch.inference_mode()
    def _scores(
        self, photo: Image.Image, size: tuple[int, int], mirrored: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """float32 `(1 or 2, C, h / block, w / block)`; the second is of the mirror image, turned back.

        And, of nets with context, logits `(1 or 2, 21)` of the classes that are anywhere in the photo.
        """
        pixels = np.asarray(resize(photo, size))
        height, width = pixels.shape[:2]
        below, beside = -height % self.config.multiple, -width % self.config.multiple
        x = torch.cat(
            [
                to_tensor(cv2.copyMakeBorder(view, 0, below, 0, beside, cv2.BORDER_REFLECT_101))
                for view in ([pixels, np.ascontiguousarray(pixels[:, ::-1])] if mirrored else [pixels])
            ]
        )  # (1 or 2, 3, H, W)
        x = x.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        block = self.config.block
        scores, presence = self.generator.scores_and_presence(x)
        scores = scores[..., : height // block, : width // block].float()
        return torch.cat([scores[:1], scores[1:].flip(3)]), None if presence is None else presence.float()


def weight_of(presence: Tensor) -> Tensor:
    """How much the shares of each class count, by its presence in the picture as a whole, of 1.

    What the whole hardly shows is not in a corner of it either: no confetti.
    """
    return presence.where(presence >= LEAST_PRESENCE, ABSENT).pow(TRUST)


def class_shares(labels: np.ndarray) -> dict[int, float]:
    """Class -> its share of the picture, of the classes in it, the largest first. labels: uint8 `(H, W)`."""
    # np.bincount would first make eight bytes of each pixel.
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256])[:, 0]
    return {int(number): float(counts[number] / labels.size) for number in np.argsort(-counts) if counts[number]}


def lay_over(photo: Image.Image, labels: np.ndarray) -> Image.Image:
    """The photo, RGB, under the colours of its classes `(H, W)`; background has none."""
    strength = Image.fromarray(np.where(labels, round(255 * STRENGTH), 0).astype(np.uint8))
    return Image.composite(VOC.to_picture(labels), photo, strength)


def as_array(shares: Tensor) -> np.ndarray:
    """`(1, C, h, w)` -> `(h, w, C)`."""
    return np.ascontiguousarray(shares[0].permute(1, 2, 0).cpu().numpy())


def classes_in(shares: np.ndarray) -> list[int]:
    """The classes that win more than some stray pixels. shares: `(h, w, C)`."""
    counts = np.bincount(shares.argmax(axis=-1).ravel(), minlength=shares.shape[-1])
    return np.flatnonzero(counts >= min(LEAST_SHARE * counts.sum(), counts.max())).tolist()


def follow_edges(shares: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """Shares `(h, w, K)` -> `(H, W, K)`, float32, whose borders lie where the guide, uint8 `(H, W, 3)`, has its edges.

    He and Sun: Fast Guided Filter (arXiv 1505.00996): in each small window the shares are taken for a linear function
    of the three colours; its coefficients are found at the size of the shares and used at the size of the guide.
    """
    height, width, count = shares.shape
    size = guide.shape[1], guide.shape[0]
    guide = guide.astype(np.float32) / 255
    small = cv2.resize(guide, (width, height), interpolation=cv2.INTER_AREA)
    mean, mean_shares = box_mean(small), box_mean(shares)  # (h, w, 3), (h, w, K)
    spread = box_mean(outer(small, small)) - outer(mean, mean)  # (h, w, 3, 3)
    common = box_mean(outer(small, shares)) - outer(mean, mean_shares)  # (h, w, 3, K)
    slopes = np.linalg.solve(spread + SMOOTH * np.eye(3, dtype=np.float32), common)  # (h, w, 3, K)
    offsets = mean_shares - np.einsum("hwck,hwc->hwk", slopes, mean)  # (h, w, K)
    slopes, offsets = box_mean(slopes), box_mean(offsets)
    refined = np.empty((*guide.shape[:2], count), dtype=np.float32)
    for k in range(count):
        slope = cv2.resize(np.ascontiguousarray(slopes[..., k]), size)  # (H, W, 3)
        offset = cv2.resize(np.ascontiguousarray(offsets[..., k]), size)  # (H, W)
        refined[..., k] = np.einsum("hwc,hwc->hw", slope, guide) + offset
    return refined


def outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`(h, w, A)` and `(h, w, B)` -> the products of each with each, `(h, w, A, B)`."""
    return a[..., :, None] * b[..., None, :]


def box_mean(x: np.ndarray) -> np.ndarray:
    """Mean over the window around each pixel of `(h, w, ...)`."""
    side = 2 * RADIUS + 1
    flat = np.ascontiguousarray(x.reshape(*x.shape[:2], -1), dtype=np.float32)
    return cv2.blur(flat, (side, side), borderType=cv2.BORDER_REFLECT_101).reshape(x.shape)


def winners(shares: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which of K shares `(h, w, K)` is largest, in each pixel of a picture of size (W, H); uint8 `(H, W)`.

    One share after the other is brought to that size, in 8 bits: a photo may have 50 million pixels.
    """
    best = winner = None
    for k in range(shares.shape[-1]):
        share = np.rint(shares[..., k].clip(0, 1) * 255).astype(np.uint8)
        share = cv2.resize(share, size, interpolation=cv2.INTER_LINEAR)
        if best is None:
            best, winner = share, np.zeros(share.shape, dtype=np.uint8)
        else:
            winner[share > best] = k
            best = np.maximum(best, share, out=best)
    return winner
