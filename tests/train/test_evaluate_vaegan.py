import json

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import checkpoint
from gan_core.image import open_picture
from gan_core.mixer import MAX_FACES
from gan_core.vae_gan import VAE, VAEConfig
from train import evaluate_vaegan
from train.evaluate import main
from train.evaluate_vaegan import reconstruction_sheet
from train.metrics import pairwise_distance
from train.mixture import fit_latent_space

CONFIG = VAEConfig(latent=10, widths=(4, 4, 8, 8, 8))


@pytest.fixture
def data(tmp_path, portrait):
    for split, seeds in (("train", range(6)), ("val", range(6, 10))):
        (tmp_path / "data" / split).mkdir(parents=True)
        for seed in seeds:
            portrait(seed, 96).save(tmp_path / "data" / split / f"{seed}.png")
    return tmp_path / "data"


@pytest.fixture
def file(tmp_path, lively):
    space = fit_latent_space(torch.randn(200, 10, generator=torch.Generator().manual_seed(0)))
    checkpoint.save(tmp_path / "vaegan.safetensors", "vaegan", {"vae": lively(VAE(CONFIG)), "latents": space})
    return tmp_path / "vaegan.safetensors"


def test_the_command_writes_figures_and_contact_sheets(tmp_path, data, file, monkeypatch):
    monkeypatch.setattr(evaluate_vaegan, "SAMPLES", 100)
    out = tmp_path / "out"
    main(["vaegan", "--checkpoint", str(file), "--data", str(data), "--out", str(out)])
    figures = json.loads((out / "metrics.json").read_text())
    assert (figures["pictures"], figures["samples"]) == (4, 100)
    assert figures.keys() >= {
        "l1",
        "ssim",
        "sharpness_ratio",
        "active_units",
        "sliced_wasserstein",
        "sliced_wasserstein_floor",
        "diversity",
    }
    assert figures["sliced_wasserstein_floor"] > 0 and 0 <= figures["active_units"] <= 10
    sizes = {
        name: open_picture(out / f"{name}.jpg").size for name in ("reconstructions", "samples", "blends", "directions")
    }
    sheet = (10 * 98 - 2, 10 * 98 - 2)
    assert sizes == {
        "reconstructions": (4 * 98 - 2, 2 * 98 - 2),
        "samples": sheet,
        "blends": sheet,
        "directions": (9 * 98 - 2, 8 * 98 - 2),
    }


def test_faces_without_a_training_set_are_enough(tmp_path, data, file, monkeypatch):
    monkeypatch.setattr(evaluate_vaegan, "SAMPLES", 100)
    (data / "train").rename(data / "elsewhere")
    main(["vaegan", "--checkpoint", str(file), "--data", str(data), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_of_too_many_held_out_faces_some_are_taken_evenly(tmp_path, data, file, monkeypatch):
    """As many as can be decoded at once: of faces 6 to 9 the first, one between and the last."""
    monkeypatch.setattr(evaluate_vaegan, "SAMPLES", 100)
    monkeypatch.setattr(evaluate_vaegan, "MAX_FACES", 3)
    shown = []
    monkeypatch.setattr(evaluate_vaegan, "compare", lambda decoded, real: shown.extend([decoded, real]) or {})
    main(["vaegan", "--checkpoint", str(file), "--data", str(data), "--out", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["pictures"] == 3
    decoded, real = shown
    assert len(decoded) == 3
    assert real == [open_picture(data / "val" / f"{i}.png") for i in (6, 7, 9)]


def test_no_more_held_out_faces_are_asked_for_than_can_be_decoded_at_once():
    assert evaluate_vaegan.MAX_FACES == MAX_FACES >= evaluate_vaegan.SAMPLES


@pytest.mark.parametrize("count, shown", [(5, 5), (12, 12), (20, 20), (47, 47), (60, 48)])
def test_each_reconstruction_stands_under_its_original(count, shown):
    real = [Image.new("RGB", (8, 8), (4 * i, 0, 0)) for i in range(count)]
    reconstructed = [Image.new("RGB", (8, 8), (4 * i, 255, 0)) for i in range(count)]
    sheet = np.asarray(reconstruction_sheet(real, reconstructed))[::10, ::10].astype(int)  # a pixel of each picture
    above, below = sheet[::2].reshape(-1, 3)[:shown], sheet[1::2].reshape(-1, 3)[:shown]
    assert sheet.shape[:2] == (2 * -(-shown // 12), min(12, shown))
    assert (above[:, 1] == 0).all() and (below[:, 1] == 255).all()
    assert (above[:, 0] == below[:, 0]).all() and (np.diff(above[:, 0]) > 0).all()


def test_a_checkpoint_of_another_task_is_refused(tmp_path, data, generator):
    checkpoint.save(tmp_path / "x.safetensors", "sketch2face", {"generator": generator})
    with pytest.raises(SystemExit, match=r"error: .*checkpoint for sketch2face, not for vaegan"):
        main(["vaegan", "--checkpoint", str(tmp_path / "x.safetensors"), "--data", str(data), "--out", str(tmp_path)])


def test_pictures_of_another_size_are_named_with_a_remedy(tmp_path, data, file):
    Image.new("RGB", (50, 60)).save(data / "val" / "odd.png")
    with pytest.raises(SystemExit, match=r"error: .*odd\.png is not 96x96.*prepare anime"):
        main(["vaegan", "--checkpoint", str(file), "--data", str(data), "--out", str(tmp_path)])


def test_distance_is_zero_for_equal_pictures_and_one_for_black_and_white(portrait):
    assert pairwise_distance([portrait(0, 32)] * 3) == 0
    assert pairwise_distance([Image.new("L", (8, 8), 0), Image.new("L", (8, 8), 255)]) == pytest.approx(1)
    varied, alike = [portrait(seed, 32) for seed in range(6)], [portrait(seed % 2, 32) for seed in range(6)]
    assert pairwise_distance(varied) > pairwise_distance(alike) > 0
