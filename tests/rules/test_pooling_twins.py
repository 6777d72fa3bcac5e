"""Pooling and the residual add equal their loops, through the public API."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import clarp
from clarp import rules
from oracle import linear
from oracle.calls import apart, composite, images, propagate
from oracle.nets import Mean, Residual, View, randomise_
from oracle.nonlinear import add_gamma, add_proportional, add_ratio, max_pool, winner_takes_all

TOLERANCE = 1e-10

AVERAGES: dict[str, Any] = {
    "2": lambda: nn.AvgPool2d(2),
    "overlapping": lambda: nn.AvgPool2d(3, 1),
    "padded, padding counts": lambda: nn.AvgPool2d(3, 2, 1),
    "padded, padding does not count": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "ceil": lambda: nn.AvgPool2d(2, 2, ceil_mode=True),
    "ceil, padded": lambda: nn.AvgPool2d((3, 2), (2, 3), (1, 0), ceil_mode=True),
    "ceil, padding does not count": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "divisor": lambda: nn.AvgPool2d(2, divisor_override=3),
    "adaptive 1": lambda: nn.AdaptiveAvgPool2d(1),
    "adaptive, dividing": lambda: nn.AdaptiveAvgPool2d((5, 1)),
    "adaptive, not dividing": lambda: nn.AdaptiveAvgPool2d((3, 2)),
    "adaptive, enlarging": lambda: nn.AdaptiveAvgPool2d(9),
    "mean": Mean,
}


class MeanKeepingDimensions(nn.AdaptiveAvgPool2d):
    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1), keepdim=True)


class MeanOverWidth(nn.AvgPool2d):
    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(3)


AVERAGES |= {"mean, dimensions kept": MeanKeepingDimensions, "mean over the width": MeanOverWidth}


@pytest.mark.parametrize("which", AVERAGES)
def test_average_is_proportional_to_activation(which: str) -> None:
    """Every spelling of an average is a linear layer with the rule Norm, on signed inputs too."""
    layer = AVERAGES[which]()
    x = images(2, 2, 5, 7, seed=1)
    model = nn.Sequential(layer, nn.Flatten()).eval()
    R = images(2, model(x).shape[1], seed=2)
    matrix = linear.affine(layer, (2, 5, 7))
    theirs = [linear.norm(matrix, a.flatten().numpy(), r.numpy()) for a, r in zip(x, R, strict=True)]
    # what the other layers would do is no concern of the average
    for rule in (rules.ZPlus(), rules.Epsilon(1.0), rules.Flat()):
        ours = propagate(model, x, R, composite(rule))
        assert apart(ours, np.stack(theirs).reshape(x.shape)) < TOLERANCE


@pytest.mark.parametrize(
    "spelling", ["adaptive", "mean", "mean, dimensions kept", "pool as large as the image"]
)
def test_all_spellings_of_the_global_average_agree(spelling: str) -> None:
    """zennit and autolrp give two maps for two spellings."""
    layers = {
        "adaptive": nn.AdaptiveAvgPool2d(1),
        "mean": Mean(),
        "mean, dimensions kept": MeanKeepingDimensions(),
        "pool as large as the image": nn.AvgPool2d(6),
    }
    head = randomise_(nn.Linear(3, 4), 2)
    first = randomise_(nn.Conv2d(2, 3, 3, padding=1), 3)
    x, R = images(2, 2, 6, 6), images(2, 4, seed=5)

    def relevance(layer: nn.Module) -> Tensor:
        model = nn.Sequential(first, nn.ReLU(), layer, nn.Flatten(), head).double().eval()
        return propagate(model, x, R, "epsilon-plus")

    assert apart(relevance(layers[spelling]), relevance(nn.AdaptiveAvgPool2d(1))) < 1e-12


def test_average_of_zeros_hands_on_nothing() -> None:
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    x[0, 0, :2, :2] = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten()).eval()
    ours = propagate(model, x, torch.ones(1, 4, dtype=torch.float64), composite(rules.ZPlus()))
    assert ours[0, 0, :2, :2].tolist() == [[0.25, 0.75], [0.0, 0.0]]
    assert float(ours.sum()) == 1.0


@st.composite
def max_pools(draw: st.DrawFn) -> nn.MaxPool2d:
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(2, 3)))
    return nn.MaxPool2d(
        kernel,
        stride=draw(st.one_of(st.none(), st.tuples(st.integers(1, 3), st.integers(1, 3)))),
        padding=tuple(draw(st.integers(0, k // 2)) for k in kernel),
        dilation=draw(st.integers(1, 2)),
        ceil_mode=draw(st.booleans()),
    )


@settings(max_examples=25)
@given(pool=max_pools(), seed=st.integers(0, 1000), tied=st.booleans())
def test_max_pool(pool: nn.MaxPool2d, seed: int, tied: bool) -> None:
    """The winner takes all; of equals, the first row by row."""
    x = images(2, 2, 6, 7, seed=seed)
    x = x.mul(1.5).round() if tied else x
    model = nn.Sequential(pool, nn.Flatten()).eval()
    R = images(2, model(x).shape[1], seed=seed + 1)
    theirs = []
    for a, r in zip(x.numpy(), R.numpy(), strict=True):
        _, winners = max_pool(pool, a)
        theirs.append(winner_takes_all(winners, r, a.shape))
    assert apart(propagate(model, x, R, composite(rules.ZPlus())), np.stack(theirs)) < TOLERANCE


def test_max_pool_of_equals_takes_the_first() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten()).eval()
    x = torch.full((1, 1, 4, 4), -3.0, dtype=torch.float64)
    R = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    ours = propagate(model, x, R, composite(rules.ZPlus()))
    assert ours[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]


class Doubled(nn.Module):
    """Gives each half of the image's channels to one operand of a sum."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, :2], x[:, 2:]
        if self.how == "torch.add":
            y = torch.add(a, b)
        elif self.how == "method":
            y = a.add(b)
        elif self.how == "in place":
            y = a.clone()
            y += b
        else:
            y = a + b
        return y.flatten(1)


def operands() -> Tensor:
    """(2, 4, 3, 4): random values, and among them every kind of zero: cancelling, one zero, both zero."""
    x = images(2, 4, 3, 4, seed=7)
    a, b = x[:, :2], x[:, 2:]
    b[:, 0, 0] = -a[:, 0, 0]  # cancels exactly
    a[:, 1, 0], b[:, 1, 1] = 0.0, 0.0
    a[:, 1, 2], b[:, 1, 2] = 0.0, 0.0
    b[0, 0, 1] = -a[0, 0, 1] * 0.999
    return x


@pytest.mark.parametrize("how", ["plus", "torch.add", "method", "in place"])
@pytest.mark.parametrize(
    ("rule", "twin"),
    [(rules.Ratio(), add_ratio), (rules.Norm(), add_proportional), (rules.Gamma(0.5), add_gamma)],
    ids=["ratio", "proportional", "gamma"],
)
def test_residual_add(rule: Any, twin: Any, how: str) -> None:
    x, R = operands(), images(2, 24, seed=8)
    ours = propagate(Doubled(how).eval(), x, R, composite(rules.ZPlus(), residual=rule))
    theirs = []
    for sample, r in zip(x.numpy(), R.numpy(), strict=True):
        left, right = twin(sample[:2].reshape(-1), sample[2:].reshape(-1), r)
        theirs.append(np.concatenate([left, right]).reshape(4, 3, 4))
    assert apart(ours, np.stack(theirs)) < TOLERANCE


def test_gamma_conserves_and_is_bounded_where_the_sum_cancels() -> None:
    """ResLRP's, ``residual="gamma"``: no part of a sum makes more than three times the relevance."""
    x, R = operands(), images(2, 24, seed=8)
    gamma = clarp.composites.get("zero", residual="gamma").residual
    ours = propagate(Doubled("plus").eval(), x, R, composite(rules.ZPlus(), residual=gamma))
    parts, either = ours.view(2, 2, -1), (x != 0).view(2, 2, -1).any(1)
    assert torch.allclose(parts.sum(1), R * either, rtol=1e-12)
    growth = (parts.abs().sum(1) / R.abs())[either]
    assert 2.9 < float(growth.max()) <= 3 + 1e-12


def test_ratio_conserves_where_the_sum_cancels() -> None:
    x, R = operands(), images(2, 24, seed=8)
    ours = propagate(Doubled("plus").eval(), x, R, composite(rules.ZPlus()))
    assert torch.allclose(ours.sum((1, 2, 3)), R.sum(1), rtol=1e-12)
    assert float(ours.abs().sum()) == pytest.approx(float(R.abs().sum()), rel=1e-12)


def test_a_value_added_to_itself_keeps_its_relevance() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + x).flatten(1)

    x, R = images(1, 2, 3, 3), images(1, 18, seed=3)
    for residual in (rules.Ratio(), rules.Norm(), rules.Gamma(1.0)):
        ours = propagate(Twice().eval(), x, R, composite(rules.ZPlus(), residual=residual))
        assert apart(ours, R.reshape(x.shape)) < TOLERANCE


def test_functional_residual_does_not_double() -> None:
    """zennit doubles the relevance at every functional ``y + conv(y)``: a seed of 1 became 2."""
    conv = randomise_(nn.Conv2d(2, 2, 3, padding=1, bias=False), 1)
    model = nn.Sequential(nn.ReLU(), Residual(conv, nn.Identity()), View()).double().eval()
    x = images(1, 2, 5, 5).abs()
    R = model(x).detach().relu()  # outputs with something to hand on
    ours = propagate(model, x, R, composite(rules.ZPlus()))
    assert float(ours.sum()) == pytest.approx(float(R.sum()), rel=1e-12)
