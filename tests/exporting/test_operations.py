"""Operations of clarp's graph in ONNX files: forward, gradient and rule of each, in ONNX Runtime.

All of a group stand side by side behind one convolution, each in front of a logit of its own, and one file explains
all logits, so that there is one export for many operations.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Body = Callable[[Tensor], Tensor]
BOUND = 1e-3
"""Of the largest difference of a map, relative to its largest value: what cancels is large beside it."""


class MaxUnpool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], *, bidirectional: bool = False) -> None:
        super().__init__()
        self.layer = kind(6, 3, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1, 2))[0]


def attention(x: Tensor, *, causal: bool = False) -> Tensor:
    return F.scaled_dot_product_attention(x, x.flip(2), x.flip(3), is_causal=causal)


def fourier(x: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * 0.5 * torch.arange(1, 5), s=(6, 6))


KERNEL = torch.linspace(-1, 1, 2 * 4 * 3 * 3).view(2, 4, 3, 3).sin()

# What needed a translation or another way of writing in the engine.
MENDED: dict[str, Body] = {
    "average": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average over three axes": lambda x: F.avg_pool3d(x[:, None], (2, 3, 3), (2, 1, 2)),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, 4),
    "adaptive average over three axes": lambda x: F.adaptive_avg_pool3d(x[:, None], (3, 4, 4)),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, 4),
    "adaptive maximum over three axes": lambda x: F.adaptive_max_pool3d(x[:, None], (3, 4, 4)),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "nearest": lambda x: F.interpolate(x, size=(8, 9)),
    "nearest-exact": lambda x: F.interpolate(x, size=(9, 8), mode="nearest-exact"),
}
