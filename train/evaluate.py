"""A checkpoint and held-out data -> figures and a contact sheet.

    python -m train.evaluate sketch2face --checkpoint FILE --data DIR --out DIR [--drawings DIR]

DIR/val holds framed photos. Their clean line art (`draw_lines` at the default detail) goes through the
model, and what comes out is compared with the photos. With --drawings, a folder of drawings that belong to no
photo is judged too.

    python -m train.evaluate facades --checkpoint FILE --data DIR --out DIR [--judge FILE] [--fid] [--lpips]

DIR/val holds label maps and photos. Beside the comparison with the photos, a network that was trained on real
photos (`train.judge`) says whether it finds in the generated ones what they were made from.

    python -m train.evaluate segmentation --checkpoint FILE --data DIR --out DIR [--test-time-augmentation]

DIR/val holds photos and labels, as `train.prepare voc` writes them; `confusion.png` shows what is taken for what.

    python -m train.evaluate vaegan --checkpoint FILE --data DIR --out DIR

DIR/val and DIR/train hold 96x96 faces: see `train.evaluate_vaegan`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter
from gan_core.checkpoint import CheckpointError
from gan_core.image import PictureError, open_picture, side_by_side
from gan_core.lineart import SIZE, draw_lines, normalise_drawing
from gan_core.palette import FACADES
from train.data import DataError, PairFolder, evenly, list_pictures
from train.evaluate_segmentation import evaluate_segmentation
from train.evaluate_vaegan import evaluate_vaegan
from train.judge import load_judge, read_labels
from train.metrics import as_batch, compare, eye_rate, face_rate, label_scores, sliced_wasserstein
from train.run import RunError, find_device

JUDGE = Path(__file__).parent.parent / "assets" / "checkpoints" / "judge.safetensors"
OPTIONS = {  # that only one task knows
    "drawings": "sketch2face",
    "judge": "facades",
    "fid": "facades",
    "lpips": "facades",
    "test_time_augmentation": "segmentation",
}


def predict_all(predictor: Pix2PixPredictor, sources: list[Image.Image], batch: int = 8) -> list[Image.Image]:
    groups = [sources[i : i + batch] for i in range(0, len(sources), batch)]
    return [picture for group in tqdm(groups, unit="batch") for picture in predictor.predict_batch(group)]


def sheet(*sides: Sequence[Image.Image], count: int = 24) -> Image.Image:
    """Some of the pictures, evenly spread; see side_by_side."""
    chosen = evenly(len(sides[0]), count)
    return side_by_side(*([side[i] for i in chosen] for side in sides))


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
    figures["sliced_wasserstein"] = sliced_wasserstein(generated, photos)
    figures |= {"face_rate": face_rate(generated), "face_rate_real": face_rate(photos)}
    figures |= {"eye_rate": eye_rate(generated), "eye_rate_real": eye_rate(photos)}
    sheet(sources, generated, photos).save(out / "contact_sheet.jpg", quality=90)
    if drawings:
        sketches = [open_picture(path) for path in list_pictures(drawings)]
        faces = predict_all(predictor, sketches)
        figures |= {"drawings": len(sketches)}
        figures |= {"face_rate_drawings": face_rate(faces), "eye_rate_drawings": eye_rate(faces)}
        drawings_read = [normalise_drawing(sketch) for sketch in sketches]
        side_by_side(drawings_read, faces).save(out / "drawings.jpg", quality=90)
    return figures


def evaluate_facades(predictor: Pix2PixPredictor, data: Path, out: Path, judge: Path, networks: list[str]) -> dict:
    """Writes `contact_sheet.jpg` to out: map, generated, real. Returns the figures. networks: "fid", "lpips"."""
    pairs = PairFolder(data / "val")
    sources, photos = zip(*(pairs.pair(i) for i in range(len(pairs))))
    if any(photo.size != (SIZE, SIZE) for photo in photos):
        raise DataError(
            f"{data / 'val'} holds photos that are not {SIZE}x{SIZE}. Run `python -m train.prepare facades` first."
        )
    generated = predict_all(predictor, list(sources))
    figures = {"pictures": len(photos)} | compare(generated, list(photos))
    figures["sliced_wasserstein"] = sliced_wasserstein(generated, list(photos))
    labels = torch.from_numpy(np.stack([FACADES.to_labels(source) for source in sources])).long()
    network = load_judge(judge)
    for name, pictures in (("", generated), ("_real", photos)):
        scores = label_scores(read_labels(network, as_batch(list(pictures)) * 2 - 1), labels, len(FACADES))
        figures |= {f"judge_{key}{name}": value for key, value in scores.items()}
    figures["judge_accuracy_share"] = figures["judge_accuracy"] / max(figures["judge_accuracy_real"], 1e-9)
    for name in networks:
        figures[name] = network_distance(name, generated, list(photos))
    sheet(sources, generated, photos).save(out / "contact_sheet.jpg", quality=90)
    return figures


def network_distance(name: str, generated: list[Image.Image], real: list[Image.Image]) -> float:
    """FID or LPIPS, by torchmetrics; the networks they need are downloaded, and DataError says if that fails."""
    try:
        if name == "fid":
            from torchmetrics.image.fid import FrechetInceptionDistance

            metric = FrechetInceptionDistance(normalize=True)
            metric.update(as_batch(real), real=True)
            metric.update(as_batch(generated), real=False)
        else:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
            metric.update(as_batch(generated), as_batch(real))
        return float(metric.compute())
    except (OSError, ImportError, RuntimeError) as error:
        raise DataError(
            f"--{name} needs a pretrained network that could not be loaded: {error}. "
            f"Install torchmetrics[image], connect to the internet, or leave out --{name}."
        ) from error


def evaluate_pictures(options: argparse.Namespace) -> dict:
    """The tasks whose targets are photos."""
    predictor = Pix2PixPredictor.from_checkpoint(options.checkpoint, options.device)
    if predictor.task.name != options.task:
        raise CheckpointError(f"{options.checkpoint} is a checkpoint for {predictor.task.name}, not {options.task}")
    if options.task == "sketch2face":
        return evaluate_sketch2face(predictor, options.data, options.out, options.drawings)
    networks = [name for name in ("fid", "lpips") if getattr(options, name)]
    return evaluate_facades(predictor, options.data, options.out, options.judge, networks)


def refuse_what_is_ignored(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raises DataError for an option of another task."""
    for name, task in OPTIONS.items():
        if options.task != task and getattr(options, name) != parser.get_default(name):
            raise DataError(f"--{name.replace('_', '-')} is for {task}. Leave it out for {options.task}.")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m train.evaluate", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("task", choices=["sketch2face", "facades", "segmentation", "vaegan"])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with val/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--drawings", type=Path, metavar="DIR", help="drawings without photos, to be judged too")
    parser.add_argument(
        "--judge", type=Path, default=JUDGE, metavar="FILE", help="facades: from train.judge (default: the shipped one)"
    )
    parser.add_argument(
        "--fid", action="store_true", help="facades: Frechet inception distance too (downloads Inception)"
    )
    parser.add_argument("--lpips", action="store_true", help="facades: LPIPS too (downloads AlexNet)")
    parser.add_argument(
        "--test-time-augmentation", action="store_true", help="segmentation: look at each photo at three sizes"
    )
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    try:
        options.device = find_device(options.device)
        refuse_what_is_ignored(options, parser)
        options.out.mkdir(parents=True, exist_ok=True)
        if options.task == "segmentation":
            segmenter = Segmenter.from_checkpoint(options.checkpoint, options.device)
            figures = evaluate_segmentation(segmenter, options.data, options.out, options.test_time_augmentation)
        elif options.task == "vaegan":
            mixer = FaceMixer.from_checkpoint(options.checkpoint, options.device)
            figures = evaluate_vaegan(mixer, options.data, options.out)
        else:
            figures = evaluate_pictures(options)
    except (CheckpointError, DataError, PictureError, RunError) as error:
        raise SystemExit(f"error: {error}") from error
    figures = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    (options.out / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
