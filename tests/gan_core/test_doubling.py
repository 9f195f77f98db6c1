import pytest
import torch
from torch import Tensor, nn

from gan_core.doubling import DoubledConv


def as_defined(layer: DoubledConv, x: Tensor) -> Tensor:
    """By torch's own layers."""
    conv = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1, bias=layer.bias is not None).to(x.dtype)
    conv.load_state_dict(layer.state_dict())
    return conv(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 3), (16, 8)])
def test_it_is_a_convolution_after_a_doubling_to_the_last_pixel(size, bias):
    torch.manual_seed(0)
    layer, x = DoubledConv(6, 5, bias).double(), torch.randn(2, 6, *size, dtype=torch.float64)
    assert torch.allclose(layer(x), as_defined(layer, x), atol=1e-12)
    assert torch.allclose(layer.of_doubled(x), as_defined(layer, x), atol=1e-12)


def test_its_gradients_are_those_of_the_definition():
    torch.manual_seed(0)
    layer = DoubledConv(4, 3).double()
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 10, 6, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()]) for y in (layer(x), layer.of_doubled(x))
    )
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_rounding_stays_small_and_the_memory_format_what_it_was(dtype, tolerance):
    torch.manual_seed(0)
    layer = DoubledConv(16, 8)
    x = torch.randn(2, 16, 12, 12)
    answer = layer.to(dtype)(x.to(dtype, memory_format=torch.channels_last))
    assert answer.is_contiguous(memory_format=torch.channels_last)
    exact = as_defined(layer.float(), x.to(dtype).float())
    assert (answer.float() - exact).abs().max() < tolerance


def test_it_needs_a_third_of_the_multiplications():
    """Which is why it is there: for each pair of channels 9 * 18 * 18, with the repeated edge, and not 9 * 32 * 32."""
    from torch.utils.flop_counter import FlopCounterMode

    layer, x = DoubledConv(64, 32, bias=False), torch.randn(1, 64, 16, 16)
    counts = []
    for function in (layer, layer.of_doubled):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            function(x)
        counts.append(counter.get_total_flops() / 2)
    assert counts[1] == 9 * 32 * 32 * 64 * 32
    assert counts[0] == 9 * 18 * 18 * 64 * 32 + 16 * 32 * 32 * 32  # and the filter


def test_it_has_the_names_and_shapes_of_a_convolution():
    ours, theirs = DoubledConv(4, 3), nn.Conv2d(4, 3, 3, padding=1)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
