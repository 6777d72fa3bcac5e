"""The rules of attention equal their brute-force twins: alone, and in whole transformers."""

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import clarp
from clarp import rules
from clarp.operations import MatMul, Record, Shift, Softmax
from clarp.rules.composites import Composite
from clarp.rules.rule import Context
from oracle import attention, linear, nonlinear
from oracle.calls import apart, captured, images, plain, propagate
from oracle.linear import Array, Rule

TOLERANCE = 1e-10

PRODUCTS: dict[str, tuple[Any, Rule]] = {
    "epsilon": (rules.Epsilon(0.01), partial(linear.epsilon, epsilon=0.01)),
    "zero": (rules.Zero(), linear.zero),
    "norm": (rules.Norm(), linear.norm),
    "zplus": (rules.ZPlus(), linear.zplus),
    "gamma": (rules.Gamma(0.25), partial(linear.gamma, gamma=0.25)),
    "alpha2-beta1": (rules.AlphaBeta(2, 1), partial(linear.alpha_beta, alpha=2.0, beta=1.0)),
}


def at(operation: Any, *inputs: Tensor, tensors: dict[str, Tensor] | None = None, **others: Any) -> Context:
    """The operation at work on these inputs."""
    output, memo = operation.forward(list(inputs), tensors or {})
    record = Record(tuple(inputs), output, tuple(x.shape for x in inputs), memo)
    return Context(operation, record, tensors or {}, lambda part: part(1.0), **others)


def by_hand(function: Any, *arrays: Tensor) -> Array:
    """A twin, seed by seed and sample by sample; the last array is the relevance (K, B, ...)."""
    *inputs, R = (array.numpy() for array in arrays)
    return np.stack(
        [
            np.stack([function(*(x[b] for x in inputs), R[k, b]) for b in range(R.shape[1])])
            for k in range(len(R))
        ]
    )


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("non_negative", [False, True])
def test_product(name: str, non_negative: bool) -> None:
    rule, twin = PRODUCTS[name]
    a, b, R = images(2, 3, 4), images(2, 4, 5, seed=1), images(3, 2, 3, 5, seed=2)
    a = a.softmax(-1) if non_negative else a
    context = at(MatMul(), a, b, signs=(non_negative, False))
    ours = rules.Halves(rule).propagate(R, context).inputs
    for number in range(2):
        theirs = by_hand(lambda *arrays, n=number: attention.halves(*arrays, twin)[n], a, b, R)
        assert apart(ours[number], theirs) < TOLERANCE


def test_product_of_a_constant_factor() -> None:
    """Held constant, the first factor is a weight: the second gets everything, by the linear rule."""
    a, b, R = images(2, 3, 4), images(2, 4, 5, seed=1), images(2, 2, 3, 5, seed=2)
    one, other = rules.Halves().propagate(R, at(MatMul(), a, b, constant=(True, False))).inputs
    theirs = by_hand(lambda a, b, R: attention.contributions(a, b, R, attention.TINY).sum(0), a, b, R)
    assert one is None
    assert apart(other, theirs) < TOLERANCE


def test_product_that_broadcasts() -> None:
    """One key for several heads gets what all of them give it."""
    a, b, R = images(2, 2, 3, 4), images(2, 1, 4, 5, seed=1), images(3, 2, 2, 3, 5, seed=2)
    ours = rules.Halves().propagate(R, at(MatMul(), a, b)).inputs
    wide = rules.Halves().propagate(R, at(MatMul(), a, b.expand(-1, 2, -1, -1))).inputs
    assert apart(ours[0], wide[0]) < TOLERANCE
    assert apart(ours[1], wide[1].sum(2, keepdim=True)) < TOLERANCE


@pytest.mark.parametrize("name", ["zero", "epsilon", "zplus", "gamma"])
def test_product_conserves(name: str) -> None:
    a, b, R = images(2, 3, 16), images(2, 16, 5, seed=1), images(1, 2, 3, 5, seed=2)
    rule = rules.Epsilon(1e-12) if name == "epsilon" else PRODUCTS[name][0]
    shares = rules.Halves(rule).propagate(R, at(MatMul(), a, b)).inputs
    assert apart(sum(share.flatten(2).sum(2) for share in shares), R.flatten(2).sum(2)) < 1e-8


@pytest.mark.parametrize("wrong", [rules.Flat(), rules.WSquare(), rules.ZBox()])
def test_product_needs_a_rule_that_sees_both_factors(wrong: Any) -> None:
    with pytest.raises(ValueError, match="both factors"):
        rules.Halves(wrong)
    with pytest.raises(TypeError, match="linear"):
        rules.Halves(rules.Pass())


def test_softmax() -> None:
    x, R = images(2, 3, 4), images(3, 2, 3, 4, seed=1)
    context = at(Softmax(-1), x)
    shares = rules.Taylor().propagate(R, context)
    theirs = by_hand(attention.softmax_taylor, x, R)
    assert apart(shares.inputs[0], theirs) < TOLERANCE
    assert apart(shares.bias, (R.numpy() - theirs).sum((2, 3))) < TOLERANCE


def test_softmax_along_another_axis() -> None:
    x, R = images(2, 3, 4), images(2, 2, 3, 4, seed=1)
    ours = rules.Taylor().propagate(R, at(Softmax(-2), x)).inputs[0]
    theirs = rules.Taylor().propagate(R.mT, at(Softmax(-1), x.mT)).inputs[0]
    assert apart(ours, theirs.mT) < 1e-14


def test_masked_scores() -> None:
    """Minus infinity has weight zero and gets nothing; the others are as if it were not there."""
    x, R = images(1, 3, 4), images(1, 1, 3, 4, seed=1)
    R[..., 2:] = 0
    masked = x.clone()
    masked[..., 2:] = -torch.inf
    ours = rules.Taylor().propagate(R, at(Softmax(-1), masked)).inputs[0]
    theirs = rules.Taylor().propagate(R[..., :2], at(Softmax(-1), x[..., :2])).inputs[0]
    assert apart(ours, F.pad(theirs, (0, 2))) < 1e-14


def test_hold_takes_everything() -> None:
    R = images(2, 2, 3, 4)
    shares = rules.Hold().propagate(R, at(Softmax(-1), images(2, 3, 4)))
    assert shares.inputs == (None,)
    assert torch.equal(shares.bias, R.flatten(2).sum(2))


@pytest.mark.parametrize("rule", [rules.Ratio(), rules.Norm()])
def test_sum_with_a_constant(rule: Any) -> None:
    """The constant's share is the bias's."""
    x, constant, R = images(2, 3, 4), images(1, 3, 4, seed=1), images(2, 2, 3, 4, seed=2)
    constant[0, 0, 0] = 0.0
    x[0, 1, 1] = 0.0
    shares = rule.propagate(R, at(Shift("c"), x, tensors={"c": constant}))

    def value_part(x: Array, R: Array) -> Array:
        if isinstance(rule, rules.Ratio):
            return attention.add_constant(x, constant[0].numpy(), R)
        left, _ = nonlinear.add_proportional(x.reshape(-1), constant[0].numpy().reshape(-1), R.reshape(-1))
        return left.reshape(x.shape)

    theirs = by_hand(value_part, x, R)
    assert apart(shares.inputs[0], theirs) < TOLERANCE
    assert apart(shares.bias, (R.numpy() - theirs).sum((2, 3))) < TOLERANCE


COMPOSITES: dict[str, tuple[Any, attention.Twin]] = {
    "zero": (
        Composite("t", rules.Zero(), rules.Zero(), product=rules.Halves(rules.Zero())),
        attention.Twin(linear.zero, linear.zero, linear.zero, hold=False),
    ),
    "epsilon": (
        Composite("t", rules.Epsilon(), rules.Epsilon()),
        attention.Twin(attention.TINY, attention.TINY, attention.TINY, hold=False),
    ),
    "held": (
        Composite(
            "t", rules.ZPlus(), rules.ZPlus(), product=rules.Halves(rules.ZPlus()), softmax=rules.Hold()
        ),
        attention.Twin(linear.zplus, linear.zplus, linear.zplus, hold=True),
    ),
    "gamma": (
        Composite(
            "t",
            rules.Gamma(0.25),
            rules.Gamma(0.1),
            product=rules.Halves(rules.Gamma(0.1)),
            softmax=rules.Hold(),
        ),
        attention.Twin(
            partial(linear.gamma, gamma=0.25),
            partial(linear.gamma, gamma=0.1),
            partial(linear.gamma, gamma=0.1),
            hold=True,
        ),
    ),
}


def transformer(seed: int = 0, **options: Any) -> attention.Transformer:
    torch.manual_seed(seed)
    model = attention.Transformer(**options).double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
    return model


@cache
def deep(spelling: str = attention.SPELLINGS[0]) -> attention.Transformer:
    """One for all tests of it, so that it is captured once; none changes it."""
    return transformer(depth=2, spelling=spelling)


def test_the_oracle_computes_the_models_logits() -> None:
    """Guards the guard; and every spelling means the same."""
    x = images(1, 2, 6, 6)
    for spelling in attention.SPELLINGS:
        model = deep(spelling)
        with torch.no_grad():
            assert apart(model(x)[0], attention.walk(model, x[0].numpy(), COMPOSITES["zero"][1])[0]) < 1e-12


@pytest.mark.parametrize("name", COMPOSITES)
@settings(max_examples=4)
@given(
    seed=st.integers(0, 1000),
    depth=st.integers(1, 2),
    heads=st.sampled_from([1, 2]),
    spelling=st.sampled_from(attention.SPELLINGS),
)
def test_drawn_transformer(name: str, seed: int, depth: int, heads: int, spelling: str) -> None:
    """Whole transformers by hand, in every spelling of attention."""
    model = transformer(seed, depth=depth, heads=heads, spelling=spelling)
    composite, twin = COMPOSITES[name]
    x, R = images(2, 2, 6, 6, seed=seed), images(2, 3, seed=seed + 1)
    theirs = [attention.walk(model, a, twin)[1](r) for a, r in zip(x.numpy(), R.numpy(), strict=True)]
    assert apart(propagate(model, x, R, composite), np.stack(theirs)) < 1e-8


@pytest.mark.parametrize("spelling", attention.SPELLINGS)
@pytest.mark.parametrize("name", clarp.composites.names())
def test_ledger_of_a_transformer(name: str, spelling: str) -> None:
    """Position embeddings, class token and softmax absorb relevance, and the ledger has all of it."""
    model = deep(spelling)
    x, R = images(2, 2, 6, 6), images(2, 3, seed=1)
    method = plain(clarp.seeds.Vector(R), clarp.composites.get(name))
    explanation = clarp.Explainer(captured(model), method)(x)
    ledger = explanation.ledger
    lost = ledger.total("selection") + ledger.total("bias") + ledger.total("epsilon")
    assert torch.isfinite(explanation.relevance).all()
    assert apart(ledger.pixels + lost, R.sum(1)) < 1e-9
    assert apart(ledger.pixels, explanation.relevance.flatten(1).sum(1)) < 1e-9
    assert (ledger.total("bias") != 0).all()


@pytest.mark.parametrize("name", COMPOSITES)
def test_linear_in_the_seed(name: str) -> None:
    model, x = deep(), images(1, 2, 6, 6)
    first, second = images(1, 3, seed=1), images(1, 3, seed=2)
    maps = [propagate(model, x, R, COMPOSITES[name][0]) for R in (first, second, 2 * first - 3 * second)]
    assert apart(maps[2], 2 * maps[0] - 3 * maps[1]) < 1e-9
