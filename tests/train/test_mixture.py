import pytest
import torch

from gan_core import checkpoint
from gan_core.latent import LatentSpace, LatentSpaceConfig
from gan_core.mixer import FaceMixer
from train.mixture import fit_latent_space, fit_mixture, main


def planted(seed: int = 0) -> torch.Tensor:
    """300 points about (-3, 0, 0) and 700 about (3, 1, 0), narrow and wide."""
    rng = torch.Generator().manual_seed(seed)
    a = torch.tensor([-3.0, 0, 0]) + 0.2 * torch.randn(300, 3, generator=rng)
    b = torch.tensor([3.0, 1, 0]) + 0.8 * torch.randn(700, 3, generator=rng)
    return torch.cat([a, b])


@pytest.mark.parametrize("seed", range(4))
def test_two_planted_clusters_are_recovered(seed):
    weights, means, variances = fit_mixture(planted(), 2, seed)
    order = weights.argsort()
    assert weights[order].tolist() == pytest.approx([0.3, 0.7], abs=0.01)
    assert means[order].flatten().tolist() == pytest.approx([-3, 0, 0, 3, 1, 0], abs=0.1)
    assert variances.sqrt()[order].flatten().tolist() == pytest.approx([0.2] * 3 + [0.8] * 3, abs=0.05)


def test_what_is_sampled_is_like_what_was_fitted():
    turned = planted() @ torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    samples = fit_latent_space(turned, clusters=2).sample(2000, seed=0)
    assert torch.allclose(samples.mean(dim=0), turned.mean(dim=0), atol=0.2)
    assert torch.allclose(torch.cov(samples.T), torch.cov(turned.T), atol=0.5)
    nearest = torch.cdist(samples, turned).min(dim=1).values
    assert (nearest < 1.5).all(), "nothing between the clusters"


def test_a_fit_is_the_same_each_time_and_leaves_torch_alone():
    before = torch.get_rng_state()
    a, b = (fit_latent_space(planted(), clusters=3).state_dict() for _ in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(torch.get_rng_state(), before)


def test_few_pictures_make_few_clusters():
    assert fit_latent_space(planted()[:60], clusters=16).config.clusters == 1
    space = fit_latent_space(torch.randn(4, 10), clusters=16)
    assert space.sample(3, seed=0).isfinite().all()
    assert space.coordinates(torch.randn(2, 10)).isfinite().all()


def test_units_that_say_nothing_do_no_harm():
    points = torch.cat([planted(), torch.zeros(1000, 2)], dim=1)
    assert fit_latent_space(points).sample(10, seed=0).isfinite().all()


@pytest.mark.parametrize("latents", [torch.zeros(1, 4), torch.full((9, 4), float("nan"))])
def test_what_cannot_be_fitted_is_refused(latents):
    with pytest.raises(ValueError, match="latents to fit"):
        fit_latent_space(latents)


def test_a_fit_survives_its_checkpoint(tmp_path):
    space = fit_latent_space(planted(), clusters=2)
    checkpoint.save(tmp_path / "x.safetensors", "vaegan", {"latents": space})
    loaded = checkpoint.load(tmp_path / "x.safetensors").build("latents", LatentSpace, LatentSpaceConfig)
    for key, value in space.state_dict().items():
        assert torch.allclose(loaded.state_dict()[key], value, rtol=1e-3, atol=1e-3), key


def test_directions_get_their_names(mixer_folder, tmp_path):
    file = tmp_path / "vaegan.safetensors"
    file.write_bytes((mixer_folder / "vaegan.safetensors").read_bytes())
    main([str(file), "Hair", "Smile"])
    assert FaceMixer.from_checkpoint(file).direction_names == ("Hair", "Smile")


def test_directions_of_what_is_no_vae_gan_are_not_named(tmp_path):
    with pytest.raises(SystemExit, match="no checkpoint at"):
        main([str(tmp_path / "vaegan.safetensors"), "Hair"])
