"""Every rule on every linear layer equals its brute-force twin, through the public API."""

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clarp import rules
from oracle import linear
from oracle.calls import apart, composite, images, propagate
from oracle.nets import randomise_

TOLERANCE = 1e-10
CHANNELS = 4
LOW, HIGH = (-2.5, -3.0, -2.0, -4.0), (3.5, 3.0, 4.0, 2.5)  # wider than the pixels that ``pixels`` draws

PLAIN = {
    "zero": (rules.Zero(), linear.zero),
    "epsilon": (rules.Epsilon(0.01), partial(linear.epsilon, epsilon=0.01)),
    "epsilon-large": (rules.Epsilon(2.0), partial(linear.epsilon, epsilon=2.0)),
    "zplus": (rules.ZPlus(), linear.zplus),
    "zplus-scaled": (rules.ScaledZPlus(), linear.scaled_zplus),
    "gamma": (rules.Gamma(0.25), partial(linear.gamma, gamma=0.25)),
    "gamma-large": (rules.Gamma(3.0), partial(linear.gamma, gamma=3.0)),
    "alpha2-beta1": (rules.AlphaBeta(2, 1), partial(linear.alpha_beta, alpha=2.0, beta=1.0)),
    "alpha1-beta0": (rules.AlphaBeta(1, 0), partial(linear.alpha_beta, alpha=1.0, beta=0.0)),
    "flat": (rules.Flat(), linear.flat),
    "wsquare": (rules.WSquare(), linear.wsquare),
    "norm": (rules.Norm(), linear.norm),
}
ALL = [*PLAIN, "zbox"]


def pixels(batch: int, height: int, width: int, seed: int) -> Tensor:
    """Images (B, 4, H, W) of either sign, within LOW and HIGH."""
    return images(batch, CHANNELS, height, width, seed=seed).clamp(-2.0, 2.0)


def pair(name: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The rule and its twin; ``shape`` of the images (C, H, W)."""
    if name != "zbox":
        return PLAIN[name]
    low, high = (np.repeat(np.array(bound), shape[1] * shape[2]) for bound in (LOW, HIGH))
    return rules.ZBox(LOW, HIGH), partial(linear.zbox, low=low, high=high)


def check(model: nn.Module, layer: nn.Module, x: Tensor, name: str, seed: int = 1) -> None:
    """``model`` is ``layer`` on the images, flattened before or after."""
    model = model.double().eval()
    rule, twin = pair(name, tuple(x.shape[1:]))
    with torch.no_grad():
        outputs = model(x).shape[1]
    R = images(len(x), outputs, seed=seed)
    ours = propagate(model, x, R, composite(rule))
    shape = tuple(x.shape[1:]) if not isinstance(layer, nn.Linear) else (x[0].numel(),)
    matrix = linear.affine(layer, shape)
    theirs = np.stack([twin(matrix, a.reshape(-1).numpy(), r.numpy()) for a, r in zip(x, R, strict=True)])
    assert apart(ours, theirs.reshape(x.shape)) < TOLERANCE


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, int, int]:
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel, dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), draw(st.integers(1, 2))
    same = draw(st.integers(0, 4)) == 0
    conv = nn.Conv2d(
        CHANNELS,
        groups * draw(st.integers(1, 2)),
        kernel,
        stride=1 if same else draw(st.tuples(st.integers(1, 3), st.integers(1, 2))),
        padding="same" if same else draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )
    height, width = draw(st.integers(5, 7)), draw(st.integers(5, 7))
    return randomise_(conv, draw(st.integers(0, 99))), height, width


@pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel:UserWarning"
)  # PyTorch's, of the model itself
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6)
@given(drawn=convolutions())
def test_convolution(name: str, drawn: tuple[nn.Conv2d, int, int]) -> None:
    conv, height, width = drawn
    check(nn.Sequential(conv, nn.Flatten()), conv, pixels(2, height, width, seed=3), name)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> tuple[nn.ConvTranspose2d, int, int]:
    groups, dilation = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 2))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    conv = nn.ConvTranspose2d(
        CHANNELS,
        groups * draw(st.integers(1, 2)),
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        stride=stride,
        padding=draw(st.tuples(st.integers(0, 1), st.integers(0, 1))),
        output_padding=tuple(draw(st.integers(0, max(s, dilation) - 1)) for s in stride),
        groups=groups,
        dilation=dilation,
        bias=draw(st.booleans()),
    )
    height, width = draw(st.integers(3, 4)), draw(st.integers(3, 4))
    return randomise_(conv, draw(st.integers(0, 99))), height, width


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6)
@given(drawn=transposed_convolutions())
def test_transposed_convolution(name: str, drawn: tuple[nn.ConvTranspose2d, int, int]) -> None:
    conv, height, width = drawn
    check(nn.Sequential(conv, nn.Flatten()), conv, pixels(2, height, width, seed=3), name)


TRANSPOSED = {
    "as decoders have it": {"kernel_size": 4, "stride": 2, "padding": 1},
    "gaps between the kernels": {"kernel_size": 1, "stride": 3, "output_padding": 2},
    "depthwise, asymmetric": {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 2), "groups": CHANNELS},
    "more left on than the stride": {"kernel_size": 2, "dilation": 2, "output_padding": 1, "groups": 2},
}


@cache
def transposed(which: str) -> tuple[nn.Module, nn.Module]:
    """A model and its layer: one for all rules, as in the functions below, so that it is captured once."""
    conv = randomise_(nn.ConvTranspose2d(CHANNELS, 8, **TRANSPOSED[which]), 2)
    return nn.Sequential(conv, nn.Flatten()), conv


@pytest.mark.parametrize("name", ["zbox", "flat", "wsquare", "gamma", "zplus"])
@pytest.mark.parametrize("which", TRANSPOSED)
def test_awkward_transposed_convolution(name: str, which: str) -> None:
    check(*transposed(which), pixels(2, 3, 4, seed=5), name)


@cache
def behind_zeros(amounts: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    conv = randomise_(nn.ConvTranspose2d(CHANNELS, 2, 3, stride=2, padding=1), 2)
    around = Everywhere(nn.Sequential(nn.ZeroPad2d(amounts), conv))
    return nn.Sequential(around, nn.Flatten()), around


@pytest.mark.parametrize("amounts", [(1, 1, 1, 1), (0, 2, 1, 0)], ids=["even", "uneven"])
@pytest.mark.parametrize("name", ["zbox", "flat", "wsquare", "epsilon"])
def test_zeros_before_a_transposed_convolution(name: str, amounts: tuple[int, ...]) -> None:
    """They belong to the convolution: no rule hands relevance to them."""
    check(*behind_zeros(amounts), pixels(2, 3, 4, seed=5), name)


@cache
def dense(bias: bool) -> tuple[nn.Module, nn.Module]:
    layer = randomise_(nn.Linear(CHANNELS * 6, 5, bias=bias), 7)
    return nn.Sequential(nn.Flatten(), layer), layer


@pytest.mark.parametrize("amounts", [(1, 1, 2, 2), (0, 1, 0, 1), (1, 1, 0, 1)])
def test_zeros_before_a_convolution(amounts: tuple[int, ...]) -> None:
    """They are its padding, even, uneven, or uneven along one axis alone."""
    conv = randomise_(nn.Conv2d(CHANNELS, 4, 3, padding=1), 2)
    around = Everywhere(nn.Sequential(nn.ZeroPad2d(amounts), conv))
    check(nn.Sequential(around, nn.Flatten()), around, pixels(2, 3, 4, seed=5), "flat")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_dense(name: str, bias: bool) -> None:
    check(*dense(bias), pixels(3, 2, 3, seed=4), name)


CONVOLUTIONS = {
    "padded, zbox sees no padding": {"kernel_size": 3, "padding": 2},
    "kernel larger than the image": {"kernel_size": 5, "padding": 2},
    "depthwise, strided": {"kernel_size": 3, "stride": 2, "padding": 1, "groups": CHANNELS},
    "asymmetric": {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)},
    "same, even kernel": {"kernel_size": (2, 4), "padding": "same"},
    "valid": {"kernel_size": 2, "padding": "valid", "bias": False},
    "stride leaves pixels unread": {"kernel_size": 1, "stride": 2},
}


@cache
def awkward(which: str) -> tuple[nn.Module, nn.Module]:
    conv = randomise_(nn.Conv2d(CHANNELS, 4, **CONVOLUTIONS[which]), 2)
    return nn.Sequential(conv, nn.Flatten()), conv


@pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel:UserWarning"
)  # PyTorch's, once in a process: whichever test comes first sees it
@pytest.mark.parametrize("name", ["zbox", "flat", "wsquare", "gamma"])
@pytest.mark.parametrize("which", CONVOLUTIONS)
def test_awkward_convolution(name: str, which: str) -> None:
    check(*awkward(which), pixels(2, 4, 5, seed=5), name)


@cache
def behind_a_relu() -> tuple[nn.Module, nn.Module]:
    conv = randomise_(nn.Conv2d(CHANNELS, 3, 3, padding=1), 5).double()
    return nn.Sequential(nn.ReLU(), conv, nn.Flatten()).eval(), conv


@pytest.mark.parametrize("name", PLAIN)
def test_non_negative_input(name: str) -> None:
    """After a ReLU parts of the table are known to be zero; dropping them changes nothing."""
    (model, conv), x = behind_a_relu(), pixels(2, 5, 4, seed=8)
    rule, twin = PLAIN[name]
    R = images(2, 60, seed=9)
    matrix = linear.affine(conv, (CHANNELS, 5, 4))
    theirs = [
        twin(matrix, a.relu().reshape(-1).numpy(), r.numpy()).reshape(a.shape)
        for a, r in zip(x, R, strict=True)
    ]
    assert apart(propagate(model, x, R, composite(rule)), np.stack(theirs)) < TOLERANCE


@cache
def of_one_and_three_dimensions() -> list[tuple[nn.Module, nn.Module, tuple[int, ...]]]:
    """Rows of pixels through a Conv1d, channels as depth through a Conv3d: model, layer, what the layer sees."""
    found: list[tuple[nn.Module, nn.Module, tuple[int, ...]]] = []
    for shape, made in (
        ((CHANNELS, 12), nn.Conv1d(CHANNELS, 4, 3, stride=2, padding=1, groups=2)),
        ((2, 2, 3, 4), nn.Conv3d(2, 3, 2, padding=(1, 0, 1), dilation=(1, 2, 1))),
        ((CHANNELS, 12), nn.ConvTranspose1d(CHANNELS, 4, 3, stride=2, output_padding=1, groups=2)),
        ((2, 2, 3, 4), nn.ConvTranspose3d(2, 3, 2, stride=(1, 2, 1), padding=(1, 0, 0), dilation=(2, 1, 1))),
    ):
        layer = randomise_weights(made)
        model = nn.Sequential(nn.Flatten(), nn.Unflatten(1, shape), layer, nn.Flatten()).double().eval()
        found.append((model, layer, shape))
    return found


@pytest.mark.parametrize("name", ALL)
def test_one_and_three_dimensions(name: str) -> None:
    x = pixels(2, 3, 4, seed=6)
    for model, layer, shape in of_one_and_three_dimensions():
        rule, twin = pair(name, tuple(x.shape[1:]))
        R = images(2, model(x).shape[1], seed=3)
        ours = propagate(model, x, R, composite(rule))
        matrix = linear.affine(layer, shape)
        theirs = [twin(matrix, a.flatten().numpy(), r.numpy()) for a, r in zip(x, R, strict=True)]
        assert apart(ours, np.stack(theirs).reshape(x.shape)) < TOLERANCE


@pytest.mark.parametrize("name", ["zplus", "epsilon", "gamma", "flat", "zbox"])
def test_dense_layer_on_rows(name: str) -> None:
    """A dense layer on the last axis of (B, C, H, W): one matrix at many places."""
    layer = randomise_(nn.Linear(5, 3), 4).double()
    x = pixels(2, 2, 5, seed=6)
    check(nn.Sequential(layer, nn.Flatten()), Everywhere(layer), x, name)


class Everywhere(nn.Module):
    """The layer as a map of the whole image; it is no nn.Linear, whose input would be flat."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def randomise_weights(layer: nn.Module) -> nn.Module:
    """The layer in float64, its bias away from zero."""
    with torch.no_grad():
        layer.bias.uniform_(-0.3, 0.3)
    return layer.double()


@cache
def dead() -> tuple[nn.Module, nn.Module]:
    conv = randomise_(nn.Conv2d(CHANNELS, 4, 3, bias=False), 6)
    with torch.no_grad():
        conv.weight[0] = 0.0  # an output without weights: z = 0 in every rule but flat
        conv.weight[1] = conv.weight[1].abs()  # an output without negative weights
        conv.weight[2, :2] = 0.0
    return nn.Sequential(conv, nn.Flatten()), conv


@pytest.mark.parametrize("name", ALL)
def test_dead_outputs_hand_on_nothing(name: str) -> None:
    """Zero pixels, zero weights, zero denominators: finite, and as the formula says."""
    x = pixels(3, 5, 5, seed=10)
    x[0] = 0.0
    x[1] = x[1].abs()
    x[2, :, :3] = 0.0
    check(*dead(), x, name)


def test_epsilon_at_zero_counts_as_positive() -> None:
    """``sign(0) = 1``: an output of exactly zero made of 1 - 1 is divided by +epsilon."""
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
    x = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), layer).double().eval()
    ours = propagate(model, x, torch.ones(1, 1, dtype=torch.float64), composite(rules.Epsilon(0.5)))
    assert ours.flatten().tolist() == [2.0, -2.0]


@pytest.mark.parametrize(("alpha", "beta"), [(2, 1), (1.5, 0.5), (1, 0)])
def test_alpha_beta_of_other_strengths(alpha: float, beta: float) -> None:
    conv = randomise_(nn.Conv2d(CHANNELS, 3, 3), 1).double()
    x, R = pixels(1, 4, 4, seed=2), images(1, 12, seed=3)
    theirs = linear.alpha_beta(
        linear.affine(conv, (CHANNELS, 4, 4)), x.flatten().numpy(), R[0].numpy(), alpha=alpha, beta=beta
    )
    model = nn.Sequential(conv, nn.Flatten()).eval()
    ours = propagate(model, x, R, composite(rules.AlphaBeta(alpha, beta)))
    assert apart(ours, theirs.reshape(x.shape)) < TOLERANCE


@pytest.mark.parametrize("spelling", ["scalars", "lists", "tensors", "explainer"])
def test_box_bounds_in_every_spelling(spelling: str) -> None:
    """Scalars, sequences, tensors; in the rule, or given to the explainer."""
    conv = randomise_(nn.Conv2d(CHANNELS, 3, 3, padding=1), 1).double()
    model = nn.Sequential(conv, nn.Flatten()).eval()
    x, R = pixels(2, 4, 4, seed=2), images(2, 48, seed=3)
    low, high = ((-3.0,) * 4, (4.0,) * 4) if spelling == "scalars" else (LOW, HIGH)
    rule, bounds = rules.ZBox(), None
    if spelling == "scalars":
        rule = rules.ZBox(-3.0, 4.0)
    elif spelling == "lists":
        rule = rules.ZBox(list(LOW), list(HIGH))
    elif spelling == "tensors":
        rule = rules.ZBox(torch.tensor(LOW), torch.tensor(HIGH))
    else:
        bounds = (LOW, HIGH)
    ours = propagate(model, x, R, composite(rule), bounds=bounds)
    matrix = linear.affine(conv, (CHANNELS, 4, 4))
    box = {"low": np.repeat(low, 16), "high": np.repeat(high, 16)}
    theirs = [linear.zbox(matrix, a.flatten().numpy(), r.numpy(), **box) for a, r in zip(x, R, strict=True)]
    assert apart(ours, np.stack(theirs).reshape(x.shape)) < TOLERANCE


def test_box_without_bounds_takes_each_images_own() -> None:
    """Unknown bounds are each image's own channel minima and maxima, so that a batch equals its samples."""
    conv = randomise_(nn.Conv2d(CHANNELS, 3, 3, padding=1), 1).double()
    model = nn.Sequential(conv, nn.Flatten()).eval()
    x, R = pixels(2, 4, 4, seed=2), images(2, 48, seed=3)
    ours = propagate(model, x, R, composite(rules.ZBox()))
    matrix = linear.affine(conv, (CHANNELS, 4, 4))
    theirs = []
    for a, r in zip(x, R, strict=True):
        low, high = (np.repeat(bound, 16) for bound in (a.amin((1, 2)).numpy(), a.amax((1, 2)).numpy()))
        theirs.append(linear.zbox(matrix, a.flatten().numpy(), r.numpy(), low=low, high=high))
    assert apart(ours, np.stack(theirs).reshape(x.shape)) < TOLERANCE


def test_first_rule_meets_only_what_reads_the_pixels() -> None:
    """``first`` in the convolution on the pixels, ``convolution`` in the next, ``dense`` in the head."""
    one, two, head = nn.Conv2d(CHANNELS, 3, 3), nn.Conv2d(3, 3, 2), nn.Linear(12, 4)
    model = randomise_(nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), nn.Flatten(), head), 3).double().eval()
    x, R = pixels(1, 5, 5, seed=2), images(1, 4, seed=3)
    mixed = composite(rules.ZPlus(), dense=rules.Zero(), first=rules.Flat())
    with torch.no_grad():
        a, b = one(x).relu(), two(one(x).relu()).relu()
    relevance = linear.zero(linear.affine(head, (12,)), b.flatten().numpy(), R[0].numpy())
    relevance = linear.zplus(linear.affine(two, (3, 3, 3)), a.flatten().numpy(), relevance)
    relevance = linear.flat(linear.affine(one, (CHANNELS, 5, 5)), x.flatten().numpy(), relevance)
    assert apart(propagate(model, x, R, mixed), relevance.reshape(x.shape)) < TOLERANCE
