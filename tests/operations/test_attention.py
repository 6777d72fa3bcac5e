"""Gradients of the operations of attention against autograd."""

from typing import Any

import pytest
from torch import Tensor

from clarp.operations import (
    Contraction,
    Expand,
    Extend,
    Flip,
    GroupNorm,
    LayerNorm,
    MatMul,
    RMSNorm,
    Roll,
    Shift,
    Softmax,
)
from oracle.calls import images
from oracle.gradients import check_gradient

TENSORS = {
    "w": images(4, seed=7),
    "b": images(4, seed=8),
    "w2": images(3, 4, seed=9),
    "b2": images(3, 4, seed=10),
    "token": images(1, 1, 4, seed=11),
    "position": images(1, 3, 4, seed=12),
    "mixing": images(3, 6, 3, seed=13),
}

CASES: dict[str, tuple[Any, tuple[Tensor, ...]]] = {
    "product": (MatMul(), (images(2, 3, 4), images(2, 4, 5, seed=1))),
    "product of heads": (MatMul(), (images(2, 3, 2, 4), images(2, 3, 4, 5, seed=1))),
    "product that broadcasts": (MatMul(), (images(2, 3, 2, 4), images(2, 1, 4, 5, seed=1))),
    "softmax": (Softmax(-1), (images(2, 3, 4),)),
    "softmax, another axis": (Softmax(-2), (images(2, 3, 4),)),
    "layer norm": (LayerNorm("w", "b", 1e-5, (4,)), (images(2, 3, 4),)),
    "layer norm, two axes": (LayerNorm("w2", "b2", 1e-3, (3, 4)), (images(2, 5, 3, 4),)),
    "layer norm, plain": (LayerNorm(None, None, 1e-3, (4,)), (images(2, 4),)),
    "RMS norm": (RMSNorm("w", None, 1e-3, (4,)), (images(2, 3, 4),)),
    "group norm": (GroupNorm("w", "b", 1e-5, 2), (images(2, 4, 3, 5),)),
    "group norm of vectors": (GroupNorm("w", "b", 1e-3, 2), (images(2, 4),)),
    "instance norm": (GroupNorm(None, None, 1e-5, 4), (images(2, 4, 3, 5),)),
    "constant": (Shift("position"), (images(2, 3, 4),)),
    "class token": (Extend(1, "token", None), (images(2, 3, 4),)),
    "tokens at both ends": (Extend(1, "token", "position"), (images(2, 3, 4),)),
    "copies": (Expand((5, 3, 4)), (images(2, 1, 3, 4),)),
    "roll": (Roll((1, -2), (1, 2)), (images(2, 3, 4),)),
    "flip": (Flip((2,)), (images(2, 3, 4),)),
    "a constant before": (Contraction("mixing", None, "bayz", "axy", "baxz"), (images(2, 3, 3, 5),)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient(name: str) -> None:
    operation, inputs = CASES[name]
    check_gradient(operation, *inputs, tensors=TENSORS)
