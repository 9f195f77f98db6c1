"""Networks rewritten for speed: other layers, the same answers."""

import copy
from itertools import product

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_core.unet import InstanceNorm

FEW = 4  # outputs of a convolution, for which a processor takes as long as for the 8 or 16 that it does at once
# Of those that paint: kernel, stride, padding, and what they have no use for.
PLAIN = ((0, 0), (1, 1), 1, "zeros")
SHAPES = {nn.Conv2d: ((3, 3), (1, 1), (1, 1), *PLAIN), nn.ConvTranspose2d: ((4, 4), (2, 2), (1, 1), *PLAIN)}


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy of a network in which each batch norm is part of the convolution before it; same answers in eval mode."""
    network = copy.deepcopy(network).eval()
    for parent in network.modules():
        if not isinstance(parent, nn.Sequential):
            continue
        for i in range(len(parent) - 1):
            if isinstance(parent[i], (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(parent[i + 1], nn.BatchNorm2d):
                transposed = isinstance(parent[i], nn.ConvTranspose2d)
                parent[i] = fuse_conv_bn_eval(parent[i], parent[i + 1], transpose=transposed)
                parent[i + 1] = nn.Identity()
    return network


def name_instance_norms(network: nn.Module) -> nn.Module:
    """The same network; OpenVINO is quicker with torch's own instance norm than with a group norm."""
    for parent in network.modules():
        for name, norm in parent.named_children():
            if isinstance(norm, InstanceNorm):
                renamed = nn.InstanceNorm2d(norm.num_channels, norm.eps, affine=True)
                renamed.load_state_dict(norm.state_dict())
                setattr(parent, name, renamed.eval())
    return network


def shuffle_pixels(network: nn.Module) -> nn.Module:
    """The same network for pictures of even sides; its convolutions of few outputs make four pixels at once."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) in SHAPES and layer.out_channels <= FEW and shape_of(layer) == SHAPES[type(layer)]:
                setattr(parent, name, by_fours(layer))
    return network


def shape_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple:
    plain = layer.output_padding, layer.dilation, layer.groups, layer.padding_mode
    return layer.kernel_size, layer.stride, layer.padding, *plain


def by_fours(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """Two by two pixels are four times as many outputs of a convolution at half the size, which are then laid out as
    ESPCN does it (Shi et al., arXiv 1609.05158, section 3.2).
    """
    outputs, inputs, transposed = layer.out_channels, layer.in_channels, isinstance(layer, nn.ConvTranspose2d)
    weight = layer.weight.flip(2, 3).transpose(0, 1) if transposed else layer.weight  # (outputs, inputs, h, w)
    side = 3 if transposed else 4
    fours = weight.new_zeros(outputs, 2, 2, inputs, side, side)
    for y, x in product(range(2), range(2)):
        if transposed:  # its kernel meets a pixel of the small picture at every other row and column
            fours[:, y, x, :, y : y + 2, x : x + 2] = weight[:, :, y::2, x::2]
        else:
            fours[:, y, x, :, y : y + 3, x : x + 3] = weight
    # Without weights of its own, for which torch would throw its dice, maybe between those of another thread.
    options = {"stride": 1 if transposed else 2, "padding": 1, "bias": layer.bias is not None, "device": "meta"}
    quick = nn.Conv2d(inputs, 4 * outputs, side, **options)
    quick.weight = nn.Parameter(fours.flatten(0, 2), requires_grad=False)
    if layer.bias is not None:
        quick.bias = nn.Parameter(layer.bias.repeat_interleave(4), requires_grad=False)
    return nn.Sequential(quick, nn.PixelShuffle(2))
