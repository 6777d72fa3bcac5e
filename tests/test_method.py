"""Methods as data: what is refused when a method is put together."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import clarp
from clarp import rules
from clarp.method import BASELINES
from clarp.rules.composites import Composite
from oracle.calls import apart, images


def test_names_are_found_and_methods_returned() -> None:
    for name in clarp.methods():
        assert clarp.Method.named(name).name == name
    own = clarp.Method(clarp.seeds.SoftmaxGradient(rivals=3))
    assert clarp.Method.named(own) is own


def test_methods_are_values() -> None:
    assert clarp.Method.named("sglrp") == clarp.Method(clarp.seeds.SoftmaxGradient(), name="sglrp")
    assert repr(clarp.Method.named("lrp")) == repr(clarp.Method(name="lrp"))


def test_each_method_says_when_to_take_it_and_is_the_same_without() -> None:
    for name in clarp.methods():
        method = clarp.Method.named(name)
        assert method.when.endswith(".")
        assert method.when not in repr(method)
        assert replace(method, when="") == method


@pytest.mark.parametrize(
    ("name", "baseline"),
    [
        *((name, name) for name in BASELINES),
        ("Grad-CAM", "gradcam"),
        ("GradCAM++", "gradcam-plusplus"),
        ("gradcam@layer4", "gradcam@layer4"),
        ("guided_backpropagation", "guided-backprop"),
        ("IntegratedGradients", "integrated-gradients"),
    ],
)
def test_a_baseline_is_told_where_it_can_be_seen(name: str, baseline: str) -> None:
    with pytest.raises(ValueError, match="clarp evaluate") as told:
        clarp.Explainer(nn.Flatten(), name)
    assert f"`clarp compare PHOTO --methods {baseline},ssglrp`" in str(told.value)
    assert str(told.value).count(". ") == 0  # one sentence


@pytest.mark.parametrize("name", ["lrpp", "grad", "x", "", "@", "camera"])
def test_what_is_no_baseline_is_an_unknown_method(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown method .*, expected one of lrp, "):
        clarp.Method.named(name)


@pytest.mark.parametrize(
    "rule",
    [rules.Zero(), rules.Epsilon(), rules.Norm(), rules.Flat(), rules.WSquare()],
    ids=lambda rule: type(rule).__name__,
)
def test_dual_refuses_rules_that_do_not_see_signs(rule: rules.LinearRule) -> None:
    composite = Composite("mine", rules.ZPlus(), rule)
    with pytest.raises(ValueError, match=type(rule).__name__):
        clarp.Method(passes="dual", composite=composite)


def test_dual_refuses_a_convolutional_head_of_such_a_rule() -> None:
    """A head of convolutions takes the convolutions' rule, which only the plan knows."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    method = clarp.Method(passes="dual", composite=Composite("mine", rules.Zero(), rules.ZPlus()))
    with pytest.raises(ValueError, match="Zero"):
        clarp.Explainer(model, method)(torch.rand(1, 3, 6, 6))


def test_dual_refuses_rivals_that_it_would_not_use() -> None:
    with pytest.raises(ValueError, match="SoftmaxGradient"):
        clarp.Method(clarp.seeds.SoftmaxGradient(), passes="dual")


@pytest.mark.parametrize("layers", [3, None, 1.5])
def test_selection_refuses_layers_that_are_no_names(layers: object) -> None:
    with pytest.raises(TypeError, match=str(layers)):
        clarp.Selection(layers=layers)


def test_dual_refuses_a_seed_of_which_it_would_use_a_part() -> None:
    with pytest.raises(ValueError, match="Vector"):
        clarp.Method(clarp.seeds.Vector(torch.ones(5)), passes="dual")


def test_dual_with_selection_in_a_convolutional_head() -> None:
    """Each pass has its own selected inputs: many targets are those one by one."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    method = clarp.Method(passes="dual", selection=clarp.Selection("neuron"))
    explainer = clarp.Explainer(model.double().eval(), method)
    x = images(2, 3, 6, 6)
    together = explainer(x, [[0, 1], [2, 3]]).relevance
    for k, target in enumerate(([0, 2], [1, 3])):
        assert apart(together[:, k], explainer(x, target).relevance) < 1e-12
