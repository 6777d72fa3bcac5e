"""The methods are one family: what equals what, and where relevance is conserved."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clarp
from oracle import nets
from oracle.calls import apart, captured, composite, images, plain

COMPOSITES = (
    "zplus-box",
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-alpha2-beta1",
    "epsilon-alpha2-beta1-flat",
    "epsilon-gamma-box",
    "zero",
    "epsilon",
)
METHODS = ("lrp", "clrp1", "clrp2", "sglrp", "slrp", "ssglrp")
CLASSES = 6
BOUNDS = ((-4.0, -5.0), (4.5, 4.0))
PLAN: nets.Plan = (
    ("conv", {"conv": {"in_channels": 2, "out_channels": 5, "kernel_size": 3, "padding": 1}, "norm": True}),
    ("relu", {}),
    ("max", {"kernel_size": 2, "stride": 2}),
    ("residual", {"inputs": 5, "outputs": 6, "stride": 2, "bias": False}),
    ("residual", {"inputs": 6, "outputs": 6, "stride": 1, "bias": False}),
    ("dense", {"inputs": 24, "outputs": CLASSES, "bias": True}),
)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    made = nets.build(PLAN, seed=3)
    with torch.no_grad():
        made[-1].weight *= 4.0  # a softmax that is neither flat nor sure
    return made


def pixels(batch: int = 3, seed: int = 0) -> Tensor:
    return images(batch, 2, 8, 8, seed=seed).clamp(-3, 3)


EXPLAINERS: dict[Any, Any] = {}


def explain(model: nn.Module, method: Any, x: Tensor, target: Any = None, **options: Any) -> Any:
    """Named methods keep their explainer, with the model that it is for."""
    against = options.pop("against", None)
    options = {"bounds": BOUNDS, "dtype": x.dtype} | options
    if not isinstance(method, str):
        return clarp.Explainer(captured(model), method=method, **options)(x, target=target, against=against)
    key = (model, method, *options.items())
    if key not in EXPLAINERS:
        EXPLAINERS[key] = clarp.Explainer(captured(model), method=method, **options)
    return EXPLAINERS[key](x, target=target, against=against)


def relevance(model: nn.Module, method: Any, x: Tensor, target: Any = None, **options: Any) -> Tensor:
    return explain(model, method, x, target, **options).relevance


def with_seed(seed: Any, name: str = "epsilon-plus") -> Any:
    return plain(seed, clarp.composites.get(name))


def given(vector: Tensor, name: str = "epsilon-plus") -> Any:
    return with_seed(clarp.seeds.Vector(vector), name)


def parallel(a: Tensor, b: Tensor) -> float:
    """How far two batches of maps are from being positive multiples of each other, sample by sample."""
    a, b = a.flatten(1), b.flatten(1)
    return apart(a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True))


def positive_targets(model: nn.Module, x: Tensor) -> Tensor:
    """For every image the second best class: it has a positive logit here, as a map up to scale needs."""
    logits = model(x).detach()
    targets = logits.topk(2, dim=1).indices[:, 1]
    assert (logits.gather(1, targets[:, None]) > 0).all()
    return targets


def one_hot(target: Tensor) -> Tensor:
    return nn.functional.one_hot(target, CLASSES).double()


# ---------------------------------------------------------------- seeds, by their formulas


def test_logit_seed(model: nn.Module) -> None:
    """LRP: ``R_t = z_t``, others 0."""
    x, target = pixels(), torch.tensor([0, 3, 5])
    z = model(x).detach()
    expected = relevance(model, given(z * one_hot(target)), x)
    assert apart(relevance(model, with_seed(clarp.seeds.Logit()), x, target), expected) < 1e-12


@pytest.mark.parametrize("strength", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("against", [None, [1], [0, 3, 4]])
def test_uniform_seed(model: nn.Module, strength: float, against: list[int] | None) -> None:
    """CLRP1: ``R_t = z_t``, ``R_n = -strength z_t / (N - 1)``; with ``against``, spread over those."""
    x, target = pixels(), torch.tensor([0, 3, 5])
    z = model(x).detach()
    seed = torch.zeros_like(z)
    for b, t in enumerate(target.tolist()):
        rivals = [n for n in (range(CLASSES) if against is None else against) if n != t]
        seed[b, t] = z[b, t]
        for n in rivals:
            seed[b, n] = -strength * z[b, t] / len(rivals)
    against = against if strength else None  # without rivals there is nobody to choose
    ours = relevance(model, with_seed(clarp.seeds.Uniform(strength=strength)), x, target, against=against)
    assert apart(ours, relevance(model, given(seed), x)) < 1e-12


@pytest.mark.parametrize("strength", [1.0, 0.3, 2.0, 0.0])
@pytest.mark.parametrize("rivals", ["all", 2, 5])
def test_softmax_gradient_seed(model: nn.Module, strength: float, rivals: Any) -> None:
    """SGLRP: ``R_t = 1``, ``R_n = -strength s_n``, the softmax over the rivals only; top-k: the k strongest rivals."""
    x, target = pixels(), torch.tensor([0, 3, 5])
    z = model(x).detach()
    seed = torch.zeros_like(z)
    for b, t in enumerate(target.tolist()):
        chosen = sorted((n for n in range(CLASSES) if n != t), key=lambda n: -z[b, n])
        chosen = chosen if rivals == "all" else chosen[:rivals]
        total = sum(math.exp(z[b, n]) for n in chosen)
        seed[b, t] = 1.0
        for n in chosen:
            seed[b, n] = -strength * math.exp(z[b, n]) / total
    method = with_seed(clarp.seeds.SoftmaxGradient(rivals=rivals, strength=strength))
    assert apart(relevance(model, method, x, target), relevance(model, given(seed), x)) < 1e-12


def test_scaled_seed_is_the_papers(model: nn.Module) -> None:
    """``scaled=True``: ``R_t = y_t (1 - y_t)``, ``R_n = -y_t y_n``, the gradient of the probability."""
    x, target = pixels(), torch.tensor([0, 3, 5])
    z = model(x).detach().requires_grad_()
    y = z.softmax(1)
    (gradient,) = torch.autograd.grad(y.gather(1, target[:, None]).sum(), z)
    ours = relevance(model, with_seed(clarp.seeds.SoftmaxGradient(scaled=True)), x, target)
    assert apart(ours, relevance(model, given(gradient), x)) < 1e-12
    factor = (y * (1 - y)).detach().gather(1, target[:, None])[:, :, None, None]
    unscaled = relevance(model, with_seed(clarp.seeds.SoftmaxGradient()), x, target)
    assert apart(ours, unscaled * factor) < 1e-12


def test_softmax_gradient_seed_does_not_underflow(model: nn.Module) -> None:
    """A network that is sure: the probability's gradient is exactly 0 there, the map is not."""
    sure = nets.build(PLAN, seed=3)
    with torch.no_grad():
        sure[-1].weight *= 4000.0
    x = pixels()
    target = sure(x).argmax(1)
    y = sure(x).detach().softmax(1).gather(1, target[:, None])
    assert (y * (1 - y) == 0).any()
    e = explain(sure, with_seed(clarp.seeds.SoftmaxGradient()), x, target)
    assert torch.isfinite(e.relevance).all()
    assert (e.relevance.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("shape", ["(N,)", "(B, N)", "(B, K, N)", "callable"])
def test_vector_seed_in_every_shape(model: nn.Module, shape: str) -> None:
    x, vector = pixels(), images(3, 2, CLASSES, seed=9)
    expected = [relevance(model, given(vector[:, k]), x) for k in range(2)]
    if shape == "(N,)":
        each = [relevance(model, given(vector[b, 0]), x[b : b + 1])[0] for b in range(3)]
        assert apart(torch.stack(each), expected[0]) < 1e-12
        assert apart(relevance(model, given(vector[0, 0]), x)[0], expected[0][0]) < 1e-12
    elif shape == "(B, N)":
        both = relevance(model, given(vector[:, 0] + vector[:, 1]), x)
        assert apart(both, expected[0] + expected[1]) < 1e-12
    elif shape == "(B, K, N)":
        ours = relevance(model, given(vector), x, [[0, 1]] * 3)
        assert apart(ours, torch.stack(expected, 1)) < 1e-12
    else:
        seed = clarp.seeds.Vector(lambda logits, target: logits.square())
        squares = model(x).detach().square()
        assert apart(relevance(model, with_seed(seed), x), relevance(model, given(squares), x)) < 1e-12


def test_the_softmax_gradient_seed_sums_to_zero(model: nn.Module) -> None:
    """With rules that conserve, so does the map: for the zero rule on a network without biases."""
    bare = bias_free()
    total = relevance(bare, with_seed(clarp.seeds.SoftmaxGradient(), "zero"), pixels(), 1)
    assert float(total.sum((1, 2, 3)).abs().max()) < 1e-10 * float(total.abs().sum())


# ---------------------------------------------------------------- rivals


@pytest.mark.parametrize("method", ["sglrp", "clrp1", "ssglrp"])
def test_against_all_others_is_against_none(model: nn.Module, method: str) -> None:
    """With the target among them or without: a class is never its own rival."""
    x = pixels()
    expected = relevance(model, method, x, 2)
    for against in (
        [0, 1, 3, 4, 5],
        list(range(CLASSES)),
        [5, 4, 3, 1, 0],
        torch.arange(CLASSES).expand(3, -1),
    ):
        assert apart(relevance(model, method, x, 2, against=against), expected) < 1e-12


@pytest.mark.parametrize("method", ["sglrp", "clrp1", "ssglrp"])
def test_against_one_another(model: nn.Module, method: str) -> None:
    """``against=[1, 4]`` with ``target=[[1, 4]]`` explains each against the other."""
    x = pixels()
    both = relevance(model, method, x, [[1, 4]] * 3, against=[1, 4])
    assert apart(both[:, 0], relevance(model, method, x, 1, against=4)) < 1e-12
    assert apart(both[:, 1], relevance(model, method, x, 4, against=[1])) < 1e-12


def test_against_per_image(model: nn.Module) -> None:
    x, against = pixels(), torch.tensor([[0, 2], [3, 4], [5, 0]])
    ours = relevance(model, "sglrp", x, 1, against=against)
    each = [relevance(model, "sglrp", x[b : b + 1], 1, against=against[b].tolist()) for b in range(3)]
    assert apart(ours, torch.cat(each)) < 1e-12


def test_against_a_class_twice_is_against_it_once(model: nn.Module) -> None:
    x = pixels()
    for method in ("sglrp", "clrp1"):
        twice = relevance(model, method, x, 1, against=[2, 2, 4])
        assert apart(twice, relevance(model, method, x, 1, against=[2, 4])) < 1e-12


def test_target_against_a_rival_is_the_opposite_of_the_rival_against_the_target(model: nn.Module) -> None:
    """With one rival the softmax over the rivals is 1: the seed is antisymmetric, and so is the map."""
    x = pixels()
    one = relevance(model, "sglrp", x, 1, against=4)
    other = relevance(model, "sglrp", x, 4, against=1)
    assert apart(one, -other) < 1e-12


# ---------------------------------------------------------------- batches, targets


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_samples(model: nn.Module, method: str) -> None:
    x = pixels(4)
    together = explain(model, method, x)
    alone = [explain(model, method, x[b : b + 1]) for b in range(4)]
    assert apart(together.relevance, torch.cat([e.relevance for e in alone])) < 1e-12
    assert apart(together.logits, torch.cat([e.logits for e in alone])) < 1e-12
    assert torch.equal(together.target, torch.cat([e.target for e in alone]))


def test_a_batch_equals_its_samples_without_bounds(model: nn.Module) -> None:
    """Bounds that nobody gave are each image's own."""
    x = pixels(3)
    together = relevance(model, "ssglrp", x, 1, bounds=None)
    alone = [relevance(model, "ssglrp", x[b : b + 1], 1, bounds=None) for b in range(3)]
    assert apart(together, torch.cat(alone)) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_k_targets_equal_k_calls(model: nn.Module, method: str) -> None:
    x, targets = pixels(), torch.tensor([[0, 5, 2], [1, 1, 4], [3, 0, 5]])
    together = explain(model, method, x, targets)
    assert together.relevance.shape == (3, 3, 2, 8, 8)
    assert together.heatmap.shape == (3, 3, 8, 8)
    for k in range(3):
        assert apart(together.relevance[:, k], relevance(model, method, x, targets[:, k])) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_one_target_of_several_has_an_axis(model: nn.Module, method: str) -> None:
    x, targets = pixels(), torch.tensor([[0], [1], [3]])
    ours = explain(model, method, x, targets)
    plain_call = explain(model, method, x, targets[:, 0])
    assert ours.relevance.shape == (3, 1, 2, 8, 8)
    assert apart(ours.relevance[:, 0], plain_call.relevance) < 1e-12
    assert ours.target.shape == (3, 1)
    assert plain_call.target.shape == (3,)


def test_spellings_of_a_target(model: nn.Module) -> None:
    x = pixels()
    expected = relevance(model, "sglrp", x, torch.tensor([2, 2, 2]))
    for target in (2, [2, 2, 2], (2, 2, 2), torch.tensor(2), torch.tensor([2, 2, 2], dtype=torch.int32)):
        assert torch.equal(relevance(model, "sglrp", x, target), expected)
    best = explain(model, "sglrp", x)
    assert torch.equal(best.target, model(x).argmax(1))
    assert torch.equal(best.relevance, relevance(model, "sglrp", x, best.target))


@pytest.mark.parametrize("method", METHODS)
def test_twice_the_same(model: nn.Module, method: str) -> None:
    x = pixels()
    explainer = clarp.Explainer(captured(model), method=method, bounds=BOUNDS, dtype=torch.float64)
    first = explainer(x, target=1).relevance
    explainer(pixels(seed=5), target=2)
    assert torch.equal(explainer(x, target=1).relevance, first)
    assert torch.equal(relevance(model, method, x, 1), first)


def test_attribute_is_the_explainer(model: nn.Module) -> None:
    x = pixels()
    for method in METHODS:
        ours = clarp.attribute(model, x, [1, 2, 3], method, bounds=BOUNDS)
        assert torch.equal(ours, relevance(model, method, x, [1, 2, 3]))


def test_heatmap_is_the_sum_over_colour(model: nn.Module) -> None:
    e = explain(model, "ssglrp", pixels(), [[1, 2]] * 3)
    assert torch.equal(e.heatmap, e.relevance.sum(2))


# ---------------------------------------------------------------- linearity, conservation


@pytest.mark.parametrize("name", COMPOSITES)
def test_linear_in_the_seed(model: nn.Module, name: str) -> None:
    """For fixed activations: the map of a sum is the sum of the maps. It is why one signed pass is two passes."""
    x = pixels()
    a, b = images(3, CLASSES, seed=5), images(3, CLASSES, seed=6)
    maps = [relevance(model, given(seed, name), x) for seed in (a, b, 2.0 * a - 0.5 * b)]
    assert apart(2.0 * maps[0] - 0.5 * maps[1], maps[2]) < 1e-10


def bias_free() -> nn.Module:
    """The same network without a bias anywhere."""
    made = nets.build(PLAN, seed=5)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                module.bias.zero_()
                module.running_mean.zero_()
    return made


CONSERVING = {
    "zero": clarp.rules.Zero(),
    "zplus": clarp.rules.ZPlus(),
    "alpha2-beta1": clarp.rules.AlphaBeta(2, 1),
    "gamma": clarp.rules.Gamma(0.25),
    "flat": clarp.rules.Flat(),
    "wsquare": clarp.rules.WSquare(),
    "norm": clarp.rules.Norm(),
    "box": clarp.rules.ZBox(-5.0, 5.0),
}


@pytest.mark.parametrize("residual", [clarp.rules.Ratio(), clarp.rules.Norm()], ids=["ratio", "proportional"])
@pytest.mark.parametrize("which", CONSERVING)
def test_conservation(which: str, residual: Any) -> None:
    """Without bias every rule hands on all it got, wherever every output has something to hand it to.

    A seed on the outputs of a network whose values are all generic; alpha-beta needs both signs in every output, so
    it and z+ get relevance only where they have contributions: the logits' own, through one wide layer.
    """
    torch.manual_seed(4)
    conv, head = nn.Conv2d(2, 6, 3, bias=False), nn.Linear(6 * 36, CLASSES, bias=False)
    body = nn.Conv2d(6, 6, 3, padding=1, bias=False)
    model = nn.Sequential(conv, nets.Residual(body, nn.Identity()), nn.MaxPool2d(1), nn.Flatten(), head)
    model = model.double().eval()  # no ReLU: every value is signed and none is zero
    seed = images(3, CLASSES, seed=2)
    method = plain(clarp.seeds.Vector(seed), composite(CONSERVING[which], residual=residual))
    total = relevance(model, method, pixels()).sum((1, 2, 3))
    assert torch.allclose(total, seed.sum(1), rtol=1e-9, atol=1e-9)


def test_conservation_through_relus() -> None:
    """The zero rule on a network with ReLUs and no bias: dead units have no relevance to lose."""
    model = bias_free()
    z = model(pixels()).detach()
    total = relevance(model, given(z, "zero"), pixels()).sum((1, 2, 3))
    assert torch.allclose(total, z.sum(1), rtol=1e-9)


# ---------------------------------------------------------------- the family


@pytest.mark.parametrize("name", COMPOSITES)
def test_no_selection_and_no_rivals_is_lrp(model: nn.Module, name: str) -> None:
    """Up to a positive scale, where the target's logit is positive: LRP's map has the logit's sign."""
    x = pixels()
    target = positive_targets(model, x)
    lrp = relevance(model, "lrp", x, target, composite=name)
    silent = clarp.Method(seed=clarp.seeds.SoftmaxGradient(strength=0.0), selection=None, composite=name)
    assert parallel(relevance(model, silent, x, target), lrp) < 1e-10
    logits = model(x).detach().gather(1, target[:, None])[:, :, None, None]
    assert apart(relevance(model, silent, x, target) * logits, lrp) < 1e-10
    uniform = clarp.Method(seed=clarp.seeds.Uniform(strength=0.0), selection=None, composite=name)
    assert apart(relevance(model, uniform, x, target), lrp) < 1e-12


@pytest.mark.parametrize("name", COMPOSITES)
def test_no_selection_is_sglrp(model: nn.Module, name: str) -> None:
    without = dataclasses.replace(clarp.Method.named("ssglrp"), selection=None, composite=name)
    ours = relevance(model, without, pixels(), 2)
    assert torch.equal(ours, relevance(model, "sglrp", pixels(), 2, composite=name))


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("layers", ["last", "all", "last-stage"])
def test_no_rivals_with_selection_is_slrp(model: nn.Module, name: str, layers: str) -> None:
    """With selection at the same layers, up to a positive scale, where the logit is positive."""
    x = pixels()
    target = positive_targets(model, x)
    selection = clarp.Selection(layers=layers)
    silent = clarp.Method(clarp.seeds.SoftmaxGradient(strength=0.0), selection, name)
    slrp = dataclasses.replace(clarp.Method.named("slrp"), selection=selection, composite=name)
    assert parallel(relevance(model, silent, x, target), relevance(model, slrp, x, target)) < 1e-10


def test_the_presets_are_what_their_papers_say() -> None:
    """Seed and selection of each row; all six with the papers' composite."""
    named = {name: clarp.Method.named(name) for name in METHODS}
    assert set(METHODS) <= set(clarp.methods())
    assert all(
        method.with_composite(method.rules.name).composite == clarp.composites.get("zplus-box")
        for method in named.values()
    )
    seeds = {name: type(method.seed).__name__ for name, method in named.items()}
    assert seeds == {
        "lrp": "Logit",
        "clrp1": "Uniform",
        "clrp2": "Logit",
        "sglrp": "SoftmaxGradient",
        "slrp": "Logit",
        "ssglrp": "SoftmaxGradient",
    }
    layers = {name: [one.layers for one in method.selections] for name, method in named.items()}
    assert layers == {"lrp": [], "clrp1": [], "clrp2": [], "sglrp": [], "slrp": ["last"], "ssglrp": ["all"]}


@pytest.mark.parametrize("name", COMPOSITES)
def test_uniform_rivals_are_clrp1(model: nn.Module, name: str) -> None:
    """CLRP and SGLRP differ in the rivals' weights only: equal logits make the softmax uniform."""
    x = pixels()
    uniform = clarp.Method(seed=clarp.seeds.Uniform(), selection=None, composite=name)
    assert torch.equal(relevance(model, uniform, x, 3), relevance(model, "clrp1", x, 3, composite=name))
    level = nets.build(PLAN, seed=3)
    with torch.no_grad():  # every class the same logit: s_n = 1 / (N - 1)
        level[-1].weight.zero_()
        level[-1].bias.fill_(1.0)
        z = level(x)
    seeds = [clarp.seeds.SoftmaxGradient(), clarp.seeds.Uniform()]
    vectors = []
    for seed in seeds:
        target, rivals = torch.full((1, 3), 3), torch.ones(1, 3, CLASSES, dtype=torch.bool)
        rivals[..., 3] = False
        vectors.append(seed.relevance(z, target, rivals))
    assert apart(*vectors) < 1e-12


@pytest.mark.parametrize("name", ["zplus-box", "epsilon-plus-flat"])
@pytest.mark.parametrize(
    "seed", [clarp.seeds.SoftmaxGradient(), clarp.seeds.Uniform()], ids=["softmax", "uniform"]
)
@pytest.mark.parametrize("selection", [None, clarp.Selection("neuron", "last")])
def test_one_signed_pass_is_two_passes(model: nn.Module, name: str, seed: Any, selection: Any) -> None:
    """Propagation is linear in the seed: the target's map minus the rivals', with normalisation none."""
    signed = clarp.Method(seed, selection, name)
    two = clarp.Method(seed, selection, name, passes="two_pass")
    maps = [relevance(model, method, pixels(), [[1, 2]] * 3) for method in (signed, two)]
    assert apart(*maps) < 1e-10


def test_two_passes_are_selected_alike() -> None:
    """Channel selection scales both passes by the same factor: in a chain, the same map up to a positive scale."""
    chain = nets.build(
        (*PLAN[:3], ("twice", {"channels": 5, "bias": True}), ("global", {"inputs": 5, "outputs": CLASSES}))
    )
    signed = clarp.Method.named("ssglrp")
    two = dataclasses.replace(signed, passes="two_pass")
    for target in range(CLASSES):
        assert parallel(*(relevance(chain, method, pixels(), target) for method in (signed, two))) < 1e-9


def parts(model: nn.Module, x: Tensor, target: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The target's map and the rivals' map (both with positive seeds) of SGLRP."""
    z = model(x).detach()
    own = one_hot(target)
    s = z.masked_fill(own.bool(), -torch.inf).softmax(1)
    return relevance(model, given(own, name), x), relevance(model, given(s, name), x)


def test_rival_to_target_normalisation(model: nn.Module) -> None:
    """SGLRP's published code: the rivals' map is scaled to the target map's sum, per image."""
    x, target = pixels(), torch.tensor([0, 3, 5])
    own, rival = parts(model, x, target, "zplus-box")
    scale = own.sum((1, 2, 3), keepdim=True) / rival.sum((1, 2, 3), keepdim=True)
    method = clarp.Method(clarp.seeds.SoftmaxGradient(), passes="two_pass", normalisation="rival-to-target")
    ours = relevance(model, method, x, target)
    assert apart(ours, own - scale * rival) < 1e-10
    assert float((ours.sum((1, 2, 3)) / own.sum((1, 2, 3))).abs().max()) < 1e-10


def test_unit_sum_normalisation_and_rectification(model: nn.Module) -> None:
    """CLRP's published code: each map divided by its own sum, then the positive part."""
    x, target = pixels(), torch.tensor([0, 3, 5])
    own, rival = parts(model, x, target, "zplus-box")
    difference = own / own.sum((1, 2, 3), keepdim=True) - rival / rival.sum((1, 2, 3), keepdim=True)
    method = clarp.Method(clarp.seeds.SoftmaxGradient(), passes="two_pass", normalisation="unit-sum")
    assert apart(relevance(model, method, x, target), difference) < 1e-10
    rectified = dataclasses.replace(method, rectify=True)
    assert apart(relevance(model, rectified, x, target), difference.clamp(min=0)) < 1e-10


def negated(model: nn.Module, target: int) -> nn.Module:
    """The model with the target's weights in the last layer negated."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        made[-1].weight[target] *= -1.0
        made[-1].bias[target] *= -1.0
    return made


@pytest.mark.parametrize("name", ["zplus-box"])
@pytest.mark.parametrize("normalisation", ["none", "unit-sum"])
def test_clrp2_by_two_explicit_runs(model: nn.Module, name: str, normalisation: str) -> None:
    """The target's map minus the map of the same relevance through the target's negated weights."""
    x = pixels()
    z = model(x).detach()
    method = dataclasses.replace(clarp.Method.named("clrp2"), composite=name, normalisation=normalisation)
    for target in (0, 4):
        seed = z * one_hot(torch.full((3,), target))
        own, dual = (relevance(each, given(seed, name), x) for each in (model, negated(model, target)))
        if normalisation == "unit-sum":
            sums = [each.sum((1, 2, 3), keepdim=True) for each in (own, dual)]
            own, dual = (
                e / torch.where(s == 0, torch.inf, s) for e, s in zip((own, dual), sums, strict=True)
            )
        assert apart(relevance(model, method, x, target), own - dual) < 1e-10


def test_clrp2_needs_a_dense_rule_that_sees_signs() -> None:
    """Epsilon gives both passes the same map: the difference would be zero."""
    for name in ("epsilon-plus", "epsilon", "zero"):
        with pytest.raises(ValueError, match="dual"):
            dataclasses.replace(clarp.Method.named("clrp2"), composite=name)


# ---------------------------------------------------------------- the ledger


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", COMPOSITES)
def test_the_ledger_adds_up(model: nn.Module, name: str, method: str) -> None:
    """seed = pixels + selection + bias + epsilon, for every image and target."""
    if method == "clrp2" and name != "zplus-box":
        return
    e = explain(model, method, pixels(), [[0, 1], [2, 3], [4, 5]], composite=name)
    ledger = e.ledger
    assert ledger.seed.shape == (3, 2)
    assert apart(ledger.pixels, e.relevance.sum((2, 3, 4))) < 1e-10
    absorbed = sum(ledger.total(what) for what in ("selection", "bias", "epsilon"))
    size = sum(entry.arrived.abs() for entry in ledger).max()
    assert float((ledger.seed - ledger.pixels - absorbed).abs().max()) < 1e-10 * float(size)
    assert str(ledger)


def test_the_ledger_says_what_absorbed(model: nn.Module) -> None:
    """The bias takes ``b_j R_j / z_j`` with the zero rule; nothing else is lost where no unit is dead."""
    head = nets.randomise_(nn.Linear(2 * 64, CLASSES), 3).double()
    dense = nn.Sequential(nn.Flatten(), head).eval()
    x, R = pixels(), images(3, CLASSES, seed=4)
    z = dense(x).detach()
    for name, divisor in (("zero", z), ("epsilon", z + 1e-6 * z.sign())):
        (entry,) = [
            e for e in explain(dense, given(R, name), x).ledger if type(e.node.operation).__name__ == "Dense"
        ]
        assert apart(entry.arrived, R.sum(1)) < 1e-12
        assert apart(entry.bias, (head.bias.detach() * R / divisor).sum(1)) < 1e-10
        assert apart(entry.epsilon + R.sum(1), ((1 - z / divisor) * R).sum(1) + R.sum(1)) < 1e-10


def test_the_ledger_without_biases_is_empty() -> None:
    """The zero rule on a network without biases: nothing is absorbed anywhere."""
    ledger = explain(bias_free(), "sglrp", pixels(), 1, composite="zero").ledger
    for entry in ledger:
        for part in (entry.bias, entry.selection, entry.epsilon):
            assert float(part.abs().max()) < 1e-9 * max(1.0, float(entry.arrived.abs().max()))


def test_selection_leaves_its_trace(model: nn.Module) -> None:
    """What channel selection moves stands in the ledger: the size is kept, the sum is not."""
    channels = clarp.Method(clarp.seeds.SoftmaxGradient(), clarp.Selection("channel", "all"))
    ledger = explain(model, channels, pixels(), 1).ledger
    assert float(ledger.total("selection").abs().max()) > 0
    plain_ledger = explain(model, "sglrp", pixels(), 1).ledger
    assert float(plain_ledger.total("selection").abs().max()) == 0


# ---------------------------------------------------------------- what an explanation holds


def test_the_fields_of_an_explanation(model: nn.Module) -> None:
    """Shapes and types as documented, for one target of each image and for several."""
    x = pixels()
    one, two = explain(model, "ssglrp", x, 1, against=[2, 3]), explain(model, "ssglrp", x, [[0, 1]] * 3)
    assert one.relevance.shape == (3, 2, 8, 8)
    assert one.heatmap.shape == (3, 8, 8)
    assert one.logits.shape == (3, CLASSES)
    assert one.target.tolist() == [1, 1, 1]
    assert one.target.dtype == torch.int64
    assert one.against.tolist() == [2, 3]
    assert one.against.dtype == torch.int64
    assert two.against is None
    assert two.target.tolist() == [[0, 1]] * 3
    assert torch.as_tensor(one.selection_skipped).shape == (3,)
    assert torch.as_tensor(two.selection_skipped).shape == (3, 2)
    assert one.method == clarp.Method.named("ssglrp")
    assert one.ledger.seed.shape == (3,)
    assert two.ledger.seed.shape == (3, 2)
