"""The rule for a vector's length equals its formula, element by element."""

import math

import pytest
import torch

from clarp.operations import Record, VectorNorm
from clarp.rules.normalisation import Squares
from clarp.rules.parts import Part, TensorOrFloat
from clarp.rules.rule import Context


def no_weight(part: Part) -> TensorOrFloat:
    raise AssertionError(f"a length has no weight, and {part} was asked for")


@pytest.mark.parametrize("keepdim", [True, False])
def test_each_element_gets_its_part_of_the_square(keepdim: bool) -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    x[1, :, 2] = 0.0  # a vector of length zero hands nothing on
    operation = VectorNorm((-2,), keepdim)
    output, _ = operation.forward([x], {})
    relevance = torch.randn(2, *output.shape, dtype=torch.float64)
    context = Context(operation, Record((x,), output, (x.shape,)), {}, no_weight)
    (found,) = Squares().propagate(relevance, context).inputs
    assert found is not None
    for k in range(2):
        for b in range(2):
            for u in range(4):
                square = math.fsum(value * value for value in x[b, :, u].tolist())
                given = float(relevance[k, b].flatten()[u])
                for c in range(3):
                    part = 0.0 if square == 0 else float(x[b, c, u]) ** 2 / square
                    assert float(found[k, b, c, u]) == pytest.approx(part * given, rel=1e-12, abs=1e-15)
