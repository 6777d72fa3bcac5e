"""zennit's own composites, as they come out of its registry, give the same maps."""

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.interop.zennit import CONVOLUTIONS, zennit_composite
from clarp.network import Network
from oracle.calls import apart, images, propagate

pytest.importorskip("clarp.models._torchvision")  # before zennit, which imports torchvision

from torchvision import models
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import COMPOSITES
from zennit.torchvision import ResNetCanonizer

CLASSES, LOW, HIGH = 6, (-2.1, -2.0, -1.8), (2.2, 2.4, 2.6)
X = images(2, 3, 33, 33).clamp(-1.8, 2.2)
SEED = images(2, CLASSES, seed=1)


def randomised(model: nn.Module) -> nn.Module:
    """Statistics and biases of a trained network's size. zennit leaves ``1 / sqrt(1 + eps)`` behind, so eps is 0."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.4, 1.4)
            nn.init.normal_(module.bias, 0.1, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            module.eps = 0.0
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, 0.0, 0.3)
    return model.double().eval()


@cache
def made(name: str) -> Network:
    torch.manual_seed(0)
    if name == "resnet":
        return Network(randomised(models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], CLASSES)))
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(8),
    ]  # in front of a padded convolution: not folded
    layers += [nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    layers += [nn.Linear(72, 16), nn.ReLU(), nn.Linear(16, CLASSES)]
    return Network(randomised(nn.Sequential(*layers)))


def theirs(network: Network, x: Tensor, name: str, **options: object) -> Tensor:
    model = copy.deepcopy(network.model)
    if name == "epsilon_gamma_box":
        options |= {
            end: torch.tensor(bound, dtype=x.dtype)[None, :, None, None]
            for end, bound in (("low", LOW), ("high", HIGH))
        }
    canonizer = ResNetCanonizer() if isinstance(model, models.ResNet) else SequentialMergeBatchNorm()
    composite = COMPOSITES[name](canonizers=[canonizer], **options)
    x = x.clone().requires_grad_()
    with composite.context(model) as modified:
        (relevance,) = torch.autograd.grad(modified(x), x, SEED.to(x.dtype))
    return relevance


def ours(network: Network, name: str, **options: object) -> Tensor:
    return propagate(network, X, SEED, zennit_composite(name, **options), bounds=(LOW, HIGH))


@pytest.mark.parametrize("network", ["resnet", "plain"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_with_its_defaults(network: str, name: str) -> None:
    assert apart(ours(made(network), name), theirs(made(network), X, name)) < 1e-9


OPTIONS = {"epsilon": 0.1, "stabilizer": 0.05, "zero_params": "bias"}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_with_every_option(name: str) -> None:
    """Each with a value that shows."""
    options = OPTIONS | ({"gamma": 0.7} if name == "epsilon_gamma_box" else {})
    found, default = ours(made("plain"), name, **options), ours(made("plain"), name)
    assert apart(found, theirs(made("plain"), X, name, **options)) < 1e-9
    assert apart(found, default) > 1e-3


@pytest.mark.parametrize("option", [*OPTIONS, "gamma"])
def test_each_option_counts(option: str) -> None:
    name = "epsilon_gamma_box"
    found = ours(made("plain"), name, **{option: (OPTIONS | {"gamma": 0.7})[option]})
    assert apart(found, ours(made("plain"), name)) > 1e-4


def test_the_presets_of_the_same_name_differ() -> None:
    """So the conventions are worth a composite of their own."""
    preset = clarp.composites.get("epsilon-plus", residual="proportional")
    found = propagate(made("plain"), X, SEED, preset)
    assert apart(found, theirs(made("plain"), X, "epsilon_plus")) > 1e-2


def test_the_ledger_shows_what_biases_take() -> None:
    method = clarp.Method(clarp.seeds.Vector(SEED), None, zennit_composite("epsilon_plus"))
    ledger = clarp.Explainer(made("plain"), method)(X).ledger
    assert any(float(entry.bias.abs().max()) > 0 for entry in ledger)
    assert ledger.summary()


@pytest.mark.parametrize("name", ["guided_backprop", "epsilon-plus"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ValueError, match=f"composite of zennit's.*{name}|{name}.*zennit"):
        zennit_composite(name)


def test_unknown_parameters() -> None:
    with pytest.raises(ValueError, match="zero_params is 'weight'"):
        zennit_composite("epsilon_plus", zero_params="weight")
