"""An explanation recorded as one program equals the library's, bit for bit, and never shows a map of nonsense."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import clarp
from clarp.exporting.writing import recorded
from golden.networks import NETWORKS, images, network
from oracle import nets

RIVALS = [0, 2]
CONTRASTING = [name for name in clarp.methods() if clarp.Method.named(name).has_rivals]


@cache
def model(name: str) -> nn.Module:
    return network(name).float()


def photos() -> Tensor:
    """Three images, (3, 3, 16, 16)."""
    pixels = images().float()
    return torch.cat([pixels, pixels.flip(-1)[:1]])


def program(explainer: clarp.Explainer, shape: Any, targets: int | None = None, **options: bool) -> Any:
    given = {"against": False, "half": False} | options
    return recorded(explainer.parts(shape), shape, targets, **given).module()


def explained(
    explainer: clarp.Explainer, x: Tensor, target: Tensor, against: Any = None
) -> tuple[Tensor, Tensor]:
    found = explainer(x, target=target, against=against)
    return found.logits, found.heatmap


def check(run: Any, explainer: clarp.Explainer, x: Tensor, target: Tensor) -> None:
    """At batches of 1, 2 and 3."""
    for count in (1, 2, len(x)):
        logits, heatmap, lost = run(x[:count], target[:count])
        expected = explained(explainer, x[:count], target[:count])
        assert torch.equal(logits, expected[0])
        assert torch.equal(heatmap, expected[1])
        assert ((lost >= 0) & (lost <= 1)).all()


@pytest.mark.filterwarnings("ignore::clarp.RelevanceLost", "ignore::clarp.EmptyMap")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_golden_network(name):
    convolves = any(isinstance(layer, nn.Conv2d) for layer in model(name).modules())
    explainer = clarp.Explainer(model(name), "ssglrp" if convolves else "sglrp", bounds=(0.0, 1.0))
    check(program(explainer, (3, 16, 16)), explainer, photos(), torch.tensor([0, 1, 0]))


@pytest.mark.parametrize("method", clarp.methods())
def test_every_method(method):
    explainer = clarp.Explainer(model("residual"), method)
    check(program(explainer, (3, 16, 16)), explainer, photos(), torch.tensor([0, 4, 2]))


@pytest.mark.parametrize("method", ["lrp", "clrp2", "ssglrp"])
def test_several_targets(method):
    explainer = clarp.Explainer(model("residual"), method)
    target = torch.tensor([[0, 1, 2], [4, 3, 2], [1, 0, 4]])
    run = program(explainer, (3, 16, 16), targets=3)
    check(run, explainer, photos(), target)
    assert run(photos(), target)[1].shape == (3, 3, 16, 16)


@pytest.mark.parametrize("method", CONTRASTING)
def test_rivals_as_an_input(method):
    explainer, target = clarp.Explainer(model("residual"), method), torch.tensor([1, 3, 4])
    run = program(explainer, (3, 16, 16), against=True)
    rivals = torch.zeros(3, 5, dtype=torch.bool)
    rivals[:, RIVALS] = True
    assert torch.equal(run(photos(), target, rivals)[1], explained(explainer, photos(), target, RIVALS)[1])
    none = torch.zeros_like(rivals)
    assert torch.equal(run(photos(), target, none)[1], explained(explainer, photos(), target)[1])
    own = torch.nn.functional.one_hot(target, 5).bool()
    _, heatmap, lost = run(photos(), target, own)
    assert heatmap.isnan().all()
    assert (lost == 1).all()


@pytest.mark.parametrize("bad", ["nan", "inf", "below", "above", "in K"])
def test_what_cannot_be_explained_is_nan(bad):
    explainer = clarp.Explainer(model("residual"))
    several = bad == "in K"
    run = program(explainer, (3, 16, 16), targets=2 if several else None)
    x, target = photos(), torch.tensor([[0, 1], [2, 3], [4, 0]] if several else [0, 1, 2])
    if bad in ("nan", "inf"):
        x[1, 2, 3, 4] = float(bad)
    else:
        target[1, 1 if several else ...] = {"below": -1}.get(bad, 5)
    _, heatmap, lost = run(x, target)
    wrong = torch.zeros_like(target, dtype=torch.bool)
    wrong[1, 1 if several else ...] = True
    assert heatmap[wrong].isnan().all()
    assert heatmap[~wrong].isfinite().all()
    assert torch.equal(lost == 1, wrong)


def test_a_pixel_that_nobody_reads_counts_too():
    net = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)).eval()
    x = photos()
    x[1, 0, 1, 1] = torch.nan
    explainer = clarp.Explainer(net, "lrp", bounds=(0.0, 1.0))
    _, heatmap, lost = program(explainer, (3, 16, 16))(x, torch.tensor([0, 1, 2]))
    assert heatmap[1].isnan().all()
    assert heatmap[[0, 2]].isfinite().all()
    assert (lost == 1).tolist() == [False, True, False]


def test_a_binary_task_explains_both_classes():
    explainer = clarp.Explainer(model("one logit"), "clarp", task="binary")
    run = program(explainer, (3, 16, 16))
    check(run, explainer, photos(), torch.tensor([0, 1, 1]))


def test_findings_need_no_rivals():
    explainer = clarp.Explainer(model("findings"), "clarp")
    assert explainer(photos(), target=0).task == "multilabel"
    check(program(explainer, (3, 16, 16)), explainer, photos(), torch.tensor([0, 1, 4]))


def test_lost_is_what_never_arrived():
    # The epsilon rule in the head gives its bias a part; z+ below loses nothing.
    explainer = clarp.Explainer(model("residual"), "lrp", composite="epsilon-plus-box")
    target = torch.tensor([0, 1, 2])
    _, _, lost = program(explainer, (3, 16, 16))(photos(), target)
    ledger = explainer(photos(), target=target).ledger
    assert (lost > 0.01).any()
    absorbed = sum(entry.absorbed.abs() for entry in ledger)
    assert torch.allclose(lost, (absorbed / ledger.size).clamp(max=1), atol=1e-6)


def test_half_weights_are_computed_with_in_float32():
    net = model("residual")
    explainer = clarp.Explainer(net)
    target = torch.tensor([0, 1, 2])
    logits, heatmap, _ = program(explainer, (3, 16, 16), half=True)(photos(), target)
    assert logits.dtype == heatmap.dtype == torch.float32
    expected, exact = explained(explainer, photos(), target)
    assert torch.allclose(logits, expected, atol=1e-2)
    assert not torch.equal(logits, expected)
    assert heatmap.isfinite().all()
    assert exact.shape == heatmap.shape


def check_drawn(drawn: Any, method: str, seed: int) -> None:
    plan, shape = drawn
    net = nets.build(plan, "module", seed).float().eval()
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    explainer = clarp.Explainer(net, method)
    check(program(explainer, shape), explainer, x, torch.tensor([0, 1, 3]))


METHODS = st.sampled_from(["lrp", "sglrp", "ssglrp", "clarp"])


@pytest.mark.exported
@settings(max_examples=100)
@given(nets.plans(), METHODS, st.integers(0, 99))
@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.filterwarnings("ignore::clarp.RelevanceLost", "ignore::clarp.EmptyMap")
def test_two_hundred_drawn_networks(part, drawn, method, seed):
    check_drawn(drawn, method, 100 * part + seed)
