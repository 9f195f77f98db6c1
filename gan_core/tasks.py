"""The tasks as data: what each system turns into what, and how a picture is made ready for it."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from gan_core.facades import read_label_map
from gan_core.image import to_rgb
from gan_core.lineart import normalise_drawing


@dataclass(frozen=True)
class Task:
    """One system of the house.

    name: of its checkpoint file and in every command. size: side of its pictures in pixels.
    read_source: any picture a visitor brings -> the picture the network was trained on, size x size.
    how_to_train: the commands that make a checkpoint, for a visitor whose checkpoint is missing.
    """

    name: str
    title: str
    size: int
    read_source: Callable[[Image.Image], Image.Image]
    how_to_train: str


TASKS = {
    task.name: task
    for task in (
        Task(
            name="sketch2face",
            title="Sketch",
            size=256,
            read_source=normalise_drawing,
            how_to_train=(
                "python -m train.prepare faces PHOTOS data/faces\n"
                "python -m train.pix2pix sketch2face --data data/faces --out runs/faces\n"
                "python app.py --model sketch2face=runs/faces/sketch2face.safetensors"
            ),
        ),
        Task(
            name="facades",
            title="Facade",
            size=256,
            read_source=read_label_map,
            how_to_train=(
                "python -m train.prepare facades PAIRS data/facades\n"
                "python -m train.pix2pix facades --data data/facades --out runs/houses\n"
                "python app.py --model facades=runs/houses/facades.safetensors"
            ),
        ),
        Task(
            name="segmentation",
            title="Segment",
            size=224,
            read_source=to_rgb,  # of any size: gan_core.segmenter does the rest
            how_to_train=(
                "python -m train.prepare voc VOCdevkit data/voc\n"
                "python -m train.pix2pix segmentation --data data/voc --out runs/classes\n"
                "python app.py --model segmentation=runs/classes/segmentation.safetensors"
            ),
        ),
        Task(
            name="vaegan",
            title="Mix",
            size=96,
            read_source=to_rgb,  # of any size: gan_core.mixer does the rest
            how_to_train=(
                "python -m train.prepare anime DRAWN_FACES data/anime\n"
                "python -m train.vae_gan --data data/anime --out runs/mix\n"
                "python app.py --model vaegan=runs/mix/vaegan.safetensors"
            ),
        ),
    )
}
