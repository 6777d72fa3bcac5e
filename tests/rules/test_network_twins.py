"""Whole networks, drawn at random, equal an independent propagation by explicit matrices."""

import copy
import dataclasses
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import clarp
from clarp.network import Network
from oracle import blocks, nets, network
from oracle.calls import apart, images, propagate

TOLERANCE = 1e-8
NAMES = (
    "zplus-box",
    "epsilon-plus",
    "epsilon-plus-box",
    "epsilon-plus-flat",
    "epsilon-alpha2-beta1",
    "epsilon-alpha2-beta1-flat",
    "epsilon-gamma-box",
    "zero",
    "epsilon",
)
OWN = clarp.composites.Composite(
    "gamma-alpha2-wsquare", clarp.rules.Gamma(0.25), clarp.rules.AlphaBeta(2, 1), clarp.rules.WSquare()
)
"""Rules that no named composite has at these places."""
LOW, HIGH = (-4.0, -5.0), (4.5, 4.0)


DRAWN: Counter[str] = Counter()
"""How many networks had each feature."""
FEATURES = {
    *nets.MAKERS.keys() - {"block"},
    *blocks.BLOCKS,
    *(
        f"{kind}, {what}"
        for kind in ("conv", "transposed")
        for what in ("strided", "grouped", "with batch norm")
    ),
    *("residual, strided", "residual, reused", "max, strided", "avg, strided", "ratio", "proportional"),
}


def twin(name: str, residual: str, shape: tuple[int, ...]) -> network.Twin:
    low, high = (np.repeat(np.array(bound), shape[1] * shape[2]) for bound in (LOW, HIGH))
    return dataclasses.replace(network.composites(low, high)[name], residual=network.RESIDUALS[residual])


def pixels(shape: tuple[int, ...], seed: int) -> Tensor:
    return images(2, *shape, seed=seed).clamp(-3, 3)


def check(
    model: nn.Module | Network,
    like: nn.Module,
    shape: tuple[int, ...],
    name: str,
    *,
    residual: str,
    seed: int = 0,
) -> None:
    """``model`` is what clarp explains, ``like`` the same network in modules that the oracle can read."""
    x = pixels(shape, seed)
    R = images(2, like(x.clone()).shape[1], seed=seed + 1)
    chosen = clarp.composites.get(OWN if name == OWN.name else name, residual=residual)
    ours = propagate(model, x, R, chosen, bounds=(LOW, HIGH))
    formula = twin(name, residual, shape)
    theirs = [network.propagate(like, a, r, formula) for a, r in zip(x.numpy(), R.numpy(), strict=True)]
    assert apart(ours, np.stack(theirs)) < TOLERANCE


def test_the_names_are_all_there() -> None:
    assert set(NAMES) <= set(clarp.composites.names())


def test_the_oracle_computes_the_models_logits() -> None:
    """Guards the guard: a twin that ran another network would prove nothing."""
    plan = (
        (
            "conv",
            {"conv": {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "groups": 2}, "norm": True},
        ),
        ("relu6", {}),
        ("max", {"kernel_size": 2, "stride": 1, "padding": 1, "ceil_mode": True}),
        ("residual", {"inputs": 4, "outputs": 3, "stride": 2, "bias": True}),
        ("twice", {"channels": 3, "bias": True}),
        ("global", {"inputs": 3, "outputs": 4}),
    )
    x = images(1, 2, 8, 7)
    for spelling in nets.SPELLINGS:
        model = nets.build(plan, spelling)
        with torch.no_grad():
            logits = model(x.clone())[0]
        assert apart(logits, network.logits(model, x[0].numpy())) < 1e-12


@pytest.mark.parametrize("spelling", nets.SPELLINGS)
@pytest.mark.parametrize("name", [*NAMES, OWN.name])
@settings(max_examples=11)
@given(
    drawn=nets.plans(),
    other=st.sampled_from([*NAMES, OWN.name]),
    residual=st.sampled_from(["ratio", "proportional"]),
    seed=st.integers(0, 1000),
)
def test_drawn_network(
    *,
    name: str,
    spelling: str,
    drawn: tuple[nets.Plan, tuple[int, int, int]],
    other: str,
    residual: str,
    seed: int,
) -> None:
    """330 networks. Each is captured once, which is what takes the time, and explained by two composites."""
    plan, shape = drawn
    like = nets.build(plan, seed=seed)
    assume(not nets.undecided(like, pixels(shape, seed)))
    found = (*nets.features(plan), residual)
    DRAWN.update((*found, "networks"))
    for word in found:
        event(word)
    model = Network(nets.build(plan, spelling, seed))
    for each in {name: None, other: None}:
        check(model, like, shape, each, residual=residual, seed=seed)


def test_every_feature_was_drawn() -> None:
    """What is hardly ever drawn is not tested."""
    if DRAWN["networks"] < 300:
        pytest.skip("it looks at what the tests before it drew: run all of them")
    rare = {word: DRAWN[word] for word in FEATURES if DRAWN[word] < 10}
    assert not rare


FIXED: nets.Plan = (
    (
        "conv",
        {
            "conv": {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "stride": 2, "padding": 1},
            "norm": True,
        },
    ),
    ("relu", {}),
    ("max", {"kernel_size": 3, "stride": 1, "padding": 1, "ceil_mode": False}),
    ("residual", {"inputs": 4, "outputs": 4, "stride": 1, "bias": False}),
    ("residual", {"inputs": 4, "outputs": 6, "stride": 2, "bias": False}),
    ("avg", {"kernel_size": 2, "stride": 1, "padding": 0, "ceil_mode": False}),
    ("dense", {"inputs": 6, "outputs": 5, "bias": True}),
)


@cache
def fixed(spelling: str = "module", tail: str = "dense") -> nn.Module:
    """One model for all tests of it, so that it is captured once; none changes it."""
    plan = FIXED if tail == "dense" else (*FIXED[:-1], ("global", {"inputs": 6, "outputs": 5}))
    return nets.build(plan, spelling)


@pytest.mark.parametrize("residual", ["ratio", "proportional"])
@pytest.mark.parametrize("name", NAMES)
def test_every_composite_on_a_small_resnet(name: str, residual: str) -> None:
    model = fixed()
    check(model, model, (2, 8, 8), name, residual=residual)


@pytest.mark.parametrize("spelling", ["functional", "inplace"])
@pytest.mark.parametrize("name", ["zplus-box", "epsilon-gamma-box", "epsilon"])
@pytest.mark.parametrize("tail", ["dense", "global"])
def test_spellings_agree_bit_for_bit(name: str, spelling: str, tail: str) -> None:
    """F.relu = nn.ReLU, torch.add and += = +, x.mean((2, 3)) = AdaptiveAvgPool2d(1) and Flatten."""
    x, R = images(2, 2, 8, 8), images(2, 5, seed=1)
    maps = [
        propagate(fixed(each, tail), x, R, clarp.composites.get(name), bounds=(LOW, HIGH))
        for each in ("module", spelling)
    ]
    assert torch.equal(*maps)


@cache
def spelt(kind: str) -> list[nn.Module]:
    """A network with such a block, in every spelling."""
    behind = 6 if kind == "grown" else 4
    plan: nets.Plan = (
        ("conv", {"conv": {"in_channels": 2, "out_channels": 4, "kernel_size": 3}, "norm": True}),
        ("relu", {}),
        ("block", {"kind": kind, "channels": 4}),
        ("preact", {"channels": behind}),
        ("upsample", {"mode": "bilinear"}),
        ("global", {"inputs": behind, "outputs": 3}),
    )
    return [nets.build(plan, spelling) for spelling in nets.SPELLINGS]


@pytest.mark.parametrize("kind", blocks.BLOCKS)
@pytest.mark.parametrize("name", ["zplus-box", "epsilon-alpha2-beta1", "epsilon-gamma-box", "epsilon"])
def test_every_block_in_every_spelling(kind: str, name: str) -> None:
    like = spelt(kind)[nets.SPELLINGS.index("module")]
    for model in spelt(kind):
        check(model, like, (2, 5, 6), name, residual="ratio")


@pytest.mark.parametrize("residual", ["ratio", "proportional"])
@pytest.mark.parametrize("name", ["zero", "epsilon"])
def test_a_lone_batch_norm_is_the_linear_layer_it_is(name: str, residual: str) -> None:
    """LRP-0 and LRP-epsilon don't see whether a batch norm was folded: behind a convolution, or behind a branch beside it."""

    class Beside(nn.Module):
        def __init__(self, *, folds: bool) -> None:
            super().__init__()
            self.folds, self.conv, self.norm, self.head = (
                folds,
                nn.Conv2d(2, 3, 3),
                nn.BatchNorm2d(3),
                nn.Linear(3, 4),
            )

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            z = self.norm(y if not self.folds else self.conv(x)).relu()
            return self.head((z + 0.1 * y.relu()).mean((2, 3)))

    x, R = images(2, 2, 6, 6), images(2, 4, seed=1)
    chosen = clarp.composites.get(name, residual=residual)
    one, other = (nets.randomise_(Beside(folds=folds), 4).double().eval() for folds in (True, False))
    assert (
        apart(propagate(one, x, R, chosen), propagate(other, x, R, chosen)) < 1e-4
    )  # epsilon: stabilised once more


class Shared(nn.Module):
    """One convolution at three places, its weight once more as a functional call, and one batch norm twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        x = self.norm(self.conv(x)).relu() + x
        x = torch.nn.functional.conv2d(x, self.conv.weight, self.conv.bias, padding=1).relu()
        return self.head(x.mean((2, 3)))

    def like(self) -> nn.Module:
        """The same network, with a module for each call."""
        conv, norm, head = self.conv, self.norm, self.head
        body = nn.Sequential(conv, norm, nn.ReLU())
        return nn.Sequential(
            conv,
            norm,
            nn.ReLU(),
            nets.Residual(body, nn.Identity()),
            conv,
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            head,
        )


@cache
def shared() -> Shared:
    return nets.randomise_(Shared(), 4).double().eval()


@pytest.mark.parametrize("name", ["zplus-box", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon"])
def test_reused_modules(name: str) -> None:
    """Every call is a place of its own; zennit's map for a module called twice was wrong."""
    model = shared()
    x, R = images(2, 3, 6, 6), images(2, 4, seed=1)
    bounds = ((-4.0, -5.0, -4.0), (4.5, 4.0, 5.0))
    ours = propagate(model, x, R, clarp.composites.get(name), bounds=bounds)
    low, high = (np.repeat(np.array(bound), 36) for bound in bounds)
    formula = network.composites(low, high)[name]
    theirs = [
        network.propagate(model.like(), a, r, formula) for a, r in zip(x.numpy(), R.numpy(), strict=True)
    ]
    assert apart(ours, np.stack(theirs)) < TOLERANCE


class Before(nn.Module):
    """A batch norm *before* the convolution (as in pre-activation networks)."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 3, padding=padding)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = self.conv(self.norm(x)).relu()
        return self.head(x.mean((2, 3)))

    def like(self) -> nn.Module:
        """The same network without the batch norm, folded by hand (only where nothing is padded)."""
        conv = copy.deepcopy(self.conv)
        with torch.no_grad():
            scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
            shift = self.norm.bias - self.norm.running_mean * scale
            conv.bias += (conv.weight * shift[None, :, None, None]).sum((1, 2, 3))
            conv.weight *= scale[None, :, None, None]
        tail = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.head)
        return nn.Sequential(self.first, nn.ReLU(), conv, *tail)


@cache
def before() -> Before:
    return nets.randomise_(Before(padding=0), 4).double().eval()


@pytest.mark.parametrize("name", ["zplus-box", "epsilon-plus", "epsilon-gamma-box", "epsilon", "zero"])
def test_batch_norm_before_an_unpadded_convolution(name: str) -> None:
    model = before()
    x = images(1, 2, 7, 7)
    assert apart(model(x)[0], network.logits(model.like(), x[0].numpy())) < 1e-12
    check(model, model.like(), (2, 7, 7), name, residual="ratio")


def test_every_value_is_finite_on_an_all_zero_image() -> None:
    """captum crashes on an all-zero map; nothing may become NaN here."""
    model = fixed()
    x, R = torch.zeros(1, 2, 8, 8, dtype=torch.float64), images(1, 5, seed=1)
    for name in NAMES:
        relevance = propagate(model, x, R, clarp.composites.get(name), bounds=(LOW, HIGH))
        assert torch.isfinite(relevance).all(), name


def test_wide_float_range() -> None:
    """Relevance far below 1 and far above survives: the rules are linear in it."""
    model = fixed()
    x, R = images(2, 2, 8, 8), images(2, 5, seed=1)

    def relevance(scale: float) -> Any:
        return propagate(model, x, R * scale, clarp.composites.get("zplus-box"), bounds=(LOW, HIGH))

    once = relevance(1.0)
    for scale in (1e-200, 1e200):
        assert apart(relevance(scale) / scale, once) < 1e-12
