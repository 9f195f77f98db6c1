import copy

import pytest
import torch
from torch import nn

from gan_core.doubling import DoubledConv
from gan_core.folding import FEW, fold_norms, name_instance_norms, shuffle_pixels
from gan_core.patchgan import PatchDiscriminator, PatchGANConfig
from gan_core.unet import InstanceNorm, UNetConfig, UNetGenerator
from gan_core.vae_gan import Decoder, VAEConfig


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(base_channels=4, norm="batch"),
        UNetConfig(base_channels=4, norm="batch", upsampling="mixed", refine_channels=4),
        UNetConfig(base_channels=4, norm="instance"),
    ],
    ids=["transposed", "mixed", "instance"],
)
def test_folded_norms_change_no_answer(config, lively):
    net = lively(UNetGenerator(config)).eval()
    source = torch.randn(2, 3, 256, 256)
    with torch.inference_mode():
        expected = net(source)
        assert torch.allclose(fold_norms(net)(source), expected, atol=1e-4)
        assert torch.equal(net(source), expected), "the network itself must not change"
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fold_norms(net).modules())


def test_folded_norms_change_no_answer_of_a_net_with_noise(noisy_generator):
    source = torch.randn(2, 1, 256, 256)
    with torch.inference_mode():
        assert torch.allclose(fold_norms(noisy_generator)(source), noisy_generator(source), atol=1e-4)


def test_folded_norms_change_no_answer_of_a_discriminator(lively):
    net = lively(PatchDiscriminator(PatchGANConfig(base_channels=4, norm="batch"))).eval()
    pair = torch.randn(1, 3, 256, 256), torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        assert torch.allclose(fold_norms(net)(*pair), net(*pair), rtol=1e-4, atol=1e-3)


def test_instance_norms_can_be_torchs_own(lively):
    network = lively(UNetGenerator(UNetConfig(in_channels=1, base_channels=4))).eval()
    named = name_instance_norms(copy.deepcopy(network))
    kinds = [type(module) for module in named.modules()]
    assert InstanceNorm not in kinds and kinds.count(nn.InstanceNorm2d) == 13
    source = torch.rand(1, 1, 256, 256)
    with torch.no_grad():
        assert torch.allclose(named(source), network(source), atol=1e-4)


PAINTERS = {
    "transposed": (UNetConfig(base_channels=8, norm="batch"), nn.ConvTranspose2d),
    "refined": (UNetConfig(base_channels=8, norm="batch", upsampling="mixed", refine_channels=8), nn.Conv2d),
}


@pytest.mark.parametrize("config, kind", PAINTERS.values(), ids=PAINTERS)
def test_four_pixels_at_once_are_the_same_picture(config, kind, lively):
    network = lively(UNetGenerator(config)).eval()
    quick = shuffle_pixels(copy.deepcopy(network))
    source = torch.randn(2, 3, 512, 256)
    with torch.inference_mode():
        assert torch.allclose(quick(source), network(source), atol=1e-5)
    painters = [module for module in network.modules() if type(module) is kind and module.out_channels == 3]
    assert len(painters) == sum(isinstance(module, nn.PixelShuffle) for module in quick.modules()) == 1
    assert not any(type(module) is kind and module.out_channels == 3 for module in quick.modules())


@pytest.mark.parametrize("upsampling, refine", [("transposed", 0), ("mixed", 8)])
def test_four_pixels_at_once_are_the_same_face(upsampling, refine, lively):
    config = VAEConfig(latent=8, widths=(8, 8, 16, 16, 16), upsampling=upsampling, refine_channels=refine)
    network = lively(Decoder(config)).eval()
    latents = torch.randn(3, 8)
    with torch.inference_mode():
        expected = network(latents)
        assert torch.allclose(shuffle_pixels(network)(latents), expected, atol=1e-5)
    assert any(isinstance(module, nn.PixelShuffle) for module in network.modules())


def test_nobodys_dice_are_thrown():
    """Another thread may be between its own, for the variants of a seed."""
    network = nn.Sequential(nn.Conv2d(8, 3, 3, padding=1))
    before = torch.random.get_rng_state()
    assert isinstance(shuffle_pixels(network)[0][1], nn.PixelShuffle)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_other_convolutions_are_left_alone():
    layers = [
        nn.Conv2d(3, FEW + 1, 3, padding=1),
        nn.Conv2d(FEW + 1, 3, 5, padding=2),
        nn.Conv2d(3, 3, 3, stride=2, padding=1),
        nn.Conv2d(3, 3, 3, padding=1, groups=3),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(3, 3, 3, stride=2),
        nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1, output_padding=1),
        DoubledConv(3, 3),
    ]
    assert list(shuffle_pixels(nn.Sequential(*layers))) == layers
