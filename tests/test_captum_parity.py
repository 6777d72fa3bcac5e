"""The same maps as captum's LRP where the conventions agree; what has to be set alike is in docs/rules.md."""

import copy

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.rules import Epsilon, Gamma, ZPlus
from clarp.rules.composites import Composite
from oracle.calls import apart, images

captum = pytest.importorskip("captum.attr")
rules = pytest.importorskip("captum.attr._utils.lrp_rules")


class Network(nn.Module):
    """What captum's LRP takes: modules that it knows, each called once, none in place."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, stride=2, bias=bias),
            nn.ReLU(),
            nn.AvgPool2d(2),
        )
        self.head = nn.Sequential(nn.Linear(8, 7, bias=bias), nn.ReLU(), nn.Linear(7, 4, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


def network(*, bias: bool) -> nn.Module:
    return Network(bias=bias).double().eval()


def theirs(model: nn.Module, x: Tensor, convolution: object, dense: object) -> Tensor:
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.rule = copy.copy(convolution if isinstance(module, nn.Conv2d) else dense)
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            module.rule = rules.EpsilonRule(1e-12)
    return captum.LRP(model).attribute(x.clone().requires_grad_(), target=2).detach()


def ours(model: nn.Module, x: Tensor, convolution: clarp.rules.LinearRule) -> Tensor:
    return clarp.attribute(model, x, 2, "lrp", composite=Composite("captum", convolution, Epsilon(1e-9)))


X = images(2, 3, 12, 12)
EPSILON = rules.EpsilonRule(1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_epsilon(*, bias: bool) -> None:
    model = network(bias=bias)
    assert apart(ours(model, X, Epsilon(1e-9)), theirs(model, X, EPSILON, EPSILON)) < 1e-6


def test_gamma_without_bias() -> None:
    """Behind a ReLU only positive outputs have relevance, and there both write the same fraction; the pixels are positive too."""
    model, x = network(bias=False), X.abs()
    assert apart(ours(model, x, Gamma(0.25)), theirs(model, x, rules.GammaRule(0.25), EPSILON)) < 1e-6


def test_z_plus_of_positive_pixels() -> None:
    """captum's takes w+ whatever the sign of the input, and the bias unless it is told not to."""
    model, x = network(bias=True), X.abs()
    plus = rules.Alpha1_Beta0_Rule(set_bias_to_zero=True)
    assert apart(ours(model, x, ZPlus()), theirs(model, x, plus, EPSILON)) < 1e-6
    assert apart(ours(model, X, ZPlus()), theirs(model, X, plus, EPSILON)) > 1e-3
    assert apart(ours(model, x, ZPlus()), theirs(model, x, rules.Alpha1_Beta0_Rule(), EPSILON)) > 1e-3


def test_a_module_that_is_called_twice() -> None:
    """captum refuses it, for its hooks belong to modules; ours belong to calls."""
    torch.manual_seed(0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.convolution(self.convolution(x).relu()).relu()
            return self.head(x.mean((2, 3)))

    model = Twice().double().eval()
    with pytest.raises(RuntimeError, match="more than once"):
        captum.LRP(model).attribute(X.clone().requires_grad_(), target=2)
    assert torch.isfinite(clarp.attribute(model, X, 2, "lrp")).all()
