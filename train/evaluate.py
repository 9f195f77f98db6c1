"""A checkpoint and held-out data -> figures and a contact sheet.

    python -m train.evaluate sketch2face --checkpoint FILE --data DIR --out DIR [--drawings DIR]

DIR/val holds framed photos. Their clean line art (`draw_lines` at the default detail) goes through the
model, and what comes out is compared with the photos. With --drawings, a folder of drawings that belong to no
photo is judged too.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from tqdm import tqdm

from gan_core import Pix2PixPredictor
from gan_core.checkpoint import CheckpointError
from gan_core.faces import find_face
from gan_core.image import open_picture, tile, to_tensor
from gan_core.lineart import SIZE, draw_lines, normalise_drawing
from train.data import DataError, list_pictures


def gradient_energy(pictures: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, of `(N, C, H, W)`: how much fine structure there is."""
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).square().mean()
    right = (pictures[..., :, 1:] - pictures[..., :, :-1]).square().mean()
    return down + right


def compare(generated: list[Image.Image], real: list[Image.Image]) -> dict[str, float]:
    """Figures of generated pictures against the real ones they should be; pictures of one size.

    l1: mean absolute difference, of 1. ssim: Wang et al. 2004. sharpness_ratio: gradient energy, generated
    over real; 1 is as sharp as a photo, less is blurred.
    """
    a, b = (torch.cat([to_tensor(picture) for picture in pictures]) * 0.5 + 0.5 for pictures in (generated, real))
    return {
        "l1": float((a - b).abs().mean()),
        "ssim": float(structural_similarity_index_measure(a, b, data_range=1.0)),
        "sharpness_ratio": float(gradient_energy(a) / gradient_energy(b)),
    }


def face_rate(pictures: list[Image.Image]) -> float:
    """Share of the pictures in which OpenCV's frontal cascade finds a face."""
    return sum(find_face(picture) is not None for picture in pictures) / len(pictures)


def predict_all(predictor: Pix2PixPredictor, sources: list[Image.Image], batch: int = 8) -> list[Image.Image]:
    groups = [sources[i : i + batch] for i in range(0, len(sources), batch)]
    return [picture for group in tqdm(groups, unit="batch") for picture in predictor.predict_batch(group)]


def evaluate_sketch2face(predictor: Pix2PixPredictor, data: Path, out: Path, drawings: Path | None) -> dict:
    """Writes `contact_sheet.jpg` (and `drawings.jpg`) to out. Returns the figures."""
    photos = [open_picture(path) for path in list_pictures(data / "val")]
    if any(photo.size != (SIZE, SIZE) for photo in photos):
        raise DataError(
            f"{data / 'val'} holds photos that are not {SIZE}x{SIZE}. Run `python -m train.prepare faces` first."
        )
    sources = [draw_lines(photo) for photo in photos]
    generated = predict_all(predictor, sources)
    figures = {"pictures": len(photos)} | compare(generated, photos)
    figures |= {"face_rate": face_rate(generated), "face_rate_real": face_rate(photos)}
    chosen = np.linspace(0, len(photos) - 1, min(24, len(photos))).astype(int)
    rows = [
        pictures[i]
        for first in range(0, len(chosen), 8)
        for pictures in (sources, generated, photos)
        for i in chosen[first : first + 8]
    ]
    tile(rows, min(8, len(chosen))).save(out / "contact_sheet.jpg", quality=90)
    if drawings:
        sketches = [open_picture(path) for path in list_pictures(drawings)]
        faces = predict_all(predictor, sketches)
        figures |= {"drawings": len(sketches), "face_rate_drawings": face_rate(faces)}
        rows = []
        for first in range(0, len(sketches), 8):
            rows += [normalise_drawing(sketch) for sketch in sketches[first : first + 8]]
            rows += faces[first : first + 8]
        tile(rows, min(8, len(sketches))).save(out / "drawings.jpg", quality=90)
    return figures


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.evaluate", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("task", choices=["sketch2face"])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with val/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--drawings", type=Path, metavar="DIR", help="drawings without photos, to be judged too")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        predictor = Pix2PixPredictor.from_checkpoint(options.checkpoint, options.device)
        figures = evaluate_sketch2face(predictor, options.data, options.out, options.drawings)
    except (CheckpointError, DataError) as error:
        raise SystemExit(f"error: {error}") from error
    figures = {name: round(value, 4) for name, value in figures.items()}
    (options.out / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
