from itertools import pairwise

import pytest
import torch

from gan_core.vae_gan import VAE, Discriminator, DiscriminatorConfig, VAEConfig, draw_latents

BEST = VAEConfig(residual=1, upsampling="mixed", refine_channels=16)
TINY = VAEConfig(latent=8, widths=(4, 4, 8, 8, 8))
TINY_BEST = VAEConfig(latent=8, widths=(4, 4, 8, 8, 8), residual=1, upsampling="mixed", refine_channels=4)
PATCH = DiscriminatorConfig(trunk="patch", widths=(4, 8, 8, 8))


def count(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_published_nets_have_the_published_shapes():
    vae, seen = VAE(VAEConfig()), []
    for block in [*vae.encoder.blocks, *vae.decoder.ups, vae.decoder.paint]:
        block.register_forward_hook(lambda _, __, y: seen.append(tuple(y.shape[1:])))
    mean, log_variance = vae.encoder(torch.rand(2, 3, 96, 96))
    assert mean.shape == log_variance.shape == (2, 256)
    assert vae.decoder(mean).shape == (2, 3, 96, 96)
    down = [(32, 48, 48), (64, 24, 24), (128, 12, 12), (256, 6, 6), (512, 3, 3)]
    up = [(256, 6, 6), (128, 12, 12), (64, 24, 24), (32, 48, 48), (3, 96, 96)]
    assert seen == down + up
    assert vae.encoder.mean.weight.shape == (256, 4608)
    assert vae.decoder.unfold.weight.shape == (4608, 256)


def test_the_published_nets_have_the_parameters_one_counts_by_hand():
    vae = VAE(VAEConfig())
    widths = [3, 32, 64, 128, 256, 512]
    convolutions = sum(16 * a * b for a, b in pairwise(widths))
    norms = 2 * sum(widths[1:])
    assert count(vae.encoder) == convolutions + norms + 2 * (4608 * 256 + 256)
    assert count(vae.decoder) == convolutions + 2 * sum(widths[1:-1]) + 3 + 4608 * 256 + 4608


def test_the_published_discriminator_is_resnet_50_and_answers_three_by_three():
    discriminator = Discriminator(DiscriminatorConfig()).eval()
    assert count(discriminator.stages) == 23_508_032  # of ResNet-50, without its classifier
    assert count(discriminator.head) == 2048 + 1
    with torch.no_grad():
        features = discriminator.features(torch.rand(1, 3, 96, 96))
    sides = [(256, 24), (512, 12), (1024, 6), (2048, 3), (1, 3)]
    assert [tuple(x.shape) for x in features] == [(1, channels, side, side) for channels, side in sides]


@pytest.mark.parametrize("config", [TINY, TINY_BEST, VAEConfig(size=64, latent=4, widths=(4, 8, 8))])
def test_pictures_become_latents_and_pictures_of_the_same_size(config):
    vae = VAE(config).eval()
    pictures = torch.rand(2, 3, config.size, config.size)
    assert vae(pictures).shape == pictures.shape
    decoded = vae.decoder(100 * torch.randn(2, config.latent))
    assert decoded.dtype == torch.float32 and decoded.min() >= 0 and decoded.max() <= 1


@pytest.mark.parametrize("config", [TINY, TINY_BEST])
def test_every_parameter_of_the_vae_gets_a_gradient(config, lively):
    vae = lively(VAE(config))
    mean, log_variance = vae.encoder(torch.rand(4, 3, 96, 96))
    vae.decoder(draw_latents(mean, log_variance)).square().mean().backward()
    assert [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("config", [PATCH, DiscriminatorConfig()])
def test_every_parameter_of_the_discriminator_gets_a_gradient(config):
    discriminator = Discriminator(config)
    discriminator(torch.rand(2, 3, 96, 96)).square().mean().backward()
    assert [name for name, p in discriminator.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_light_discriminator_is_bounded():
    """Spectral normalisation: hardly any two pictures can be told apart by more than their distance, layer by layer."""
    discriminator = Discriminator(PATCH)
    for _ in range(50):
        discriminator(torch.rand(2, 3, 96, 96))  # each pass in training mode is a step of the power iteration
    for stage in discriminator.eval().stages:
        matrix = stage[0].weight.detach().flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2) == pytest.approx(1, abs=0.05)


def test_latents_are_drawn_around_their_mean():
    torch.manual_seed(0)
    mean, log_variance = torch.tensor([[2.0, -1.0]]).expand(20_000, 2), torch.tensor([[0.0, -4.0]]).expand(20_000, 2)
    latents = draw_latents(mean, log_variance)
    assert latents.mean(dim=0).tolist() == pytest.approx([2.0, -1.0], abs=0.03)
    assert latents.std(dim=0).tolist() == pytest.approx([1.0, 0.1353], abs=0.02)


def test_a_log_variance_is_never_too_large_for_its_exponential(lively):
    vae = lively(VAE(TINY))
    torch.nn.init.constant_(vae.encoder.log_variance.bias, 1e4)
    assert vae.encoder(torch.rand(2, 3, 96, 96))[1].exp().isfinite().all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: VAEConfig(size=100), "size is 100; with 5 halvings it must be a multiple of 32"),
        (lambda: VAEConfig(upsampling="nearest"), "must be transposed or mixed"),
        (lambda: DiscriminatorConfig(trunk="vgg"), "must be resnet50 or patch"),
    ],
)
def test_a_config_that_cannot_be_built_says_why(make, message):
    with pytest.raises(ValueError, match=message):
        make()
