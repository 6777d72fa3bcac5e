"""Maxima and rearrangements equal explicit matrices of zeros and ones, through the public API; of equals the first wins."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clarp import rules
from oracle import routing
from oracle.calls import apart, composite, images, propagate
from oracle.linear import Array

TOLERANCE = 1e-10
SHAPE = (4, 5, 6)


class Function(nn.Module):
    """A function of the images, flattened."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).flatten(1)


def check(function: Callable[[Tensor], Tensor], x: Tensor, twin: Callable[[Array], Array]) -> None:
    """``twin`` gives the matrix for one sample; it must compute the same outputs, and hand relevance back transposed."""
    model = Function(function).eval()
    outputs = model(x)
    R = images(*outputs.shape, seed=2)
    matrices = [twin(sample) for sample in x.numpy()]
    for matrix, sample, output in zip(matrices, x.numpy(), outputs.numpy(), strict=True):
        assert np.array_equal(matrix @ sample.reshape(-1), output)
    theirs = np.stack([matrix.T @ r for matrix, r in zip(matrices, R.numpy(), strict=True)])
    for rule in (rules.ZPlus(), rules.Flat()):  # what the other layers would do is no concern of these
        assert apart(propagate(model, x, R, composite(rule)), theirs.reshape(x.shape)) < TOLERANCE


MAXIMA: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "over the width": (lambda x: x.max(3).values, (2,)),
    "over the height, axis kept": (lambda x: x.max(2, keepdim=True).values, (1,)),
    "over the channels": (lambda x: x.amax(1), (0,)),
    "over all positions": (lambda x: x.amax((2, 3)), (1, 2)),
    "over all positions, axes kept": (lambda x: x.amax((-1, -2), keepdim=True), (1, 2)),
    "over channels and width": (lambda x: x.amax((1, 3)), (0, 2)),
}
ADAPTIVE: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, int]]] = {
    "one": (nn.AdaptiveMaxPool2d(1), (1, 1)),
    "dividing": (nn.AdaptiveMaxPool2d((5, 2)), (5, 2)),
    "overlapping": (lambda x: F.adaptive_max_pool2d(x, (3, 4)), (3, 4)),
    "enlarging": (nn.AdaptiveMaxPool2d((7, 9)), (7, 9)),
}
PIXELS: dict[str, Callable[[], Tensor]] = {
    "all different": lambda: images(3, *SHAPE),
    "many equal": lambda: images(3, *SHAPE).mul(1.5).round(),
    "all equal": lambda: torch.full((1, *SHAPE), -2.0, dtype=torch.float64),
}


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("which", MAXIMA)
def test_maximum(which: str, pixels: str) -> None:
    function, axes = MAXIMA[which]
    check(function, PIXELS[pixels](), lambda x: routing.winners(x, routing.over_axes(SHAPE, axes)))


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("which", ADAPTIVE)
def test_adaptive_maximum(which: str, pixels: str) -> None:
    function, size = ADAPTIVE[which]
    check(function, PIXELS[pixels](), lambda x: routing.winners(x, routing.adaptive(SHAPE, size)))


@pytest.mark.parametrize("pixels", PIXELS)
def test_adaptive_maximum_of_rows(pixels: str) -> None:
    """Over one axis: each channel's pixels as one row."""

    def twin(x: Array) -> Array:
        rows = x.reshape(SHAPE[0], 1, -1)
        return routing.winners(rows, routing.adaptive(rows.shape, (1, 4)))

    check(lambda x: F.adaptive_max_pool1d(x.flatten(2), 4), PIXELS[pixels](), twin)


WINDOWS, IN_WINDOWS = routing.windows(SHAPE, kernel=3, stride=2, padding=1)
INDEX = [3, 0, 0, 2]
REARRANGED: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], Any]] = {
    "pixel shuffle": (nn.PixelShuffle(2), (1, 10, 12), routing.pixel_shuffle(2)),
    "pixel unshuffle": (
        lambda x: F.pixel_unshuffle(x[:, :, :4], 2),
        (16, 2, 3),
        routing.pixel_unshuffle(2),
    ),
    "channel shuffle": (nn.ChannelShuffle(2), SHAPE, routing.channel_shuffle(4, 2)),
    "mirrored": (nn.ReflectionPad2d((1, 2, 3, 0)), (4, 8, 9), routing.mirrored(SHAPE, left=1, top=3)),
    "repeated": (nn.ReplicationPad2d((2, 1, 0, 4)), (4, 9, 9), routing.repeated(SHAPE, left=2, top=0)),
    "windows with zeros around": (nn.Unfold(3, stride=2, padding=1), WINDOWS, IN_WINDOWS),
    "index, one channel twice": (lambda x: x[:, INDEX], SHAPE, lambda p: (INDEX[p[0]], *p[1:])),
    "a quarter turn": (lambda x: x.rot90(1, (2, 3)), (4, 6, 5), lambda p: (p[0], p[2], 5 - p[1])),
    "lower triangle": (lambda x: x.tril(), SHAPE, lambda p: p if p[2] <= p[1] else None),
    "diagonal": (lambda x: x.diagonal(1, 2, 3), (4, 5), lambda p: (p[0], p[1], p[1] + 1)),
}


@pytest.mark.parametrize("which", REARRANGED)
def test_rearrangement(which: str) -> None:
    """What is read several times gets the sum, what nobody reads gets nothing."""
    function, out, source = REARRANGED[which]
    matrix = routing.matrix(SHAPE, out, source)
    check(function, images(2, *SHAPE), lambda _: matrix)
