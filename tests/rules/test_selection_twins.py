"""Gradient selection equals its formula, layer by layer, in a network propagated by hand."""

import copy
import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.selection import Selection
from oracle import nets, network
from oracle.calls import apart, captured, images
from oracle.linear import Array

CLASSES = 5
LOW, HIGH = (-4.0, -5.0), (4.5, 4.0)
NAMES = ("zplus-box", "epsilon-plus-box", "epsilon-gamma-box", "epsilon-alpha2-beta1")
RESNET: nets.Plan = (
    ("conv", {"conv": {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "padding": 1}, "norm": True}),
    ("relu", {}),
    ("max", {"kernel_size": 2, "stride": 2}),
    ("residual", {"inputs": 4, "outputs": 5, "stride": 2, "bias": False}),
    ("residual", {"inputs": 5, "outputs": 5, "stride": 1, "bias": False}),
    ("global", {"inputs": 5, "outputs": CLASSES}),
)
CHAIN: nets.Plan = (
    ("conv", {"conv": {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "padding": 1}, "norm": True}),
    ("relu", {}),
    ("conv", {"conv": {"in_channels": 4, "out_channels": 5, "kernel_size": 3, "stride": 2}, "norm": True}),
    ("relu", {}),
    ("max", {"kernel_size": 2, "stride": 1}),
    ("conv", {"conv": {"in_channels": 5, "out_channels": 4, "kernel_size": 2}, "norm": False}),
    ("relu", {}),
    ("dense", {"inputs": 4, "outputs": CLASSES, "bias": True}),
)

DECODER: nets.Plan = (
    ("conv", {"conv": {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "stride": 2}, "norm": True}),
    ("relu", {}),
    (
        "transposed",
        {
            "conv": {
                "in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 1,
                "output_padding": 1, "groups": 2,
            },
            "norm": True,
        },
    ),
    ("relu", {}),
    ("conv", {"conv": {"in_channels": 6, "out_channels": 4, "kernel_size": 2, "stride": 2}, "norm": False}),
    ("relu", {}),
    ("global", {"inputs": 4, "outputs": CLASSES}),
)  # fmt: skip
PLANS = {"resnet": RESNET, "chain": CHAIN, "decoder": DECODER}


@cache
def built(which: str) -> nn.Module:
    """One model for all tests of it, so that it is captured once; none changes it."""
    return nets.build(PLANS[which])


def channel(R: Array, g: Array) -> Array:
    """``R_k <- alpha_k R_k`` with ``alpha_k = ReLU(mean over positions of g_k)``, then ``sum |R|`` as it was."""
    alpha = np.zeros(len(g))
    for k in range(len(g)):
        alpha[k] = max(0.0, g[k].sum() / g[k].size)
    return rescaled(R, R * alpha[:, None, None])


def element(R: Array, g: Array) -> Array:
    """``R <- ReLU(g) R`` at every position, then ``sum |R|`` as it was."""
    return rescaled(R, R * np.maximum(g, 0.0))


def rescaled(before: Array, after: Array) -> Array:
    size = np.abs(after).sum()
    return before if size == 0.0 else after * np.abs(before).sum() / size


FORMS = {"channel": channel, "element": element}


def check(
    model: nn.Module, twin: network.Twin, selection: Selection, composite: str, rivals: Any = None
) -> None:
    """Three images, SGLRP's seed."""
    x, target = images(3, 2, 8, 8).clamp(-3, 3), torch.tensor([0, 2, 4])
    method = clarp.Method(seed=clarp.seeds.SoftmaxGradient(), selection=selection, composite=composite)
    explainer = clarp.Explainer(captured(model), method, bounds=(LOW, HIGH), dtype=torch.float64)
    ours = explainer(x, target, against=rivals).relevance
    theirs = []
    for a, t in zip(x.numpy(), target.tolist(), strict=True):
        z = network.logits(model, a)
        seed, direction = directions(z, t, range(CLASSES) if rivals is None else rivals)
        gradient = direction if getattr(selection, "gradient", None) == "logit" else seed
        theirs.append(network.propagate(model, a, seed, twin, gradient))
    assert all(np.abs(each).max() > 1e-6 for each in theirs), "rounding noise proves nothing"
    assert apart(ours, np.stack(theirs)) < 1e-9


def directions(z: Array, target: int, among: Any) -> tuple[Array, Array]:
    """``e_t - s``, with s the softmax over the rivals, and ``e_t``."""
    s = np.zeros_like(z)
    for n in among:
        s[n] = 0.0 if n == target else np.exp(z[n])
    own = np.eye(len(z))[target]
    return own - s / s.sum(), own


def formula(name: str) -> network.Twin:
    low, high = (np.repeat(np.array(bound), 64) for bound in (LOW, HIGH))
    return network.composites(low, high)[name]


@pytest.mark.parametrize("gradient", ["probability", "logit"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_every_convolution(name: str, form: str, gradient: str) -> None:
    """Each convolution's output, batch norm folded, in the branches of a residual too."""
    twin = dataclasses.replace(formula(name), select=lambda _, R, g: FORMS[form](R, g))
    check(built("resnet"), twin, Selection(form, "all", gradient), name)


@pytest.mark.parametrize("form", FORMS)
def test_last_convolution(form: str) -> None:
    model = built("resnet")
    (last,) = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1:]
    twin = dataclasses.replace(
        formula("zplus-box"), select=lambda m, R, g: FORMS[form](R, g) if m is last else R
    )
    check(model, twin, Selection(form, "last"), "zplus-box")


def test_last_stage() -> None:
    """The convolutions whose maps are as large as the last one's: here 2 x 2, both residual blocks."""
    model = built("resnet")
    first = model[0]
    twin = dataclasses.replace(
        formula("zplus-box"), select=lambda m, R, g: R if m is first else channel(R, g)
    )
    check(model, twin, Selection("channel", "last-stage"), "zplus-box")


@pytest.mark.parametrize("layers", [("4.body.*",), ("0", "6.body.3"), ("6.*",)])
def test_named_layers(layers: tuple[str, ...]) -> None:
    model = built("resnet")
    names = {"4.body.*": ["4.body.0", "4.body.3"], "6.*": ["6.body.0", "6.body.3"]}
    chosen = {model.get_submodule(name) for pattern in layers for name in names.get(pattern, [pattern])}
    twin = dataclasses.replace(
        formula("zplus-box"), select=lambda m, R, g: channel(R, g) if m in chosen else R
    )
    check(model, twin, Selection("channel", layers), "zplus-box")


def test_against() -> None:
    """The rivals are those of the question: in the seed and in the selection's gradient."""
    twin = dataclasses.replace(formula("zplus-box"), select=lambda _, R, g: channel(R, g))
    check(built("resnet"), twin, Selection(), "zplus-box", rivals=[1, 3])


def neuron(g: Array) -> Array:
    """``m = ReLU(g)``, 1 at its strongest, and a millionth everywhere so that nothing is lost."""
    positive = np.maximum(g, 0.0)
    top = positive.max()
    return positive / (top if top > 0 else 1.0) + 1e-6


def neuron_mask(g: Array) -> Array:
    """``m = 1[g > 0]``, and a millionth everywhere."""
    return (g > 0) + 1e-6


@pytest.mark.parametrize(("form", "modulation"), [("neuron", neuron), ("neuron-mask", neuron_mask)])
@pytest.mark.parametrize("name", ["zplus-box", "epsilon-plus", "epsilon-alpha2-beta1"])
def test_neuron_form(name: str, form: str, modulation: Any) -> None:
    """The rule reads ``m a`` instead of a: ``R_i = sum_j a_i m_i w+_ij / sum_i' (...) R_j``; not at the pixels."""
    twin = dataclasses.replace(formula(name), modulate=lambda _, g: modulation(g))
    check(built("chain"), twin, Selection(form), name)


@pytest.mark.parametrize("name", ["zplus-box", "epsilon-gamma-box", "epsilon-alpha2-beta1"])
@pytest.mark.parametrize("form", [*FORMS, "neuron", "neuron-mask"])
def test_transposed_convolutions_are_selected_at(form: str, name: str) -> None:
    if form in FORMS:
        twin = dataclasses.replace(formula(name), select=lambda _, R, g: FORMS[form](R, g))
    else:
        modulation = {"neuron": neuron, "neuron-mask": neuron_mask}[form]
        twin = dataclasses.replace(formula(name), modulate=lambda _, g: modulation(g))
    check(built("decoder"), twin, Selection(form), name)


def test_two_selections_by_stage() -> None:
    """Neuron form at the last convolution with positions, channel form at the others: the first that names a layer counts."""
    model = built("chain")
    last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-2]
    twin = dataclasses.replace(
        formula("zplus-box"),
        select=lambda m, R, g: R if m is last else channel(R, g),
        modulate=lambda m, g: neuron(g) if m is last else np.ones_like(g),
    )
    check(model, twin, (Selection("neuron", "last"), Selection()), "zplus-box")


@cache
def all_gradients_positive() -> nn.Module:
    """The target 0 gains, and every rival loses, by whatever any convolution puts out; no test changes it."""
    model = nets.build(CHAIN)
    with torch.no_grad():
        for conv in [module for module in model.modules() if isinstance(module, nn.Conv2d)][1:]:
            conv.weight.abs_()
            conv.bias.abs_()
        for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
            norm.weight.abs_()
            norm.bias.abs_().add_(2.0)
            norm.running_mean.abs_().neg_()
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        linears[0].weight.abs_()
        linears[0].bias.abs_()
        linears[1].weight.abs_().neg_()
        linears[1].weight[0].neg_()
    return model


def relevance(model: nn.Module, selection: Any, x: Tensor, composite: str = "zplus-box") -> Any:
    method = clarp.Method(seed=clarp.seeds.SoftmaxGradient(), selection=selection, composite=composite)
    return clarp.Explainer(captured(model), method, bounds=(LOW, HIGH), dtype=torch.float64)(x, 0)


@pytest.mark.parametrize("name", NAMES)
def test_neuron_form_with_nothing_deselected_is_sglrp(name: str) -> None:
    """Form B with m = 1: where every gradient is positive the mask is 1 everywhere."""
    model, x = all_gradients_positive(), images(2, 2, 8, 8).clamp(-3, 3)
    ours = relevance(model, Selection("neuron-mask"), x, name).relevance
    assert apart(ours, relevance(model, None, x, name).relevance) < 1e-5


@pytest.mark.parametrize("form", ["neuron", "neuron-mask"])
def test_neuron_form_conserves(form: str) -> None:
    """What the selection moves it does not lose: every convolution hands on as much as without it."""
    model, x = built("chain"), images(3, 2, 8, 8).clamp(-3, 3)
    selected, whole = (relevance(model, selection, x) for selection in (Selection(form), None))
    assert float(selected.ledger.total("selection").abs().max()) == 0.0
    for entry in selected.ledger:
        if type(entry.node.operation).__name__ == "Convolution":
            scale = entry.arrived.abs().max()
            assert float((entry.arrived - entry.handed_on).abs().max() / scale) < 1e-9
    assert apart(selected.relevance.sum((1, 2, 3)), whole.relevance.sum((1, 2, 3))) < 1e-9


@pytest.mark.parametrize("form", ["channel", "element"])
def test_no_positive_gradient_skips_and_counts(form: str) -> None:
    """The opposite of the network above: nothing that any convolution does helps class 1, so nothing is selected."""
    model, x = copy.deepcopy(all_gradients_positive()), images(2, 2, 8, 8).clamp(-3, 3)
    with torch.no_grad():
        last = model[-1]
        last.weight[1] = -10.0 * last.weight[0]
    method = clarp.Method(
        seed=clarp.seeds.SoftmaxGradient(), selection=Selection(form), composite="zplus-box"
    )
    explainer = clarp.Explainer(captured(model), method, bounds=(LOW, HIGH), dtype=torch.float64)
    none = explainer(x, 1)
    assert (torch.as_tensor(none.selection_skipped) == 3).all()
    plain = clarp.Explainer(captured(model), "sglrp", bounds=(LOW, HIGH), dtype=torch.float64)(x, 1)
    assert apart(none.relevance, plain.relevance) < 1e-12
    assert (torch.as_tensor(explainer(x, 0).selection_skipped) == 0).all()


def test_selection_does_not_underflow_in_a_deep_network() -> None:
    """Each layer multiplies by alpha, about 1 / C: 30 layers of it would leave 1e-50 in float32."""
    layers: list[nn.Module] = [nn.Conv2d(2, 24, 3, padding=1), nn.ReLU()]
    for _ in range(30):
        layers += [nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()]
    model = nets.randomise_(nn.Sequential(*layers, nets.Mean(), nn.Linear(24, CLASSES)), 1).eval()
    with torch.no_grad():
        for conv in model:
            if isinstance(conv, nn.Conv2d):
                conv.weight.mul_(2**0.5)
    method = clarp.Method(clarp.seeds.SoftmaxGradient(), Selection("channel", "all"))
    e = clarp.Explainer(model, method)(images(2, 2, 6, 6, dtype=torch.float32), 1)
    size = e.relevance.abs().sum((1, 2, 3))
    assert (size > 1e-3).all()
    assert (size < 1e3).all()


def test_selection_needs_a_convolution() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, CLASSES)).double().eval()
    with pytest.raises(ValueError, match=r"convolution"):
        clarp.Explainer(model, "ssglrp")(images(1, 2, 4, 4))


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"form": "neurons"}, "neurons"),
        ({"layers": "every"}, "every"),
        ({"layers": ()}, r"\(\)"),
        ({"layers": (3,)}, "3"),
        ({"gradient": "loss"}, "loss"),
    ],
)
def test_bad_selections(options: dict[str, Any], given: str) -> None:
    with pytest.raises(ValueError, match=given):
        Selection(**options)


def test_a_layer_that_is_not_there() -> None:
    method = clarp.Method(seed=clarp.seeds.Logit(), selection=Selection(layers=("6.body.33",)))
    with pytest.raises(ValueError, match=r"6\.body\.33.*6\.body\.3"):
        clarp.Explainer(captured(built("resnet")), method)(images(1, 2, 8, 8))
