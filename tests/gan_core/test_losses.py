import pytest
import torch
from torch import nn

from gan_core.losses import (
    ADVERSARIAL,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_divergence,
    structural_similarity,
)


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, 1, 30, 30, generator=rng), torch.randn(2, 1, 30, 30, generator=rng)


def full(value: float) -> torch.Tensor:
    return torch.full((2, 1, 4, 4), value)


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_a_discriminator_that_is_right_loses_less(kind):
    right = discriminator_loss(full(1.0), full(-1.0) if kind != "least_squares" else full(0.0), kind)
    unsure = discriminator_loss(full(0.5), full(0.5), kind)
    wrong = discriminator_loss(full(-1.0), full(1.0), kind)
    assert right < unsure < wrong


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_a_generator_that_fools_loses_less(kind):
    assert generator_loss(full(1.0), kind) < generator_loss(full(0.0), kind) < generator_loss(full(-1.0), kind)


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_generator_and_discriminator_pull_in_opposite_directions(kind):
    logits = full(0.3).requires_grad_()
    (of_generator,) = torch.autograd.grad(generator_loss(logits, kind), logits)
    (of_discriminator,) = torch.autograd.grad(discriminator_loss(full(0.3), logits, kind), logits)
    assert (of_generator < 0).all()
    assert (of_discriminator > 0).all()


def test_bce_is_the_textbook_formula(logits):
    real, fake = logits
    bce = nn.BCEWithLogitsLoss()
    expected = 0.5 * (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake)))
    assert torch.allclose(discriminator_loss(real, fake, "bce"), expected)
    assert torch.allclose(generator_loss(fake, "bce"), bce(fake, torch.ones_like(fake)))


def test_bce_stays_finite_for_certain_answers():
    assert discriminator_loss(full(-1e4), full(1e4), "bce").isfinite()


def test_least_squares_by_hand():
    real, fake = torch.tensor([1.0, 0.5]), torch.tensor([0.0, 2.0])
    assert discriminator_loss(real, fake, "least_squares") == pytest.approx(0.5 * (0.25 / 2 + 4 / 2))
    assert generator_loss(fake, "least_squares") == pytest.approx((1 + 1) / 2)


def test_hinge_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])
    assert discriminator_loss(real, fake, "hinge") == pytest.approx(0.5 * (0.5 / 2 + 1.5 / 2))
    assert generator_loss(fake, "hinge") == pytest.approx(1.25)


def test_hinge_leaves_alone_what_is_right_by_a_margin():
    assert discriminator_loss(full(1.5), full(-1.5), "hinge") == 0


@pytest.mark.parametrize("kind", ["", "wgan", "BCE"])
def test_an_unknown_kind_names_the_known_ones(kind, logits):
    for loss in (lambda: generator_loss(logits[0], kind), lambda: discriminator_loss(*logits, kind)):
        with pytest.raises(ValueError, match="bce, least_squares, hinge"):
            loss()


def test_equal_features_match():
    features = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    assert feature_matching_loss(features, [f.clone() for f in features]) == 0


def test_each_layer_counts_alike_in_feature_matching():
    real = [torch.zeros(1, 1, 100, 100), torch.zeros(1, 1, 2, 2)]
    fake = [torch.full((1, 1, 100, 100), 1.0), torch.full((1, 1, 2, 2), -3.0)]
    assert feature_matching_loss(real, fake) == pytest.approx(2)


def test_feature_matching_moves_the_fake_only():
    real, fake = torch.randn(1, 4, 8, 8, requires_grad=True), torch.randn(1, 4, 8, 8, requires_grad=True)
    feature_matching_loss([real], [fake]).backward()
    assert real.grad is None
    assert fake.grad.any()


# --- VAE


def test_the_divergence_of_the_prior_from_itself_is_zero():
    assert torch.equal(kl_divergence(torch.zeros(3, 5), torch.zeros(3, 5)), torch.zeros(5))


def test_the_divergence_is_that_of_the_textbook():
    mean, log_variance = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    assert torch.allclose(kl_divergence(mean, log_variance), expected.mean(dim=0), atol=1e-5)
    assert (kl_divergence(mean, log_variance) > 0).all()


def test_similarity_is_one_for_equal_pictures_and_falls_with_noise_and_blur():
    picture = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    blurred = torch.nn.functional.avg_pool2d(picture, 5, 1, 2)
    assert structural_similarity(picture, picture) == pytest.approx(1)
    slightly, strongly = (structural_similarity(picture, picture.lerp(noise, share)) for share in (0.2, 0.8))
    assert 1 > slightly > strongly
    assert structural_similarity(picture, blurred) < 0.5
