"""The rules over one and three axes, and over several windows of each image, equal their brute-force twins."""

from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import clarp
from clarp import rules
from oracle import linear, network
from oracle.calls import apart, composite, images, propagate
from oracle.nets import randomise_
from oracle.nonlinear import winner_takes_all
from rules.test_linear_twins import CHANNELS, HIGH, LOW, PLAIN, Everywhere

TOLERANCE = 1e-10
ALL = [*PLAIN, "zbox"]
SIZES = {1: (9,), 3: (4, 4, 4)}


class Windows(nn.Module):
    """A layer on several windows of each image, (B, m, C, ...), that join the batch."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@lru_cache(maxsize=4)
def alone(layer: nn.Module) -> nn.Module:
    """A model of one layer, the same for all rules, so that it is captured once."""
    return nn.Sequential(layer, nn.Flatten()).double().eval()


def check(layer: nn.Module, x: Tensor, name: str, channels: int = 1) -> None:
    """The layer's input has its channels on this axis."""
    model = alone(layer)
    rule, twin = PLAIN.get(name, (rules.ZBox(LOW, HIGH), None))
    if twin is None:
        shape = [1] * (x.ndim - 1)
        shape[channels - 1] = -1
        low, high = (
            np.broadcast_to(np.array(bound).reshape(shape), x.shape[1:]).flatten() for bound in (LOW, HIGH)
        )
        twin = partial(linear.zbox, low=low, high=high)
    with torch.no_grad():
        R = images(len(x), model(x).shape[1], seed=1)
    ours = propagate(model, x, R, composite(rule))
    matrix = linear.affine(layer, tuple(x.shape[1:]))
    theirs = np.stack([twin(matrix, a.reshape(-1).numpy(), r.numpy()) for a, r in zip(x, R, strict=True)])
    assert apart(ours, theirs.reshape(x.shape)) < TOLERANCE


@st.composite
def convolutions(draw: st.DrawFn, axes: int) -> nn.Module:
    groups = draw(st.sampled_from([1, 2, 4]))
    each = st.tuples(*[st.integers(1, 2)] * axes)
    arguments: dict[str, Any] = {
        "stride": draw(each),
        "dilation": draw(st.integers(1, 2)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    sides = CHANNELS, groups * draw(st.integers(1, 2)), draw(each)
    if draw(st.booleans()):
        kinds: dict[int, type[nn.Module]] = {1: nn.Conv1d, 3: nn.Conv3d}
        arguments["padding"] = draw(st.tuples(*[st.integers(0, 1)] * axes))
    else:
        kinds = {1: nn.ConvTranspose1d, 3: nn.ConvTranspose3d}
        most = [max(s, arguments["dilation"]) - 1 for s in arguments["stride"]]
        arguments["output_padding"] = tuple(draw(st.integers(0, m)) for m in most)
    return randomise_(kinds[axes](*sides, **arguments), draw(st.integers(0, 99)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("axes", [1, 3])
@settings(max_examples=4)
@given(data=st.data())
def test_convolution(axes: int, name: str, data: st.DataObject) -> None:
    check(data.draw(convolutions(axes)), images(2, CHANNELS, *SIZES[axes], seed=3).clamp(-2, 2), name)


IN_WINDOWS: dict[str, Any] = {
    "2d": lambda: nn.Conv2d(CHANNELS, 4, 2, stride=(1, 2), padding=1, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, 2, 2, stride=2, padding=1, output_padding=1),
    "depthwise, same": lambda: nn.Conv2d(CHANNELS, CHANNELS, (2, 3), padding="same", groups=CHANNELS),
}


@cache
def in_windows(which: str) -> nn.Module:
    return Windows(randomise_(IN_WINDOWS[which](), 5))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("name", ["zbox", "flat", "wsquare", "gamma", "zplus", "epsilon"])
@pytest.mark.parametrize("which", IN_WINDOWS)
def test_convolution_of_windows(which: str, name: str) -> None:
    check(in_windows(which), images(2, 3, CHANNELS, 3, 4, seed=3).clamp(-2, 2), name, channels=2)


@cache
def behind_uneven_zeros() -> nn.Module:
    layer = nn.Sequential(nn.ZeroPad3d((1, 0, 0, 2, 1, 1)), randomise_(nn.Conv3d(CHANNELS, 2, 2), 3))
    return Everywhere(layer)


@pytest.mark.parametrize("name", ["zbox", "flat", "wsquare"])
def test_uneven_zeros_around_a_volume_belong_to_the_convolution(name: str) -> None:
    check(behind_uneven_zeros(), images(2, CHANNELS, 2, 3, 3, seed=3).clamp(-2, 2), name)


AVERAGES: dict[str, tuple[int, nn.Module]] = {
    "1d": (1, nn.AvgPool1d(3, 2, 1, ceil_mode=True)),
    "1d, adaptive": (1, nn.AdaptiveAvgPool1d(4)),
    "1d, linear": (1, nn.Upsample(scale_factor=2, mode="linear")),
    "1d, nearest": (1, nn.Upsample(size=5)),
    "3d": (3, nn.AvgPool3d((2, 2, 3), 2, 1, ceil_mode=True)),
    "3d, padding does not count": (3, nn.AvgPool3d(2, 2, 1, count_include_pad=False)),
    "3d, adaptive": (3, nn.AdaptiveAvgPool3d((2, 3, 2))),
    "3d, trilinear": (3, nn.Upsample(scale_factor=(1, 2, 1.5), mode="trilinear")),
    "3d, trilinear, smaller": (3, nn.Upsample(size=(2, 3, 3), mode="trilinear", align_corners=True)),
}


@pytest.mark.parametrize("which", AVERAGES)
def test_averages(which: str) -> None:
    axes, layer = AVERAGES[which]
    x = images(2, 2, *SIZES[axes], seed=3)
    if "nearest" in which:  # moves values: what is read by nobody gets nothing
        matrix = linear.affine(layer, tuple(x.shape[1:]))
        model = nn.Sequential(layer, nn.Flatten()).double().eval()
        R = images(2, model(x).shape[1], seed=1)
        theirs = np.stack([r.numpy() @ matrix.weight for r in R]).reshape(x.shape)
        assert apart(propagate(model, x, R, composite(rules.ZPlus())), theirs) < TOLERANCE
        return
    check_average(layer, x)


def check_average(layer: nn.Module, x: Tensor) -> None:
    model = nn.Sequential(nn.Identity(), layer, nn.Flatten()).double().eval()
    R = images(len(x), model(x).shape[1], seed=1)
    ours = propagate(model, x, R, composite(rules.ZPlus()))
    matrix = linear.affine(layer, tuple(x.shape[1:]))
    theirs = [linear.norm(matrix, a.reshape(-1).numpy(), r.numpy()) for a, r in zip(x, R, strict=True)]
    assert apart(ours, np.stack(theirs).reshape(x.shape)) < TOLERANCE


IN_WINDOWS_TOO: dict[str, nn.Module] = {
    "average": nn.AvgPool2d(2, 1, 1),
    "adaptive": nn.AdaptiveAvgPool2d((2, 3)),
    "bilinear": nn.Upsample(size=(5, 3), mode="bilinear"),
}


@pytest.mark.parametrize("which", IN_WINDOWS_TOO)
def test_averages_of_windows(which: str) -> None:
    check_average(Windows(IN_WINDOWS_TOO[which]), images(2, 3, 2, 3, 4, seed=3))


@pytest.mark.parametrize("size", [(2, 3, 2), (1, 1, 1), (3, 4, 5)])
def test_adaptive_max_over_a_volume(size: tuple[int, int, int]) -> None:
    """Output i of n reads ``floor(i L / n)`` to ``ceil((i + 1) L / n)``, without the end; the first of equals wins."""
    x = images(2, 2, *SIZES[3], seed=3).round(decimals=1)
    model = nn.Sequential(nn.AdaptiveMaxPool3d(size), nn.Flatten()).double().eval()
    R = images(2, 2 * int(np.prod(size)), seed=1)
    theirs = []
    for values, relevance in zip(x.numpy(), R.numpy(), strict=True):
        winners = np.full((2, *size), -1)
        for c, *start in np.ndindex(*winners.shape):
            sides = [
                range(i * side // n, -(-(i + 1) * side // n))
                for i, n, side in zip(start, size, SIZES[3], strict=True)
            ]
            places = [(c, u, v, w) for u in sides[0] for v in sides[1] for w in sides[2]]
            winners[(c, *start)] = np.ravel_multi_index(max(places, key=lambda p: values[p]), values.shape)
        theirs.append(winner_takes_all(winners, relevance, values.shape))
    assert apart(propagate(model, x, R, composite(rules.ZPlus())), np.stack(theirs)) < TOLERANCE


@st.composite
def networks(draw: st.DrawFn, axes: int) -> nn.Sequential:
    """A small classifier of volumes or signals: convolutions with and without batch norms, poolings, one dense layer."""
    conv, norm, most, mean, up = (
        getattr(nn, f"{kind}{axes}d") for kind in ("Conv", "BatchNorm", "MaxPool", "AvgPool", "ConvTranspose")
    )
    layers: list[nn.Module] = []
    channels = 2
    for number in range(draw(st.integers(1, 2))):
        kind = up if draw(st.integers(0, 3)) == 0 else conv
        wide = draw(st.sampled_from([2, 4]))
        groups = draw(st.sampled_from([1, 2]))
        stride = 1 if number else draw(st.integers(1, 2))
        layers.append(kind(channels, wide, draw(st.integers(1, 2)), stride, padding=0, groups=groups))
        channels = wide
        layers += [norm(channels)] * draw(st.booleans())
        layers.append(nn.ReLU())
        pool = draw(st.sampled_from([None, most(2, 1, 1), mean(2, 1, 1)]))
        layers += [] if pool is None or number else [pool]
    rest = getattr(nn, f"AdaptiveAvgPool{axes}d")(1)
    return randomise_(
        nn.Sequential(*layers, rest, nn.Flatten(), nn.Linear(channels, 3)), draw(st.integers(0, 99))
    )


@pytest.mark.parametrize("axes", [1, 3])
@settings(max_examples=15)
@given(
    data=st.data(), name=st.sampled_from(["zplus-box", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon"])
)
def test_drawn_network(axes: int, data: st.DataObject, name: str) -> None:
    model = data.draw(networks(axes)).double().eval()
    x = images(2, 2, *SIZES[axes], seed=data.draw(st.integers(0, 99))).clamp(-3, 3)
    R = images(2, 3, seed=1)
    low, high = (np.repeat(np.array(end), x[0, 0].numel()) for end in ((-4.0, -5.0), (4.5, 4.0)))
    ours = propagate(model, x, R, clarp.composites.get(name), bounds=((-4.0, -5.0), (4.5, 4.0)))
    formula = network.composites(low, high)[name]
    theirs = [network.propagate(model, a, r, formula) for a, r in zip(x.numpy(), R.numpy(), strict=True)]
    assert apart(ours, np.stack(theirs)) < 1e-8
