from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from gan_core import checkpoint
from gan_core.maxpool_unet import MaxPoolUNet, MaxPoolUNetConfig

CONFIGS = [
    MaxPoolUNetConfig(widths=(4, 8, 16)),
    MaxPoolUNetConfig(in_channels=12, out_channels=5, widths=(4, 8, 8, 16), convolutions=2),
    MaxPoolUNetConfig(in_channels=1, out_channels=1, widths=(4, 4)),
    MaxPoolUNetConfig(widths=(4, 8, 16), residual=2, dropout=0.1),
]


def test_the_stages_are_64_128_256_128_64():
    net = MaxPoolUNet(MaxPoolUNetConfig())
    shapes = []
    for stage in (*net.downs, *net.ups):
        stage.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    with torch.inference_mode():
        net.eval()(torch.zeros(1, 3, 224, 224))
    assert shapes == [(64, 224, 224), (128, 112, 112), (256, 56, 56), (128, 112, 112), (64, 224, 224)]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_the_answer_has_the_size_of_the_picture(config, size):
    net = MaxPoolUNet(config).eval()
    with torch.inference_mode():
        assert net(torch.randn(2, config.in_channels, *size)).shape == (2, config.out_channels, *size)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_parameter_gets_a_gradient(config):
    torch.manual_seed(0)
    net = MaxPoolUNet(config).train()
    net(torch.randn(2, config.in_channels, 32, 32)).square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("convolutions", [1, 2, 3])
def test_each_stage_has_as_many_convolutions_as_asked_for(convolutions):
    net = MaxPoolUNet(replace(CONFIGS[0], convolutions=convolutions))
    counts = [sum(isinstance(module, nn.Conv2d) for module in stage) for stage in (*net.downs, *net.ups)]
    assert counts == [convolutions] * 5


def test_every_skip_connection_reaches_the_answer(lively):
    """With all that comes from below a stage cut off, the stage must still change the answer."""
    net = lively(MaxPoolUNet(CONFIGS[1])).eval()
    picture = torch.randn(1, 12, 32, 32)
    with torch.inference_mode():
        for down, doubling in zip(net.downs, reversed(net.doublings)):
            cut = doubling.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
            before = net(picture)
            change = down.register_forward_hook(lambda _, __, output: output + torch.randn_like(output))
            assert not torch.equal(net(picture), before)
            cut.remove()
            change.remove()


@pytest.mark.parametrize("size, wrong", [((30, 32), "32x30"), ((32, 34), "34x32")])
def test_a_size_that_cannot_be_halved_names_the_multiple(size, wrong):
    with pytest.raises(ValueError, match=f"{wrong}; both must be multiples of 4"):
        MaxPoolUNet(CONFIGS[0])(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("widths", [(), (64,)])
def test_too_few_stages_are_refused(widths):
    with pytest.raises(ValueError, match="at least two stages"):
        MaxPoolUNetConfig(widths=widths)


def test_widths_may_come_as_a_list():
    config = MaxPoolUNetConfig(widths=[4, 8])
    assert config == MaxPoolUNetConfig(widths=(4, 8)) == MaxPoolUNetConfig(**asdict(config))
    assert hash(config) == hash(MaxPoolUNetConfig(widths=(4, 8)))


def test_the_net_comes_back_from_its_checkpoint(tmp_path, lively):
    net = lively(MaxPoolUNet(CONFIGS[1])).eval()
    checkpoint.save(tmp_path / "x.safetensors", "judge", {"judge": net})
    back = checkpoint.load(tmp_path / "x.safetensors").build("judge", MaxPoolUNet, MaxPoolUNetConfig)
    assert back.config == net.config
    picture = torch.randn(1, 12, 32, 32)
    with torch.inference_mode():
        expected = net(picture)
        assert (back(picture) - expected).abs().max() < 0.01 * expected.std()  # half precision on disk
