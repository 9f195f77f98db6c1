import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import FaceMixer, Pix2PixPredictor, checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.lessons import (
    TWIN_SIDE,
    draw_bars,
    draw_codes,
    kl_per_unit,
    load_twin,
    noisy_answers,
    plane,
    predict_through,
    receptive_field,
    skip_levels,
    spread,
)
from gan_core.patchgan import PatchDiscriminator, PatchGANConfig
from gan_core.unet import UNetConfig, UNetGenerator
from gan_core.vae_gan import VAE, VAEConfig


@pytest.fixture
def predictor(noisy_generator, discriminator, task):
    return Pix2PixPredictor(noisy_generator, task, discriminator)


def distance(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


@pytest.mark.parametrize(
    ("config", "levels"),
    [
        (UNetConfig(), [1, 2, 3, 4, 5, 6, 7, 8]),
        (UNetConfig(depth=5, refine_channels=4), [0, 1, 2, 3, 4, 5]),
        (UNetConfig(depth=5, skips=False), [5]),
    ],
)
def test_levels_of_a_net(config, levels):
    assert skip_levels(config) == levels


def test_with_all_levels_open_it_is_the_net_itself(predictor, doodle):
    (picture,) = predict_through(predictor, doodle, [skip_levels(predictor.generator.config)])
    assert distance(picture, predictor.predict(doodle)) < 0.1


def test_with_all_levels_cut_no_drawing_matters(predictor, doodle):
    (one,) = predict_through(predictor, doodle, [[]])
    (other,) = predict_through(predictor, Image.new("L", (256, 256), "white"), [[]])
    assert distance(one, other) == 0


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_each_picture_has_its_own_cuts(predictor, doodle, fill):
    levels = skip_levels(predictor.generator.config)
    whole, cut = predict_through(predictor, doodle, [levels, levels[2:]], fill)
    assert distance(whole, cut) > 0.5
    assert distance(cut, *predict_through(predictor, doodle, [levels[2:]], fill)) < 0.1


def test_what_cannot_be_cut_is_refused(predictor, task, doodle):
    with pytest.raises(ValueError, match="fill is 'noise'"):
        predict_through(predictor, doodle, [[]], "noise")
    plain = Pix2PixPredictor(UNetGenerator(UNetConfig(base_channels=2, depth=5, skips=False)), task)
    with pytest.raises(ValueError, match="without skips"):
        predict_through(plain, doodle, [[]])


@pytest.mark.parametrize(("halvings", "field"), [(1, (16, 2, -5)), (2, (34, 4, -11)), (3, (70, 8, -23))])
def test_a_logit_sees_its_receptive_field_and_nothing_else(halvings, field):
    config = PatchGANConfig(base_channels=2, halvings=halvings, norm="spectral")  # no norm over the picture
    assert receptive_field(config) == field
    size, stride, start = field
    picture = torch.rand(1, 3, 128, 128, requires_grad=True)
    PatchDiscriminator(config)(picture, picture)[0, 0, 4, 7].backward()
    seen = picture.grad.abs().sum(dim=(0, 1)).nonzero()  # (pixels, 2)
    for place, cell in zip(seen.T, (4, 7)):
        assert place.min() == max(0, start + cell * stride)
        assert place.max() == start + cell * stride + size - 1


def test_noise_repeats_with_its_seed_and_none_is_none(predictor, doodle):
    one, again, other = (noisy_answers(predictor, doodle, 2, seed) for seed in (1, 1, 2))
    assert distance(one[0], again[0]) == distance(one[1], again[1]) == 0
    assert distance(one[0], one[1]) > 0 and distance(one[0], other[0]) > 0
    calm = noisy_answers(predictor, doodle, 2, 1, dropout=0)
    assert spread(calm).max() == 0
    assert distance(calm[0], predictor.predict(doodle)) < 0.1
    assert spread(noisy_answers(predictor, doodle, 2, 1, dropout=0, pixels=True)).mean() > 0.1


def test_the_predictor_itself_stays_as_it_was(predictor, doodle):
    before = predictor.predict(doodle)
    noisy_answers(predictor, doodle, 2, 1, dropout=0.9, pixels=True)
    assert distance(before, predictor.predict(doodle)) == 0
    assert {module.p for module in predictor.noisy_generator.modules() if isinstance(module, torch.nn.Dropout)} == {0.5}


def test_spread_is_the_standard_deviation():
    pictures = [Image.new("RGB", (4, 4), (0, 0, 0)), Image.new("RGB", (4, 4), (20, 0, 40))]
    assert np.allclose(spread(pictures), (10 + 0 + 20) / 3)


def test_the_plane_begins_at_the_top_left():
    points = plane(3, 5)
    assert points.shape == (25, 2)
    assert np.allclose(points[[0, 4, 12, 24]], [(-2.4, 2.4), (2.4, 2.4), (0, 0), (2.4, -2.4)])


def test_a_code_is_drawn_where_the_plane_has_it():
    picture = np.asarray(draw_codes(np.array([[2.4, 2.4]]), 3, 200), int)
    blue = np.argwhere((picture[..., 2] > 200) & (picture[..., 0] < 120))
    assert np.allclose(blue.mean(axis=0), (20, 180), atol=1.5)


def test_bars_are_as_tall_as_their_values():
    picture = np.asarray(draw_bars(np.array([4.0, 2.0, 0.0]), 300, 112), int)
    tall, half, none = ((picture[:, x, 0] < 200).sum() for x in (50, 150, 250))
    assert 98 <= tall <= 102 and 48 <= half <= 52 and none <= 1


def test_a_unit_that_says_nothing_has_no_kl(portrait):
    vae = VAE(VAEConfig(size=32, latent=3, widths=(4, 4, 4, 4))).eval()
    for head in (vae.encoder.mean, vae.encoder.log_variance):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    vae.encoder.mean.bias.data[1] = 2.0
    units = kl_per_unit(FaceMixer(vae), [portrait(seed, 32) for seed in range(2)])
    assert np.allclose(units, [0, 2, 0], atol=1e-5)  # mean² / 2


def test_twins_come_back_from_their_files(tmp_path, building):
    facts = {"figures": {"l1": 0.1}, "images": 7}
    generator = UNetGenerator(UNetConfig(base_channels=2, depth=5, skips=False))
    checkpoint.save(tmp_path / "a.safetensors", "facades", {"generator": generator}, facts)
    twin = load_twin(tmp_path / "a.safetensors")
    assert twin.model.predict(building(1)[0]).size == (TWIN_SIDE, TWIN_SIDE)
    assert (twin.figures, twin.images, twin.codes) == ({"l1": 0.1}, 7, None)

    vae = VAE(VAEConfig(size=32, latent=2, widths=(4, 4, 4, 4)))
    checkpoint.save(tmp_path / "b.safetensors", "vaegan", {"vae": vae}, facts | {"codes": [[1, 2], [3, 4]]})
    twin = load_twin(tmp_path / "b.safetensors")
    assert twin.codes.tolist() == [[1, 2], [3, 4]]
    assert len(twin.model.decode(twin.codes)) == 2

    checkpoint.save(tmp_path / "c.safetensors", "vaegan", {"vae": vae}, {})
    with pytest.raises(CheckpointError, match="python -m train"):
        load_twin(tmp_path / "c.safetensors")
