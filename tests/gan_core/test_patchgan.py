from dataclasses import replace

import pytest
import torch
from torch import nn

from gan_core.patchgan import PatchDiscriminator, PatchGANConfig

NORMS = ["instance", "batch", "spectral"]


def small(**changes) -> PatchGANConfig:
    return replace(PatchGANConfig(base_channels=4), **changes)


def pair(config: PatchGANConfig, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, config.source_channels, 256, 256), torch.randn(n, config.target_channels, 256, 256)


def test_the_published_layers():
    """C64-C128-C256-C512, no norm after the first, and one more convolution (appendix 6.1.2)."""
    net = PatchDiscriminator(PatchGANConfig())
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in layers] == [(6, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    assert [m.stride[0] for m in layers] == [2, 2, 2, 1, 1]
    assert [any(isinstance(m, nn.GroupNorm) for m in block) for block in net.blocks] == [False, True, True, True]
    assert sum(parameter.numel() for parameter in net.parameters()) == 2_768_705
    assert layers[3].weight.detach().std() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("norm", NORMS)
def test_256_pixels_make_30_by_30_logits(norm):
    config = small(norm=norm, source_channels=1)
    assert PatchDiscriminator(config)(*pair(config)).shape == (2, 1, 30, 30)


def test_one_logit_sees_70_by_70_pixels(lively):
    """Without norms, which look at the whole picture, the gradient of a logit shows what it sees."""
    config = small()
    net = lively(PatchDiscriminator(config)).eval()
    for block in net.blocks:
        for i, module in enumerate(block):
            if isinstance(module, nn.GroupNorm):
                block[i] = nn.Identity()
    source, target = (tensor.requires_grad_() for tensor in pair(config, 1))
    net(source, target)[0, 0, 15, 15].backward()
    for picture in (source, target):
        seen = picture.grad[0].abs().sum(0) > 0
        rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
        assert (len(rows), len(columns)) == (70, 70)
        assert (rows[-1] - rows[0], columns[-1] - columns[0]) == (69, 69)


@pytest.mark.parametrize("norm", NORMS)
def test_every_parameter_gets_a_gradient(norm):
    torch.manual_seed(0)
    config = small(norm=norm)
    net = PatchDiscriminator(config).train()
    net(*pair(config)).square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_answer_depends_on_source_and_target(discriminator, patchgan_config):
    source, target = pair(patchgan_config, 1)
    with torch.inference_mode():
        logits = discriminator(source, target)
        assert not torch.allclose(discriminator(-source, target), logits)
        assert not torch.allclose(discriminator(source, -target), logits)


def test_the_features_end_with_the_logits(discriminator, patchgan_config):
    source, target = pair(patchgan_config, 1)
    with torch.inference_mode():
        features = discriminator.features(source, target)
        assert torch.equal(features[-1], discriminator(source, target))
    assert [tuple(f.shape[1:]) for f in features] == [
        (4, 128, 128),
        (8, 64, 64),
        (16, 32, 32),
        (32, 31, 31),
        (1, 30, 30),
    ]


def test_spectral_norm_bounds_every_convolution():
    config = small(norm="spectral")
    net = PatchDiscriminator(config).train()
    with torch.no_grad():
        for _ in range(30):  # each pass is one step of the power iteration
            net(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    norms = [
        torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2) for m in net.modules() if isinstance(m, nn.Conv2d)
    ]
    assert len(norms) == 5
    assert all(norm == pytest.approx(1, abs=0.05) for norm in norms)


@pytest.mark.parametrize("norm", ["", "layer"])
def test_an_unknown_norm_is_refused(norm):
    with pytest.raises(ValueError, match="norm is"):
        PatchGANConfig(norm=norm)
