"""Depthwise convolutions: which composite a method has where there are some, and what the rule for them does."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import Method, rules

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(groups: int, channels: int = 4, *, dead: bool = True) -> nn.Module:
    """Half of the middle convolution's outputs have negative weights and a positive bias: nothing but the bias raises them."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, channels, 3)
    middle, head = nn.Conv2d(channels, channels, 3, padding=1, groups=groups), nn.Linear(channels, 5)
    with torch.no_grad():
        first.weight.abs_()
        head.weight.abs_()
        middle.weight.abs_()
        middle.bias.fill_(10.0)
        if dead:
            middle.weight[: channels // 2] *= -1
    return (
        nn.Sequential(
            first,
            nn.ReLU(),
            middle,
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            head,
        )
        .double()
        .eval()
    )


def arrived(explanation: clarp.Explanation) -> Tensor:
    return explanation.ledger.pixels / explanation.ledger.seed


@pytest.mark.parametrize(
    ("groups", "composite"), [(4, "zplus-scaled-box"), (2, "zplus-box"), (1, "zplus-box")]
)
def test_a_method_has_the_composite_of_its_network(groups: int, composite: str) -> None:
    explainer = clarp.Explainer(network(groups, dead=False), "lrp")
    assert explainer.plan((3, 8, 8)).composite == clarp.composites.get(composite)
    explanation = explainer(X, 0)
    assert explanation.method.rules.name == explainer.method.rules.name == composite
    assert explanation.describe()["composite"] == composite


def test_what_was_asked_for_by_name_stays() -> None:
    model = network(4, dead=False)
    for method in (
        clarp.Explainer(model, "lrp", composite="zplus-box").method,
        Method.named("lrp").with_composite("zplus-box"),
        dataclasses.replace(Method.named("lrp"), composite="zplus-box"),
        Method(composite="zplus-box"),
    ):
        assert clarp.Explainer(model, method)(X, 0).method.rules.name == "zplus-box"


def test_a_changed_default_keeps_its_changes() -> None:
    own = clarp.composites.get(Method.named("lrp").rules, residual="proportional")
    settled = Method(composite=own).on(clarp.Explainer(network(4)).plan((3, 8, 8)).graph).rules
    assert settled == clarp.composites.get("zplus-scaled-box", residual="proportional")


def test_clarps_own_method_has_one_too() -> None:
    assert clarp.Explainer(network(4), "clarp")(X, 0).method.rules.name == "epsilon-plus-scaled-box"


def test_a_method_of_ones_own_has_it_where_it_names_no_composite() -> None:
    assert clarp.Explainer(network(4), Method())(X, 0).method.rules.name == "zplus-scaled-box"


@pytest.mark.filterwarnings("ignore::clarp.RelevanceLost")
def test_nothing_is_lost_at_dead_outputs() -> None:
    model = network(4)
    lost = clarp.Explainer(model, "lrp", composite="zplus-box")(X, 0)
    kept = clarp.Explainer(model, "lrp")(X, 0)
    assert (arrived(lost) < 0.95).all()
    assert torch.allclose(arrived(kept), torch.ones(2, dtype=torch.float64))
    flat, other = (e.heatmap.flatten(1) for e in (lost, kept))
    scale = other.sum(1, keepdim=True) / flat.sum(1, keepdim=True)
    assert torch.allclose(flat * scale, other)  # in a chain it is a factor, and nothing else


def test_where_no_output_is_dead_it_is_zplus() -> None:
    model = network(4, dead=False)
    ours, plain = (clarp.Explainer(model, "lrp", composite=c)(X, 0).relevance for c in (None, "zplus-box"))
    assert torch.equal(ours, plain)


@pytest.mark.filterwarnings("ignore::clarp.RelevanceLost", "ignore::clarp.EmptyMap")
def test_where_all_outputs_are_dead_it_is_zplus() -> None:
    model = network(4)
    with torch.no_grad():
        model[2].weight.copy_(-model[2].weight.abs())
    explanation = clarp.Explainer(model, "lrp")(X, 0)
    assert explanation.relevance.isfinite().all()
    assert not explanation.relevance.any()


def test_first_comes_before_depthwise() -> None:
    """A depthwise convolution of the pixels has the rule for pixels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 5)).eval()
    (step, *_) = clarp.Explainer(model, "lrp").plan((3, 8, 8))
    assert step.rule == rules.ZBox()


def test_a_composite_refuses_what_is_no_rule() -> None:
    with pytest.raises(TypeError, match="depthwise='flat'"):
        clarp.composites.Composite("own", rules.ZPlus(), rules.ZPlus(), depthwise="flat")  # type: ignore[arg-type]
