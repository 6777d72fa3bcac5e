"""What is known of signs drops terms, and changes no map: an average has non-negative weights."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clarp import rules
from clarp.rules.parts import NEGATIVE, POSITIVE, WHOLE, Branch, Ones, Signed, Square, Term
from oracle import linear
from oracle.calls import apart, composite, images, propagate

AVERAGED: dict[str, tuple[Any, Any]] = {
    "zplus": (rules.ZPlus(), linear.zplus),
    "alpha-beta": (rules.AlphaBeta(2, 1), lambda *a: linear.alpha_beta(*a, alpha=2.0, beta=1.0)),
    "gamma": (rules.Gamma(0.5), lambda *a: linear.gamma(*a, gamma=0.5)),
}


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", AVERAGED)
def test_averages_under_rules_of_signs(name: str, relu: bool) -> None:
    rule, twin = AVERAGED[name]
    pool = nn.AvgPool2d(2, stride=1)
    x, R = images(2, 2, 3, 4, seed=1), images(2, 12, seed=2)
    model = nn.Sequential(*([nn.ReLU()] if relu else []), pool, nn.Flatten()).double().eval()
    ours = propagate(model, x, R, composite(rules.Zero(), average=rule))
    matrix = linear.affine(pool, (2, 3, 4))
    inputs = x.relu() if relu else x
    theirs = [twin(matrix, a.flatten().numpy(), r.numpy()) for a, r in zip(inputs, R, strict=True)]
    assert apart(ours, np.stack(theirs).reshape(x.shape)) < 1e-10


V = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0])


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (WHOLE, [-2.0, -0.5, 0.0, 1.0, 3.0]),
        (POSITIVE, [0.0, 0.0, 0.0, 1.0, 3.0]),
        (NEGATIVE, [-2.0, -0.5, 0.0, 0.0, 0.0]),
        (Signed(2.0, 0.0), [0.0, 0.0, 0.0, 2.0, 6.0]),
        (Signed(0.0, 2.0), [-4.0, -1.0, 0.0, 0.0, 0.0]),
        (Signed(3.0, 3.0), [-6.0, -1.5, 0.0, 3.0, 9.0]),
        (Signed(2.0, 0.5), [-1.0, -0.25, 0.0, 2.0, 6.0]),
        (Ones(), [1.0] * 5),
        (Square(), [4.0, 0.25, 0.0, 1.0, 9.0]),
    ],
)
def test_parts_of_values(part: Any, expected: list[float]) -> None:
    assert part(V).tolist() == expected
    assert [float(part(v)) for v in V.tolist()] == expected


TERMS = (
    Term(POSITIVE, POSITIVE),
    Term(NEGATIVE, NEGATIVE),
    Term(POSITIVE, NEGATIVE),
    Term(NEGATIVE, POSITIVE),
)
SIGNS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize(("inputs", "weights"), SIGNS)
@pytest.mark.parametrize("term", TERMS)
def test_dropped_terms_are_zero_and_kept_ones_the_same(term: Term, inputs: bool, weights: bool) -> None:
    def value(t: Term) -> Tensor:
        x, w = (V.abs() if inputs else V), (V.abs() if weights else V)
        return torch.outer(t.input(x), t.weight(w))  # type: ignore[operator, arg-type]

    kept = Branch((term,)).given(input_non_negative=inputs, weight_non_negative=weights).terms
    assert torch.equal(value(kept[0]) if kept else torch.zeros(5, 5), value(term))


@pytest.mark.parametrize(("inputs", "weights"), SIGNS)
@pytest.mark.parametrize(
    "terms", [TERMS[:2], TERMS[2:], TERMS[:1], (Term(WHOLE, WHOLE),), (Term(WHOLE, POSITIVE),)]
)
def test_a_sure_sign_is_one(terms: tuple[Term, ...], inputs: bool, weights: bool) -> None:
    """Where it is claimed that z can't be negative, it is not; and behind a ReLU z+ claims it."""
    branch = Branch(terms).given(input_non_negative=inputs, weight_non_negative=weights)
    sure = branch.sure_sign(input_non_negative=inputs, weight_non_negative=weights)
    x, w = (V.abs() if inputs else V), (V.abs() if weights else V)
    parts = [torch.outer(t.input(x), t.weight(w)) for t in branch.terms]  # type: ignore[operator, arg-type]
    if sure:
        assert all(bool((part >= 0).all()) for part in parts)
    assert not Branch(terms, bias=WHOLE).sure_sign(input_non_negative=inputs, weight_non_negative=weights)
    assert Branch(TERMS[:2]).sure_sign(input_non_negative=inputs, weight_non_negative=weights)
