"""Trains the judge of generated facades: a small network that reads the label map off a photo.

    python -m train.judge --data data/facades --out assets/checkpoints/judge.safetensors

Isola et al. (arXiv 1611.07004), section 4.1, "FCN-score": if a generated photo is realistic, a network that was
trained on real ones finds in it what it was generated from. The judge learns on train/ and never sees a
generated picture; how well it reads the real photos of val/ is the ceiling.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gan_core import checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.image import PictureError, to_tensor
from gan_core.maxpool_unet import MaxPoolUNet, MaxPoolUNetConfig
from gan_core.palette import FACADES
from train.data import DataError, EpochBatches, PairFolder, augment_pair
from train.run import RunError, autocast, batches, find_device, linear_decay

JUDGE = MaxPoolUNetConfig(in_channels=12, out_channels=len(FACADES), widths=(32, 64, 128, 256), convolutions=2)
LEARNING_RATE = 1e-3
BATCH = 8
ZOOM = 0.7  # see PairFolder


class Judge(nn.Module):
    """Maps photos `(N, 3, H, W)` in [-1, 1] to logits of the classes `(N, 12, H, W)`.

    It works at half resolution, on the four pixels of each 2x2 block as channels.
    """

    def __init__(self, config: MaxPoolUNetConfig):
        super().__init__()
        self.config = config
        self.unet = MaxPoolUNet(config)

    def forward(self, photo: Tensor) -> Tensor:
        logits = self.unet(F.pixel_unshuffle(photo, 2))  # (N, 12, H / 2, W / 2)
        return F.interpolate(logits.float(), scale_factor=2, mode="bilinear")  # (N, 12, H, W)


class LabelledFacades(PairFolder):
    """Items: photo `(3, H, W)` in [-1, 1] and its classes `(H, W)`."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        source, photo = self.pair(index)
        labels, photo = augment_pair(FACADES.to_labels(source), np.asarray(photo), rng, self.zoom)
        photo = to_tensor(photo)[0]
        # Light and contrast say nothing about what a thing is.
        contrast, light = rng.uniform(0.75, 1.25), rng.uniform(-0.25, 0.25)
        return photo * contrast + light, torch.from_numpy(labels.astype(np.int64))


def load_judge(path: Path) -> Judge:
    """Raises CheckpointError if the file is no judge."""
    return checkpoint.load(path, "judge").build("judge", Judge, MaxPoolUNetConfig)


@torch.inference_mode()
def read_labels(judge: Judge, photos: Tensor) -> Tensor:
    """Classes `(N, H, W)` that the judge sees in photos `(N, 3, H, W)` in [-1, 1]."""
    return torch.cat([judge(batch).argmax(dim=1) for batch in photos.split(8)])


def train_judge(data: Path, out: Path, epochs: int, seed: int = 0, workers: int = 1, device: str = "cpu") -> Judge:
    torch.manual_seed(seed)
    dataset = LabelledFacades(data / "train", seed=seed, zoom=ZOOM)
    judge = Judge(JUDGE).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), LEARNING_RATE, weight_decay=0.01)
    batch = min(BATCH, len(dataset))
    total = epochs * EpochBatches(len(dataset), batch).steps_per_epoch
    progress = tqdm(total=total * batch, unit="image")
    device = torch.device(device)
    for step, (photo, labels) in enumerate(batches(dataset, batch, seed, 0, total, workers, device)):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * linear_decay(step, total)
        with autocast(device, "auto"):
            loss = F.cross_entropy(judge(photo), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress.update(batch)
        if step % 20 == 0:
            progress.set_postfix(loss=round(loss.item(), 3), refresh=False)
    progress.close()
    facts = {"epochs": epochs, "data": f"{len(dataset)} photos"}
    checkpoint.save(out, "judge", {"judge": judge}, facts)
    return judge.eval()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.judge", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder with train/, from train.prepare"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that read and augment pictures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    try:
        device = find_device(options.device)
        train_judge(options.data, options.out, options.epochs, options.seed, options.workers, device)
    except (CheckpointError, DataError, OSError, PictureError, RunError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"Done: {options.out}")


if __name__ == "__main__":
    main()
