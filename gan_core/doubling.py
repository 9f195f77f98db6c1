"""Bilinear doubling and the convolution after it in one step, with a quarter to a third of the multiplications."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LINE = torch.tensor([0.25, 0.75, 0.75, 0.25])
FILTER = LINE[:, None] * LINE  # its sum is 4, because three of four pixels are zeros


class DoubledConv(nn.Conv2d):
    """`nn.Conv2d(inputs, outputs, 3, padding=1)` of a picture that is doubled bilinearly, by `nn.Upsample`, first:
    `(N, inputs, H, W)` -> `(N, outputs, 2H, 2W)`.

    To double is to set pixels apart, with zeros between them, and to filter that. Filter and convolution may change
    places, as in StyleGAN2 (Karras et al., arXiv 1912.04958; `upsample_conv_2d` of its code): then the convolution
    meets zeros at three of four pixels, which makes it a transposed one of stride 2, and the filter has but the
    outputs to do. OpenVINO then takes half as long, PyTorch two thirds; a GPU does as the definition says.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, kernel_size=3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return self.of_doubled(x)
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")  # (N, inputs, H + 2, W + 2)
        x = F.conv_transpose2d(x, self.weight.flip(2, 3).transpose(0, 1), stride=2)  # (N, outputs, 2H + 5, 2W + 5)
        x = mend_edges(mend_edges(x, 2), 3)  # (N, outputs, 2H + 3, 2W + 3)
        channels = self.out_channels
        return F.conv2d(x, FILTER.to(x.dtype).expand(channels, 1, -1, -1), self.bias, groups=channels)

    def of_doubled(self, x: Tensor) -> Tensor:
        """The same by definition."""
        return super().forward(F.interpolate(x, scale_factor=2, mode="bilinear"))


def mend_edges(x: Tensor, dim: int) -> Tensor:
    """Along one side, x without what lies too far outside for the filter, and with edges as it is to find them.

    x has the places -3 to 2H + 1, if the doubled picture has 0 to 2H - 1, and comes of a picture whose edge pixel, e,
    is repeated once. Of the weights a, b, c of the convolution, -3 holds c e, -2 holds b e, and -1 holds (a + c) e. The
    definition repeats the edge too, but its convolution sees zeros outside: place 0 is to have a e less. The filter
    looks from 0 at -2, as no other place does, and takes a quarter of it: so -2 gets (b - 4a) e. And so at the end.
    """

    def at(begin: int, end: int | None) -> Tensor:
        return x[(slice(None),) * dim + (slice(begin, end),)]

    first = at(3, 4) + 4 * (at(0, 1) - at(2, 3))
    last = at(-4, -3) + 4 * (at(-1, None) - at(-3, -2))
    return torch.cat([first, at(2, -2), last], dim)
