"""Pictures from the command line: one command a task.

    python -m gan_core sketch2face DRAWING... -o OUT [--variants N] [--seed S] [--detail D]
    python -m gan_core facades MAP... -o OUT [--variants N] [--seed S]
    python -m gan_core segmentation PHOTO... -o OUT [--overlay OUT] [--fast]
    python -m gan_core vaegan [FACE...] [--seeds S...] [--weights W...] -o OUT
    python -m gan_core vaegan --samples N [--seed S] -o OUT
    python -m gan_core export TASK -o FILE.onnx

OUT is a PNG file; of several pictures, or of a folder of them, it is a folder. `-` is stdin or stdout.
Exit codes: 0, all is done; 1, a picture or the checkpoint cannot be used; 2, wrong usage; 130, interrupted.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from gan_core import FaceMixer, Pix2PixPredictor, Segmenter, checkpoint, hub
from gan_core.checkpoint import CheckpointError
from gan_core.export import ExportError, export
from gan_core.facades import read_pair
from gan_core.files import PIPE, UsageError, check_targets, list_sources, name_targets, open_source, save
from gan_core.image import PictureError
from gan_core.lineart import read_drawing
from gan_core.mixer import MAX_FACES
from gan_core.palette import VOC
from gan_core.predictor import MAX_VARIANTS
from gan_core.provenance import disclosure
from gan_core.recipe import LARGEST_WEIGHT, MAX_SEED, doubt
from gan_core.segmenter import class_shares, lay_over
from gan_core.tasks import TASKS

CHECKPOINTS = Path(__file__).parent.parent / "assets" / "checkpoints"
PLACE = "FILE, or USER/REPO on the Hugging Face Hub; default: the one in assets/checkpoints"

Options = argparse.Namespace
Model = Pix2PixPredictor | Segmenter | FaceMixer


# --- The tasks; each returns whether all pictures could be used -----------------------------------------


def translate(options: Options) -> bool:
    """A drawing becomes a face, a label map a building."""
    sources, many = list_sources(options.pictures)
    targets = name_targets(sources, options.out, many, range(1, options.variants + 1))
    check_targets(sources, targets)
    predictor = load(Pix2PixPredictor, options)

    def answer(_: str, picture: Image.Image) -> list[Image.Image]:
        source = read_drawing(picture, options.detail) if options.task == "sketch2face" else read_pair(picture)[0]
        if options.variants:
            return predictor.predict_variants(source, options.variants, options.seed)
        return [predictor.predict(source)]

    return work_through(sources, targets, answer, **disclosure("PNG"))


def segment(options: Options) -> bool:
    """A photo becomes its class map, and its legend is printed."""
    sources, many = list_sources(options.pictures)
    outs = [options.out, options.overlay] if options.overlay else [options.out]
    named = [name_targets(sources, out, many) for out in outs]
    targets = [[file for files in group for file in files] for group in zip(*named)]
    check_targets(sources, targets)
    segmenter = load(Segmenter, options)
    page = sys.stderr if PIPE in outs else sys.stdout

    def answer(source: str, photo: Image.Image) -> list[Image.Image]:
        labels = segmenter.segment(photo, thorough=not options.fast)
        head = f"{source.encode(errors='replace').decode()}: " if many else ""
        for number, share in class_shares(labels).items():
            tqdm.write(f"{head}{share:6.1%}  #{bytes(VOC.colors[number]).hex()}  {VOC.names[number]}", page)
        return [VOC.to_indexed(labels), *([lay_over(photo, labels)] if options.overlay else [])]

    return work_through(sources, targets, answer, draft=None)


def mix(options: Options) -> bool:
    """Faces of pictures and of seeds become one face; or each of some seeds becomes one."""
    sources, _ = list_sources(options.pictures)
    count = len(sources) + len(options.seeds)
    if options.samples and (count or options.weights):
        raise UsageError("--samples makes new faces and mixes none; leave out the pictures, --seeds and --weights")
    if not options.samples and not 1 <= count <= MAX_FACES:
        raise UsageError(f"there are {count} faces to mix; give 1 to {MAX_FACES} pictures and --seeds, or --samples")
    if options.weights and len(options.weights) != count:
        raise UsageError(f"there are {count} faces and {len(options.weights)} weights; pictures count before --seeds")
    numbers = range(options.seed, options.seed + options.samples)
    targets = name_targets(["face"], options.out, False, numbers)
    check_targets(sources, targets)
    mixer = load(FaceMixer, options)
    latents = [encode(mixer, source) for source in sources]
    latents += [mixer.sample(1, seed)[0] for seed in (*options.seeds, *numbers)]
    faces = mixer.decode(np.stack(latents)) if numbers else [mixer.mix(latents, options.weights or [1] * count)]
    for target, face in zip(targets[0], faces):
        save(face, target, **disclosure("PNG"))
    return True


def encode(mixer: FaceMixer, source: str) -> np.ndarray:
    """The latent `(D,)` of a picture, with a hint if it brings back another face. Raises PictureError."""
    try:
        picture = open_source(source)
    except PictureError as error:
        raise PictureError(f"{source}: {error}") from error
    latent = mixer.encode(picture)
    if hint := doubt(picture, mixer.decode(latent), mixer.strangeness(latent)):
        print(f"{source}: {hint}", file=sys.stderr)
    return latent


def write_onnx(options: Options) -> bool:
    """A checkpoint becomes an ONNX file, or two."""
    for file in export(checkpoint_of(options), options.out, options.task):
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    return True


# --- What they share --------------------------------------------------------------------------------


def load(model: type[Model], options: Options) -> Model:
    """Raises CheckpointError if there is no checkpoint, or none for this task."""
    path = checkpoint_of(options)
    checkpoint.load(path, options.task)  # a model would say what it misses in it, not whose it is
    return model.from_checkpoint(path, options.device)


def checkpoint_of(options: Options) -> Path:
    return hub.find(options.checkpoint or CHECKPOINTS / f"{options.task}.safetensors")


def work_through(
    sources: list[str],
    targets: list[list[str]],
    answer: Callable[[str, Image.Image], list[Image.Image]],
    draft: int | None = 2048,
    **looks,
) -> bool:
    """Writes the answers to each source. What cannot be used is named, and the others are done. looks: Pillow's."""
    well = True
    for source, files in zip(tqdm(sources, unit="picture", disable=None if len(sources) > 1 else True), targets):
        try:
            for file, picture in zip(files, answer(source, open_source(source, draft))):
                save(picture, file, **looks)
        except PictureError as error:
            tqdm.write(f"{source}: {error}", sys.stderr)
            well = False
    return well


# --- The command line -------------------------------------------------------------------------------


def within(lowest: float, largest: float, kind: type = int) -> Callable[[str], float]:
    """An argparse type: a number in this range, both ends included."""

    def read(text: str) -> float:
        with suppress(ValueError):
            if lowest <= kind(text) <= largest:
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text} is no{' whole' * (kind is int)} number from {lowest} to {largest}")

    return read


def device(text: str) -> torch.device:
    """An argparse type: a device that works here."""
    try:
        torch.zeros(1, device=text).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text} cannot be used here, use cpu: {reason}") from error
    return torch.device(text)


def read_arguments(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m gan_core", description="Pictures from the command line: one command a task."
    )
    commands = parser.add_subparsers(dest="task", required=True, metavar="TASK")

    def add(task: str, does: str, picture: str, examples: str, several: str = "+", **defaults) -> Callable:
        """A command with the options that all have. Returns what adds more of them."""
        lines = "\n".join(f"  python -m gan_core {task} {example}" for example in examples.splitlines())
        looks = {"epilog": f"examples:\n{lines}", "formatter_class": argparse.RawDescriptionHelpFormatter}
        command = commands.add_parser(task, help=does, description=does, allow_abbrev=False, **looks)
        command.set_defaults(fail=command.error, **defaults)
        command.add_argument("pictures", nargs=several, metavar=picture, help="file, folder, or - for stdin")
        what = "PNG file, - for stdout, or a folder for several pictures"
        command.add_argument("-o", "--out", required=True, metavar="OUT", help=what)
        command.add_argument("--checkpoint", metavar="PLACE", help=PLACE)
        command.add_argument("--device", type=device, default="cpu", help="default: cpu")
        return command.add_argument

    count = {"type": within(1, MAX_VARIANTS), "default": 0, "metavar": "N"}
    seed = {"type": within(0, MAX_SEED), "default": 0, "metavar": "S"}

    examples = "drawing.png -o face.png\ndrawings/ -o faces/ --variants 4 --seed 7\n- -o - < photo.jpg > face.png"
    does = "line drawings, or photos of faces -> faces"
    option = add("sketch2face", does, "DRAWING", examples, run=translate)
    option("--variants", **count, help="N answers to each drawing, NAME_1.png to NAME_N.png")
    option("--seed", **seed, help="of the variants; default: 0")
    option("--detail", type=within(0, 1, float), default=0.5, metavar="D", help="of a photo's lines, 0 to 1")

    examples = "map.png -o building.png\nmaps/ -o buildings/ --variants 4 --seed 7"
    option = add("facades", "label maps -> buildings", "MAP", examples, run=translate)
    option("--variants", **count, help="N answers to each map, NAME_1.png to NAME_N.png")
    option("--seed", **seed, help="of the variants; default: 0")

    examples = "photo.jpg -o map.png --overlay overlay.png\nphotos/ -o maps/ --fast > legend.txt"
    does = "photos -> class maps with VOC's palette; prints the share, colour and name of each class"
    option = add("segmentation", does, "PHOTO", examples, run=segment)
    option("--overlay", metavar="OUT", help="the photo under its classes too: file, folder or - as for -o")
    option("--fast", action="store_true", help="look at each photo at one size instead of three")

    examples = "a.png b.png --weights 1 2 -o blend.png\na.png --seeds 7 8 -o blend.png\n--samples 9 --seed 7 -o faces/"
    option = add("vaegan", "drawn faces -> one face between them; or new faces", "FACE", examples, "*", run=mix)
    option("--seeds", type=seed["type"], nargs="+", default=[], metavar="S", help="faces of seeds, after the pictures")
    weight = within(0, LARGEST_WEIGHT, float)
    option("--weights", type=weight, nargs="+", default=[], metavar="W", help="one a face; default: equal shares")
    count = count | {"type": within(1, MAX_FACES)}
    option("--samples", **count, help="N new faces instead: NAME_7.png is that of seed 7")
    option("--seed", **seed, help="of the first of them; default: 0")

    does = "a trained model as an ONNX file, which runs without Python"
    example = "example:\n  python -m gan_core export sketch2face -o out/sketch2face.onnx"
    command = commands.add_parser("export", help=does, description=does, allow_abbrev=False, epilog=example)
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.set_defaults(fail=command.error, run=write_onnx)
    command.add_argument("task", choices=TASKS, metavar="TASK", help=f"one of {', '.join(TASKS)}")
    what = "the file; of vaegan two, FILE-encoder.onnx and FILE-decoder.onnx"
    command.add_argument("-o", "--out", required=True, metavar="FILE.onnx", help=what)
    command.add_argument("--checkpoint", metavar="PLACE", help=PLACE)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code. Raises SystemExit, with 2, for wrong usage."""
    options = read_arguments(arguments)
    try:
        well = options.run(options)
        sys.stdout.flush()
        return 0 if well else 1
    except UsageError as error:
        options.fail(str(error))
    except BrokenPipeError:  # nobody reads on; Python would complain of it once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CheckpointError, ExportError, PictureError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}. Choose another file or folder.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
