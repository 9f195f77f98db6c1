import numpy as np
import pytest
import torch

from gan_core.latent import LatentSpace, LatentSpaceConfig, interpolate, loop, mix, principal_directions, truncate

RNG = torch.Generator().manual_seed(0)
LATENTS = torch.randn(4, 6, generator=RNG)


# --- mix


def test_one_weight_alone_gives_its_latent_back():
    for i, weights in enumerate(torch.eye(4) * 7):
        assert torch.allclose(mix(LATENTS, weights), LATENTS[i])


@pytest.mark.parametrize("scale", [1e-30, 0.1, 3.0, 1e30])
def test_only_the_proportions_of_the_weights_count(scale):
    weights = torch.tensor([0.1, 0.4, 0.2, 0.3])
    assert torch.allclose(mix(LATENTS, weights * scale), weights @ LATENTS, atol=1e-6)


def test_sliders_at_zero_give_equal_shares():
    assert torch.allclose(mix(LATENTS, torch.zeros(4)), LATENTS.mean(dim=0), atol=1e-6)


def test_many_blends_are_made_at_once():
    weights = torch.rand(5, 4, generator=RNG)
    blends = mix(LATENTS, weights)
    assert torch.allclose(blends, torch.stack([mix(LATENTS, row) for row in weights]), atol=1e-6)


@pytest.mark.parametrize("weights", [[1, -0.1, 0, 0], [1, float("nan"), 0, 0], [1, float("inf"), 0, 0]])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="each must be a number from 0 up"):
        mix(LATENTS, torch.tensor(weights))


def test_each_latent_needs_a_weight():
    with pytest.raises(ValueError, match=r"4 latents.*give one each"):
        mix(LATENTS, torch.ones(3))


def test_a_mix_lies_as_far_out_as_what_is_mixed():
    mean = torch.full((6,), 0.5)
    weights = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.1, 0.4, 0.2, 0.3]])
    mixed, straight = mix(LATENTS, weights, mean) - mean, mix(LATENTS, weights) - mean
    assert torch.allclose(mixed.norm(dim=1), weights @ (LATENTS - mean).norm(dim=1), rtol=1e-4)
    assert torch.allclose(torch.cosine_similarity(mixed, straight), torch.ones(3), atol=1e-5)


def test_a_mix_of_the_same_face_is_that_face():
    same = LATENTS[:1].expand(3, 6)
    assert torch.allclose(mix(same, torch.tensor([0.2, 0.5, 0.3]), torch.zeros(6)), LATENTS[0], atol=1e-5)


def test_opposite_latents_mix_to_something_finite():
    opposite = torch.stack([LATENTS[0], -LATENTS[0]])
    mixed = mix(opposite, torch.tensor([1.0, 1.0]), torch.zeros(6))
    assert mixed.isfinite().all() and mixed.norm() <= LATENTS[0].norm()


# --- interpolate


@pytest.mark.parametrize("spherical", [True, False])
def test_a_way_begins_and_ends_at_its_ends(spherical):
    way = interpolate(LATENTS[0], LATENTS[1], torch.linspace(0, 1, 7), spherical)
    assert torch.allclose(way[[0, -1]], LATENTS[:2], atol=1e-5)


def test_a_spherical_way_keeps_the_length_and_a_straight_one_cuts_it_short():
    a, b = torch.zeros(6), torch.zeros(6)
    a[0], b[1] = 3.0, 3.0
    shares = torch.linspace(0, 1, 9)
    assert interpolate(a, b, shares).norm(dim=1).tolist() == pytest.approx([3.0] * 9, abs=1e-4)
    assert interpolate(a, b, shares, spherical=False).norm(dim=1).min() == pytest.approx(3 / 2**0.5, abs=1e-4)


def test_a_spherical_way_turns_evenly_and_its_length_changes_evenly():
    a, b = 2 * LATENTS[0], 0.5 * LATENTS[1]
    way = interpolate(a, b, torch.linspace(0, 1, 5))
    lengths = way.norm(dim=1)
    assert lengths.tolist() == pytest.approx(torch.linspace(a.norm(), b.norm(), 5).tolist(), rel=1e-4)
    unit = way / lengths[:, None]
    turns = (unit[1:] * unit[:-1]).sum(dim=1).arccos()
    assert turns.tolist() == pytest.approx([turns.mean().item()] * 4, rel=1e-3)


@pytest.mark.parametrize("factor", [1.0, 2.0, 0.0, -1.0])
def test_ends_without_one_circle_are_joined_by_a_straight_way(factor):
    way = interpolate(LATENTS[0], factor * LATENTS[0], torch.linspace(0, 1, 5))
    assert torch.allclose(way, torch.linspace(1, factor, 5)[:, None] * LATENTS[0], atol=1e-4)


# --- loop


def test_a_loop_visits_every_latent_and_closes_without_a_jump():
    film = loop(LATENTS, 40)
    assert film.shape == (40, 6)
    assert torch.allclose(film[::10], LATENTS, atol=1e-5)
    steps = (film.roll(-1, dims=0) - film).norm(dim=1)
    assert steps.min() > 0
    assert steps[-1] < 0.5 * steps.max()  # near a face the walk is slow


@pytest.mark.parametrize(("count", "steps"), [(3, 7), (4, 3), (1, 5), (6, 120), (7, 7)])
def test_a_loop_has_any_number_of_steps(count, steps):
    latents = torch.randn(count, 6, generator=torch.Generator().manual_seed(1))
    film = loop(latents, steps)
    assert film.shape == (steps, 6) and film.isfinite().all()
    assert torch.allclose(film[0], latents[0], atol=1e-5)


# --- truncate


def test_truncation_pulls_towards_the_mean():
    mean = torch.ones(6)
    assert torch.equal(truncate(LATENTS, mean, 0.0), mean.expand(4, 6))
    assert torch.allclose(truncate(LATENTS, mean, 1.0), LATENTS)
    assert torch.allclose((truncate(LATENTS, mean, 0.5) - mean).norm(), (LATENTS - mean).norm() / 2)


@pytest.mark.parametrize("truncation", [-0.1, 1.5, float("nan")])
def test_a_truncation_out_of_range_is_refused(truncation):
    with pytest.raises(ValueError, match="from 0, the mean face, to 1"):
        truncate(LATENTS, torch.zeros(6), truncation)


# --- principal directions


def test_a_planted_direction_is_recovered():
    rng = torch.Generator().manual_seed(1)
    planted = torch.nn.functional.normalize(torch.randn(6, generator=rng), dim=0)
    points = 0.3 * torch.randn(3000, 6, generator=rng) + 4 * torch.randn(3000, 1, generator=rng) * planted + 5
    mean, directions, deviations = principal_directions(points)
    assert abs(directions[0] @ planted) > 0.999
    assert deviations[0] == pytest.approx(4.01, rel=0.05)
    assert deviations[1:].tolist() == pytest.approx([0.3] * 5, rel=0.1)
    assert torch.allclose(mean, points.mean(dim=0), atol=1e-4)
    assert torch.allclose(directions @ directions.T, torch.eye(6), atol=1e-5)
    assert torch.equal(deviations, deviations.sort(descending=True).values)
    assert (directions.gather(1, directions.abs().argmax(dim=1, keepdim=True)) > 0).all(), "a sign each time"


def test_the_deviations_are_those_of_numpy():
    points = torch.randn(50, 6, generator=RNG)
    expected = np.sqrt(np.linalg.eigvalsh(np.cov(points.numpy().T)))[::-1]
    assert principal_directions(points)[2].tolist() == pytest.approx(expected.tolist(), rel=1e-4)


# --- the latent space


@pytest.fixture
def space() -> LatentSpace:
    """Two clusters of unequal weight on a turned and stretched frame."""
    rng = torch.Generator().manual_seed(2)
    space = LatentSpace(LatentSpaceConfig(6, 2))
    space.mean = torch.randn(6, generator=rng)
    space.directions = torch.linalg.qr(torch.randn(6, 6, generator=rng))[0]
    space.deviations = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    space.cluster_weights = torch.tensor([0.25, 0.75])
    space.cluster_means = torch.stack([torch.full((6,), -2.0), torch.full((6,), 2.0)])
    space.cluster_deviations = torch.full((2, 6), 0.1)
    return space


def test_coordinates_and_back(space):
    assert torch.allclose(space.latents(space.coordinates(LATENTS)), LATENTS, atol=1e-4)
    along_the_first = space.mean + 2 * space.deviations[0] * space.directions[0]
    assert torch.allclose(space.coordinates(along_the_first), torch.tensor([2.0, 0, 0, 0, 0, 0]), atol=1e-4)


def test_samples_come_from_the_clusters_in_their_proportion(space):
    coordinates = space.coordinates(space.sample(800, seed=0))
    right = coordinates.mean(dim=1) > 0
    assert right.float().mean() == pytest.approx(0.75, abs=0.05)
    assert coordinates[right].mean(dim=0).tolist() == pytest.approx([2.0] * 6, abs=0.05)
    assert coordinates[~right].std(dim=0).tolist() == pytest.approx([0.1] * 6, abs=0.03)


def test_sampling_is_decided_by_the_seed_and_leaves_torch_alone(space):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b = space.sample(5, seed=3), space.sample(3, seed=3)
    assert torch.equal(a[:3], b)
    assert not torch.equal(a, space.sample(5, seed=4))
    assert torch.equal(torch.get_rng_state(), before)
    assert space.sample(0, seed=0).shape == (0, 6)


def test_without_variety_there_is_but_the_mean(space):
    assert torch.allclose(space.sample(3, seed=0, truncation=0.0), space.mean.expand(3, 6))


def test_a_fresh_space_is_the_prior():
    samples = LatentSpace(LatentSpaceConfig(6, 3)).sample(4000, seed=0)
    assert samples.mean().item() == pytest.approx(0, abs=0.03)
    assert samples.std().item() == pytest.approx(1, abs=0.03)
