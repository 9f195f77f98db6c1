import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gan_core import checkpoint
from gan_core.image import open_picture, to_tensor
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import FACADES
from gan_core.unet import UNetGenerator
from train.evaluate import main
from train.judge import Judge, read_labels

# --- sketch2face


@pytest.fixture
def data(tmp_path, portrait):
    (tmp_path / "data" / "val").mkdir(parents=True)
    for seed in range(3):
        portrait(seed).save(tmp_path / "data" / "val" / f"{seed}.png")
    return tmp_path / "data"


@pytest.fixture
def file(tmp_path, generator):
    checkpoint.save(tmp_path / "sketch2face.safetensors", "sketch2face", {"generator": generator})
    return tmp_path / "sketch2face.safetensors"


def test_the_command_writes_figures_and_contact_sheets(tmp_path, data, file, doodle):
    (tmp_path / "drawings").mkdir()
    doodle.save(tmp_path / "drawings" / "one.png")
    out = tmp_path / "out"
    options = ["--checkpoint", file, "--data", data, "--out", out, "--drawings", tmp_path / "drawings"]
    main(["sketch2face", *map(str, options)])
    figures = json.loads((out / "metrics.json").read_text())
    assert figures.keys() == {
        *("pictures", "l1", "ssim", "sharpness_ratio", "sliced_wasserstein"),
        *("face_rate", "face_rate_real", "eye_rate", "eye_rate_real"),
        *("drawings", "face_rate_drawings", "eye_rate_drawings"),
    }
    assert figures["pictures"] == 3 and figures["drawings"] == 1
    assert 0 < figures["l1"] < 1
    assert open_picture(out / "contact_sheet.jpg").height == 3 * 256 + 2 * 2  # drawings, faces, photos
    assert open_picture(out / "drawings.jpg").height == 2 * 256 + 2


@pytest.mark.parametrize(
    "option, said",
    [
        (("--fid",), "--fid is for facades. Leave it out for sketch2face"),
        (("--test-time-augmentation",), "--test-time-augmentation is for segmentation"),
        (("--device", "cuda:99"), "--device cuda:99 cannot be used here: .*such as cpu"),
    ],
)
def test_what_would_be_ignored_or_cannot_be_done_is_said(tmp_path, data, file, option, said):
    with pytest.raises(SystemExit, match=f"error: {said}"):
        main(["sketch2face", "--checkpoint", str(file), "--data", str(data), "--out", str(tmp_path / "out"), *option])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["checkpoint", "photos"])
def test_what_is_missing_is_named(tmp_path, data, file, missing):
    if missing == "checkpoint":
        file.unlink()
    else:
        data = tmp_path / "elsewhere"
    with pytest.raises(SystemExit, match=r"error: .*(no checkpoint|not a folder)"):
        main(["sketch2face", "--checkpoint", str(file), "--data", str(data), "--out", str(tmp_path / "out")])


# --- facades


@pytest.fixture
def facades(tmp_path, building, unet_config, lively) -> dict[str, str]:
    """The options of the command: three held-out pairs, a tiny generator and a tiny judge."""
    data = tmp_path / "facades"
    for seed in range(3):
        for half, picture in zip(("source", "target"), building(seed)):
            (data / "val" / half).mkdir(parents=True, exist_ok=True)
            picture.save(data / "val" / half / f"{seed}.png")
    generator = lively(UNetGenerator(replace(unet_config, in_channels=3)))
    judge = lively(Judge(MaxPoolUNetConfig(in_channels=12, out_channels=len(FACADES), widths=(4, 8))))
    checkpoint.save(tmp_path / "facades.safetensors", "facades", {"generator": generator})
    checkpoint.save(tmp_path / "judge.safetensors", "judge", {"judge": judge})
    files = {"checkpoint": tmp_path / "facades.safetensors", "judge": tmp_path / "judge.safetensors"}
    return {name: str(path) for name, path in {"data": data, "out": tmp_path / "out", **files}.items()}


def evaluate_facades(options: dict[str, str], *more: str) -> dict[str, float]:
    main(["facades", *(text for name, value in options.items() for text in (f"--{name}", value)), *more])
    with open(f"{options['out']}/metrics.json") as file:
        return json.load(file)


def test_facades_are_compared_with_the_photos_and_read_by_the_judge(facades):
    figures = evaluate_facades(facades)
    assert figures["pictures"] == 3
    assert figures.keys() == {
        *("pictures", "l1", "ssim", "sharpness_ratio", "sliced_wasserstein"),
        *("judge_accuracy", "judge_iou", "judge_accuracy_real", "judge_iou_real", "judge_accuracy_share"),
    }
    assert all(np.isfinite(value) for value in figures.values())
    assert 0 < figures["l1"] < 1
    assert figures["sliced_wasserstein"] > 1
    for name in ("judge_accuracy", "judge_iou"):
        assert 0 <= figures[name] <= 1 and 0 < figures[f"{name}_real"] <= 1
    sheet = open_picture(f"{facades['out']}/contact_sheet.jpg")
    assert sheet.size == (3 * 258 - 2, 3 * 258 - 2)  # maps, generated, photos
    shares = [FACADES.near_share(sheet.crop((0, y, sheet.width, y + 256))) for y in (0, 516)]
    assert shares[0] > 0.8 and shares[1] < 0.05


def test_a_generator_that_paints_the_photos_themselves_has_perfect_figures(facades, monkeypatch, building):
    monkeypatch.setattr("train.evaluate.predict_all", lambda predictor, sources: [building(i)[1] for i in range(3)])
    figures = evaluate_facades(facades)
    assert (figures["l1"], figures["sliced_wasserstein"], figures["judge_accuracy_share"]) == (0, 0, 1)
    assert figures["ssim"] == pytest.approx(1, abs=1e-3)
    assert figures["judge_iou"] == figures["judge_iou_real"]


def test_the_judge_sees_all_photos_as_it_saw_those_of_its_training(facades, monkeypatch, building):
    seen = []
    monkeypatch.setattr(
        "train.evaluate.read_labels", lambda judge, photos: seen.append(photos) or read_labels(judge, photos)
    )
    evaluate_facades(facades)
    assert [photos.shape for photos in seen] == [(3, 3, 256, 256)] * 2
    assert torch.allclose(seen[1], torch.cat([to_tensor(building(seed)[1]) for seed in range(3)]), atol=1e-6)
    assert seen[0].min() < -0.5 and not torch.allclose(*seen, atol=0.1)


def test_a_checkpoint_of_another_task_is_refused(facades, data, file):
    with pytest.raises(SystemExit, match=r"error: .*is a checkpoint for sketch2face, not facades"):
        evaluate_facades(facades | {"checkpoint": str(file)})
    with pytest.raises(SystemExit, match=r"error: .*is a checkpoint for facades, not sketch2face"):
        main(["sketch2face", "--checkpoint", facades["checkpoint"], "--data", str(data), "--out", facades["out"]])


@pytest.mark.parametrize(
    "broken, said", [("gone", "there is no checkpoint"), ("facades", "for facades, not for judge")]
)
def test_what_is_no_judge_is_named(facades, tmp_path, broken, said):
    with pytest.raises(SystemExit, match=f"error: .*{said}"):
        evaluate_facades(facades | {"judge": str(tmp_path / f"{broken}.safetensors")})


def test_pairs_that_were_not_prepared_name_the_command(facades, building):
    for half, picture in zip(("source", "target"), building(0, 128)):
        picture.save(f"{facades['data']}/val/{half}/0.png")
    with pytest.raises(SystemExit, match=r"error: .*not 256x256.*train\.prepare facades"):
        evaluate_facades(facades)


class Unreachable:
    """A metric of torchmetrics that finds no network, or no library for it."""

    error: Exception

    def __init__(self, **options):
        raise self.error


METRICS = {
    "fid": "torchmetrics.image.fid.FrechetInceptionDistance",
    "lpips": "torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity",
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("error", [OSError("no route to host"), ModuleNotFoundError("no torch-fidelity")])
def test_a_network_that_cannot_be_loaded_says_how_to_go_on(facades, monkeypatch, name, error):
    monkeypatch.setattr(METRICS[name], type("Unreachable", (Unreachable,), {"error": error}))
    with pytest.raises(SystemExit, match=rf"error: --{name} needs.*{error}.*torchmetrics\[image\].*leave out --{name}"):
        evaluate_facades(facades, f"--{name}")


class Counting:
    """A metric of torchmetrics that answers with the number of pictures it was shown, generated ones before the dot."""

    def __init__(self, **options):
        assert options["normalize"], "the pictures are in [0, 1]"
        self.shown = [0, 0]

    def update(self, *batches, real=None):
        for i, batch in enumerate(batches):
            assert 0 <= batch.min() < batch.max() <= 1
            self.shown[i if real is None else int(real)] += len(batch)

    def compute(self) -> float:
        return self.shown[0] + self.shown[1] / 10


@pytest.mark.parametrize("asked", [("fid",), ("lpips",), ("fid", "lpips")])
def test_network_distances_see_all_pictures_and_only_when_asked_for(facades, monkeypatch, asked):
    for path in METRICS.values():
        monkeypatch.setattr(path, Counting)
    figures = evaluate_facades(facades, *(f"--{name}" for name in asked))
    assert {name: figures.get(name) for name in METRICS} == {name: 3.3 if name in asked else None for name in METRICS}
