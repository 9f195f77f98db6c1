"""What tests of training share: photos and class maps in Pascal VOC's layout, drawn on the spot; refused options."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gan_core.files import write
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import VOC
from gan_core.segmentation import SegmentationConfig
from train.run import RunFolder

THINGS = {8: (200, 120, 40), 12: (40, 90, 200), 15: (230, 40, 120)}  # class -> its colour in the photos


def draw_scene(seed: int, size: tuple[int, int] = (60, 48)) -> tuple[Image.Image, Image.Image]:
    """A photo of one or two things on a gray ground, and its palette PNG, where a void border goes around each."""
    rng = np.random.default_rng(seed)
    photo, labels = Image.new("RGB", size, (120, 130, 120)), Image.new("L", size, 0)
    for number in rng.choice(list(THINGS), rng.integers(1, 3), replace=False).tolist():
        x, y = rng.uniform(0, 0.5, 2) * size
        box = [x, y, x + 0.4 * size[0], y + 0.45 * size[1]]
        ImageDraw.Draw(photo).ellipse(box, fill=THINGS[number])
        ImageDraw.Draw(labels).ellipse(box, fill=number, outline=255, width=2)
    noise = rng.normal(0, 6, (size[1], size[0], 3))
    photo = Image.fromarray((np.asarray(photo) + noise).clip(0, 255).astype(np.uint8))
    return photo, VOC.to_indexed(np.asarray(labels))


@pytest.fixture(scope="session")
def scene():
    """`draw_scene`, a photo and its palette PNG for each seed."""
    return draw_scene


@pytest.fixture
def devkit(tmp_path):
    """VOCdevkit with 3 training pictures, 2 more in trainaug, which holds one of val's 2 by mistake."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for i in range(7):
        photo, labels = draw_scene(i)
        photo.save(root / "JPEGImages" / f"2007_{i}.jpg", quality=95)
        labels.save(root / ("SegmentationClassAug" if i == 4 else "SegmentationClass") / f"2007_{i}.png")
    for name, numbers in {"train": (0, 1, 2), "val": (5, 6), "trainaug": (0, 1, 2, 3, 4, 5)}.items():
        lines = "".join(f"2007_{i}\n" for i in numbers)
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(lines)
    return root.parent


@pytest.fixture
def prepared(tmp_path):
    """What `train.prepare voc` writes: 4 training pictures, 2 held out."""
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        for part in ("photos", "labels"):
            (tmp_path / "voc" / split / part).mkdir(parents=True)
        for seed in seeds:
            photo, labels = draw_scene(seed)
            photo.save(tmp_path / "voc" / split / "photos" / f"{seed}.jpg", quality=95)
            labels.save(tmp_path / "voc" / split / "labels" / f"{seed}.png")
    return tmp_path / "voc"


@pytest.fixture
def class_config() -> SegmentationConfig:
    """A tiny generator with all that the best one has."""
    unet = MaxPoolUNetConfig(12, len(VOC), widths=(8, 16), residual=1, context=True, dropout=0.1)
    return SegmentationConfig(unet, paints="classes", block=2, size=32, square=False)


@pytest.fixture
def picture_config() -> SegmentationConfig:
    """A tiny generator of the published kind."""
    return SegmentationConfig(MaxPoolUNetConfig(widths=(8, 16, 16)), size=32)


@pytest.fixture
def quick_curves(monkeypatch):
    """Curves that show nothing, for tests of other things: to plot them takes longer than all steps of a tiny run."""
    monkeypatch.setattr(RunFolder, "plot_losses", lambda run: write(run.path / "losses.png", b"curves"))


@pytest.fixture
def refused(command, tmp_path):
    """`refused(options, said)`: the module's train command ends with this error, and leaves no run folder."""

    def refused(options: tuple[str, ...], said: str) -> None:
        with pytest.raises(SystemExit) as error:
            command("--out", tmp_path / "run", *options)
        assert error.value.code == f"error: {said}"
        assert not (tmp_path / "run").exists()

    return refused


@pytest.fixture
def parquet(tmp_path, portrait):
    """A data set as the Hub gives it out: one image column and another, gray pictures among them."""
    import datasets

    def encode(picture: Image.Image) -> dict:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    pictures = [encode(portrait(seed, 40)) for seed in range(9)] + [encode(portrait(9, 40).convert("L"))]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    table = datasets.Dataset.from_dict({"image": pictures, "label": list(range(10))}, features=features)
    folder = tmp_path / "hub"
    folder.mkdir()
    table.to_parquet(folder / "train-00000-of-00001.parquet")
    return folder
