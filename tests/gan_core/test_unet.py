from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn

from gan_core.unet import NORMS, Down, Noise, UNetConfig, UNetGenerator, Up

# Every pair of norm and upsampling that can be trained on 256x256.
KINDS = [
    ("instance", "transposed", 0),
    ("batch", "transposed", 0),
    ("batch", "mixed", 4),
    ("instance", "transposed", 4),
]


def small(**changes) -> UNetConfig:
    return replace(UNetConfig(base_channels=4), **changes)


def shapes_of(stages: nn.ModuleList, network: UNetGenerator, source: torch.Tensor) -> list[tuple[int, ...]]:
    shapes = []
    hooks = [
        stage.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:]))) for stage in stages
    ]
    with torch.inference_mode():
        network.eval()(source)
    for hook in hooks:
        hook.remove()
    return shapes


@pytest.fixture(scope="module")
def published() -> UNetGenerator:
    return UNetGenerator(UNetConfig())


def test_the_published_net_has_54_million_parameters(published):
    assert sum(parameter.numel() for parameter in published.parameters()) == 54_414_531


def test_the_published_stages(published):
    """C64-C128-C256-C512-C512-C512-C512-C512 and back, the bottleneck a single pixel (appendix 6.1.1)."""
    source = torch.zeros(1, 3, 256, 256)
    channels = [64, 128, 256, 512, 512, 512, 512, 512]
    sides = [128, 64, 32, 16, 8, 4, 2, 1]
    assert shapes_of(published.downs, published, source) == [(c, s, s) for c, s in zip(channels, sides)]
    assert shapes_of(published.ups, published, source) == [(c, s, s) for c, s in zip(channels[-2::-1], sides[-2::-1])]


def test_the_published_layers(published):
    convolutions = [module for module in published.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    assert len(convolutions) == 16
    assert all((m.kernel_size, m.stride, m.padding) == ((4, 4), (2, 2), (1, 1)) for m in convolutions)
    # No norm in the first stage and in the innermost one; leaky ReLUs of slope 0.2 in the encoder only.
    normed = [any(isinstance(m, nn.GroupNorm) for m in down) for down in published.downs]
    assert normed == [False, True, True, True, True, True, True, False]
    assert {m.negative_slope for m in published.downs.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert not any(isinstance(m, nn.LeakyReLU) for m in published.ups.modules())
    # Half dropout in the first three stages of the decoder.
    dropout = [[m.p for m in up if isinstance(m, nn.Dropout)] for up in published.ups]
    assert dropout == [[0.5], [0.5], [0.5], [], [], [], []]


def test_weights_start_from_the_published_distribution(published):
    weights = published.downs[4][1].weight.detach()
    assert weights.mean().abs() < 1e-3
    assert weights.std() == pytest.approx(0.02, rel=0.02)
    scales = torch.cat([m.weight.detach() for m in published.modules() if isinstance(m, nn.GroupNorm)])
    assert scales.mean() == pytest.approx(1, abs=0.005)
    assert scales.std() == pytest.approx(0.02, rel=0.1)
    assert not published.paint.up[1].bias.any()


@pytest.mark.parametrize("channels", [(1, 3), (3, 3), (3, 1)])
@pytest.mark.parametrize("size", [(256, 256), (512, 256)])
@pytest.mark.parametrize("norm, upsampling, refine", KINDS)
def test_the_answer_has_the_size_of_the_source_and_lies_in_range(norm, upsampling, refine, size, channels, lively):
    inputs, outputs = channels
    config = small(in_channels=inputs, out_channels=outputs, norm=norm, upsampling=upsampling, refine_channels=refine)
    with torch.inference_mode():
        answer = lively(UNetGenerator(config)).eval()(torch.randn(2, inputs, *size).clamp(-1, 1))
    assert answer.shape == (2, outputs, *size)
    assert answer.abs().max() <= 1
    assert answer.std() > 0.01


@pytest.mark.parametrize("depth", [5, 6])
def test_a_shallower_net_takes_smaller_pictures(depth):
    net = UNetGenerator(small(depth=depth))
    side = 2**depth * 2
    assert net(torch.zeros(1, 3, side, side)).shape == (1, 3, side, side)


@pytest.mark.parametrize("norm, upsampling, refine", KINDS)
def test_every_parameter_gets_a_gradient(norm, upsampling, refine):
    torch.manual_seed(0)
    net = UNetGenerator(small(norm=norm, upsampling=upsampling, refine_channels=refine)).train()
    net(torch.randn(2, 3, 256, 256)).square().sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_every_skip_connection_reaches_the_answer(lively):
    """With all that comes from below a stage cut off, the stage must still change the answer."""
    net = lively(UNetGenerator(small(depth=5))).eval()
    source = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        for down, up in zip(net.downs, reversed(net.ups)):
            cut = up.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
            before = net(source)
            change = down.register_forward_hook(lambda _, __, output: output + torch.randn_like(output))
            assert not torch.allclose(net(source), before, atol=1e-3)
            change.remove()
            cut.remove()


def test_without_skips_the_innermost_features_are_all_that_passes(lively):
    """An encoder-decoder (section 4.2): half as many channels go into each stage of the decoder."""
    net = lively(UNetGenerator(small(depth=5, skips=False, dropout=0.0))).eval()
    assert [up[1].in_channels for up in net.ups] == net.config.stage_channels[:0:-1]
    with torch.inference_mode():
        innermost = net.downs[-1].register_forward_hook(lambda _, __, output: torch.zeros_like(output))
        a, b = (net(torch.rand(1, 3, 32, 32)) for _ in range(2))
        innermost.remove()
        assert torch.equal(a, b)
        assert not torch.equal(net(torch.rand(1, 3, 32, 32)), a)


def test_a_config_from_before_there_was_a_choice_has_skips():
    assert UNetConfig(base_channels=4, depth=5).skips


def test_instance_norm_answers_alike_in_training_and_at_test_time(lively):
    """The classic fault of pix2pix ports: running statistics at test time, and a gray mush for an answer."""
    net = lively(UNetGenerator(small(norm="instance", dropout=0.0)))
    source = torch.randn(2, 3, 256, 256)
    with torch.inference_mode():
        trained = net.train()(source * 3 + 1)
        assert torch.allclose(trained, net.eval()(source * 3 + 1), atol=1e-6)


def test_instance_norm_does_not_look_at_the_neighbours_in_the_batch(lively):
    net = lively(UNetGenerator(small(norm="instance"))).eval()
    source = torch.randn(2, 3, 256, 256)
    with torch.inference_mode():
        assert torch.allclose(net(source)[:1], net(source[:1]), atol=1e-5)


def test_dropout_is_noise_in_training_and_silent_at_test_time(lively):
    net = lively(UNetGenerator(small()))
    source = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        assert not torch.equal(net.train()(source), net(source))
        assert torch.equal(net.eval()(source), net(source))


@pytest.mark.parametrize("size", [(255, 256), (256, 128), (100, 100)])
def test_a_picture_of_another_size_is_refused_with_the_numbers(size):
    height, width = size
    with pytest.raises(ValueError, match=f"{width}x{height}.*8 halvings.*multiples of 256"):
        UNetGenerator(small())(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize("changes", [{"norm": "layer"}, {"norm": ""}, {"upsampling": "nearest"}, {"depth": 4}])
def test_a_config_that_cannot_be_built_is_refused_by_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        UNetConfig(**changes)


def test_the_config_stays_on_the_network_and_cannot_change(unet_config):
    net = UNetGenerator(unet_config)
    assert net.config == unet_config
    with pytest.raises(FrozenInstanceError):
        net.config.depth = 9


def test_the_stages_halve_and_double():
    down = Down(3, 8, small(), first=False, innermost=False)
    up = Up(8, 3, small(), transposed=True, dropout=True)
    assert down(torch.zeros(1, 3, 32, 16)).shape == (1, 8, 16, 8)
    assert up(torch.zeros(1, 8, 16, 8)).shape == (1, 3, 32, 16)


# --- noise


def test_noise_starts_silent(unet_config):
    """Fresh nets with noise and without answer alike, so that old checkpoints can be tuned on."""
    plain, noisy = UNetGenerator(unet_config), UNetGenerator(replace(unet_config, noise=True))
    missing = noisy.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all(key.endswith("weight") for key in missing)
    source = torch.randn(1, 1, 256, 256)
    for mode in (True, False):
        answers = []
        for net in (plain, noisy):
            net.train(mode)
            for module in net.modules():
                if isinstance(module, nn.Dropout):
                    module.eval()
            with torch.inference_mode():
                answers.append(net(source))
        assert torch.equal(*answers)


def test_noise_is_fresh_in_training_and_always_the_same_at_test_time(noisy_generator):
    source = torch.randn(1, 1, 256, 256)
    with torch.inference_mode():
        first = noisy_generator(source)
        assert torch.equal(noisy_generator(source), first)
        for module in noisy_generator.modules():
            if isinstance(module, Noise):
                module.train()
        assert not torch.allclose(noisy_generator(source), noisy_generator(source), atol=0.01)
        noisy_generator.eval()
        assert torch.equal(noisy_generator(source), first)


def test_noise_at_test_time_is_that_of_another_copy_and_of_every_place_in_a_batch(noisy_generator):
    other = UNetGenerator(noisy_generator.config).eval()
    other.load_state_dict(noisy_generator.state_dict())
    source = torch.randn(2, 1, 256, 256)
    with torch.inference_mode():
        other(torch.zeros(1, 1, 512, 256))  # has looked at another size before
        together = noisy_generator(source)
        assert torch.equal(other(source), together)
        assert torch.allclose(noisy_generator(source[1:]), together[1:], atol=1e-4)


def test_noise_is_standard_normal_and_one_for_all_channels():
    noise = Noise(3)
    nn.init.constant_(noise.weight, 2.0)
    for mode in (True, False):
        added = noise.train(mode)(torch.zeros(2, 3, 128, 128)).detach()
        assert added.mean() == pytest.approx(0, abs=0.05)
        assert added.std() == pytest.approx(2, rel=0.05)
        assert torch.equal(added[:, 0], added[:, 1]) and torch.equal(added[:, 0], added[:, 2])
        assert torch.equal(added[0], added[1]) == (not mode), "pictures in training have noise of their own"


def test_each_channel_learns_how_much_noise_it_wants(noisy_generator):
    """Even after the same net has answered in inference mode, whose tensors could not be trained through."""
    with torch.inference_mode():
        noisy_generator(torch.zeros(1, 1, 256, 256))
    for mode in (False, True):
        noisy_generator.train(mode).zero_grad()
        noisy_generator(torch.randn(2, 1, 256, 256)).square().sum().backward()
        assert not [n for n, p in noisy_generator.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_noise_itself_is_not_stored(noisy_generator):
    before = noisy_generator.state_dict().keys()
    with torch.inference_mode():
        noisy_generator(torch.zeros(1, 1, 256, 256))
    assert noisy_generator.state_dict().keys() == before
    assert not [key for key in before if "fixed" in key]


@pytest.mark.parametrize("upsampling, places", [("mixed", 5), ("transposed", 1)])
def test_noise_is_added_where_texture_is_laid_out(upsampling, places):
    net = UNetGenerator(small(norm="batch", upsampling=upsampling, noise=True))
    assert sum(isinstance(module, Noise) for module in net.modules()) == places


@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 4), (1, 3, 5, 2), (3, 3, 1, 1)])
def test_instance_norm_is_torchs_own_and_keeps_the_memory_format(size, learning):
    ours, torchs = NORMS["instance"](3), nn.InstanceNorm2d(3, affine=True)
    for norm in (ours, torchs):
        norm.load_state_dict({"weight": torch.tensor([1.0, 2.0, -0.5]), "bias": torch.tensor([0.0, 0.3, -1.0])})
    x = torch.randn(size).to(memory_format=torch.channels_last)
    a, b = (x.clone().requires_grad_(learning) for _ in range(2))
    if size[2:] == (1, 1):
        with pytest.raises(ValueError, match="more than 1 spatial element"):
            torchs(b)
        assert torch.allclose(ours(a), ours.bias[None, :, None, None].expand(size), atol=1e-3)  # nothing but its mean
        return
    assert torch.allclose(ours(a), torchs(b), atol=1e-6)
    assert ours(a).is_contiguous(memory_format=torch.channels_last)
    if learning:
        for norm, y in ((ours, a), (torchs, b)):
            norm(y).pow(3).sum().backward()
        assert torch.allclose(a.grad, b.grad, atol=1e-4)
        assert torch.allclose(ours.weight.grad, torchs.weight.grad, rtol=1e-4)
        assert torch.allclose(ours.bias.grad, torchs.bias.grad, rtol=1e-4)


def test_instance_norm_has_the_weights_of_torchs_own():
    assert NORMS["instance"](3).state_dict().keys() == nn.InstanceNorm2d(3, affine=True).state_dict().keys()
