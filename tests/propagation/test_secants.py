"""Secants against what they are for: the difference between an image and its coverings, to the last digit."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Size, Tensor, nn

import clarp
from clarp import Method
from clarp.covering import Covering
from clarp.seeds import SoftmaxGradient
from golden.networks import NETWORKS, images, network
from oracle import nets
from oracle.calls import apart, captured

NEARLY = ("norms", "attention")
"""Networks with operations whose secants are means of two gradients."""
EXACT = tuple(name for name in NETWORKS if name not in NEARLY)
SECANT = Method.named("secant")


@cache
def model(name: str) -> nn.Module:
    return network(name)


def explained(module: nn.Module, x: Tensor, target: Any, covering: Covering, **options: Any) -> Any:
    return clarp.Explainer(captured(module), replace(SECANT, covering=covering))(x, target, **options)


def differences(module: nn.Module, x: Tensor, target: Tensor, covering: Covering) -> list[Tensor]:
    """``sum_n seed_n (z_n - z~_n)`` of each reference, (B,), by running the model itself."""
    with torch.no_grad():
        logits = module(x)
        rivals = ~torch.nn.functional.one_hot(target, logits.shape[1]).bool()
        seed = SoftmaxGradient().relevance(logits, target[None], rivals[None])[0]
        return [(seed * (logits - module(c))).sum(1) for c in covering.references(x, 1)]


@pytest.mark.parametrize("covering", [Covering(7, 2), Covering(3, 1)])
@pytest.mark.parametrize("name", [name for name in EXACT if name not in ("one logit", "findings")])
def test_they_sum_to_what_the_coverings_change(name, covering):
    x, target = images(), torch.tensor([1, 3])
    found = explained(model(name), x, target, covering)
    expected = torch.stack(differences(model(name), x, target, covering)).sum(0)
    assert apart(found.heatmap.sum((1, 2)), expected) < 1e-9
    assert apart(found.ledger.seed, expected) < 1e-9
    assert apart(found.ledger.pixels, expected) < 1e-9


@pytest.mark.parametrize("name", NEARLY)
def test_nearly_where_means_of_gradients_stand_in(name):
    x, target, covering = images(), torch.tensor([1, 3]), Covering(4, 2)
    found = explained(model(name), x, target, covering)
    parts = torch.stack(differences(model(name), x, target, covering))
    assert ((found.heatmap.sum((1, 2)) - parts.sum(0)).abs() <= 0.15 * parts.abs().sum(0)).all()


@settings(max_examples=15, deadline=None)
@given(nets.plans(depth=2), st.integers(1, 3), st.integers(0, 99))
def test_of_any_network(drawn, across, seed):
    plan, shape = drawn
    module = nets.build(plan, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    if nets.features(plan) & {"norm", "group", "layer", "instance"}:
        return
    target, covering = torch.tensor([0, 2]), Covering(3, across)
    found = explained(module, x, target, covering).heatmap.sum((1, 2))
    parts = torch.stack(differences(module, x, target, covering))
    assert ((found - parts.sum(0)).abs() <= 1e-6 * (1e-6 + parts.abs().sum(0))).all()


def test_one_cell_at_a_time_is_occlusion():
    """Each cell's relevance is what covering it takes from the seed's logits."""
    x, target, covering = images(), torch.tensor([0, 4]), Covering(4, 4)
    heatmap = explained(model("max pooling"), x, target, covering).heatmap
    cells = heatmap.unflatten(1, (4, 4)).unflatten(3, (4, 4)).sum((2, 4)).flatten(1)
    effects = torch.stack(differences(model("max pooling"), x, target, covering), 1)
    assert apart(cells, effects) < 1e-9


def test_a_linear_network_by_hand():
    """``m`` is the weight: ``w_i (x_i - mean of x)``, each pixel in one reference."""
    x = images()
    weight = model("linear")[1].weight.unflatten(1, (3, 16, 16))
    logits = model("linear")(x)
    for row, target in enumerate((2, 0)):
        others = logits[row].index_fill(0, torch.tensor(target), -torch.inf).softmax(0)
        lead = weight[target] - torch.einsum("n,nchw->chw", others, weight)
        expected = lead * (x[row] - x[row].mean((1, 2), keepdim=True))
        found = explained(model("linear"), x[row : row + 1], target, Covering(5, 2)).relevance[0]
        assert apart(found, expected.detach()) < 1e-9


@pytest.mark.filterwarnings("ignore::UserWarning")  # captum announces its hooks
def test_captums_rescale_rule():
    deep = pytest.importorskip("captum.attr").DeepLift
    module = (
        nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(5, 4, 3, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(196, 3),
        )
        .double()
        .eval()
    )
    x, covering = images(), Covering(4, 1)
    (reference,) = covering.references(x, 1)
    logits = module(x).detach()
    found = explained(module, x, 1, covering).relevance
    weights = SoftmaxGradient().relevance(
        logits, torch.tensor([[1, 1]]), torch.tensor([[[True, False, True]] * 2])
    )[0]
    theirs = sum(
        weights[:, n, None, None, None]
        * deep(module).attribute(x.clone().requires_grad_(), reference, target=n)
        for n in range(3)
    )
    assert apart(found, theirs.detach()) < 1e-9


def test_a_batch_is_its_samples_and_targets_one_at_a_time():
    x, covering = images(), Covering(5, 2)
    target = torch.tensor([[0, 3], [2, 1]])
    together = explained(model("residual"), x, target, covering).relevance
    for row in range(2):
        for column in range(2):
            alone = explained(model("residual"), x[row : row + 1], target[row, column].item(), covering)
            assert apart(together[row, column], alone.relevance[0]) < 1e-9


def test_layers_sum_to_the_same_differences():
    x, covering = images(), Covering(4, 2)
    found = explained(model("max pooling"), x, 2, covering, layers=["0", "3"])
    for layer in found.layers.values():
        assert apart(layer.flatten(1).sum(1), found.relevance.flatten(1).sum(1)) < 1e-9


def test_values_that_a_covering_leaves_alone_get_nothing():
    """A grey photo has nothing to cover."""
    found = explained(model("residual"), torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64), 1, Covering())
    assert not found.relevance.any()
    assert bool(found.empty.all())


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 17, 5), (1, 1, 9, 8, 7), (1, 4, 31), (1, 3, 2, 2)])
@pytest.mark.parametrize("covering", [Covering(7, 2), Covering(7, 3), Covering(1, 1), Covering(3, 3)])
def test_every_pixel_is_covered_once(shape, covering):
    masks = covering.masks(Size(shape), 1)
    total = sum(mask.int() for mask in masks).expand(1, 1, *shape[2:])
    assert (total == 1).all()
    assert len(masks) <= covering.apart ** (len(shape) - 2)


def test_the_axis_of_channels_is_covered_as_a_whole():
    masks = Covering(2, 2).masks(Size((1, 8, 8, 3)), 3)
    assert [tuple(mask.shape) for mask in masks] == [(1, 8, 8, 1)] * 4


@pytest.mark.parametrize("given", [(0, 1), (3, 4), (3, 0), (2.0, 1), (True, 1)])
def test_bad_coverings(given):
    with pytest.raises(ValueError, match="1 <= apart <= grid, for example"):
        Covering(*given)


@pytest.mark.parametrize("options", [{"selection": clarp.Selection()}, {"passes": "two_pass"}])
def test_what_differences_can_not_have(options):
    with pytest.raises(ValueError, match="differences go back in one pass"):
        Method(SoftmaxGradient(), composite="zero", covering=Covering(), **options)
