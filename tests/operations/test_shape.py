"""Operations that move values: what goes back is the transpose, by autograd."""

from typing import Any

import pytest

from clarp import operations as ops
from oracle.calls import images
from oracle.gradients import check_gradient

SHAPE = (2, 3, 4, 5)
TENSORS = {"token": images(1, 1, 4, 5, seed=7), "tail": images(1, 2, 4, 5, seed=8)}
CASES: dict[str, Any] = {
    "reshape": ops.Reshape((5, 12)),
    "permute in a circle": ops.Permute((0, 2, 3, 1)),
    "slice": ops.Slice(2, 1, 4, 2),
    "slice by threes": ops.Slice(3, 0, 5, 3),
    "pad, uneven": ops.Pad((1, 2, 0, 3), 0.5),
    "crop and pad": ops.Pad((-1, 2, 1, -2), 0.0),
    "token before": ops.Extend(1, "token", None),
    "token before and two behind": ops.Extend(1, "token", "tail"),
    "roll": ops.Roll((1, -2), (2, 3)),
    "flip": ops.Flip((1, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient(name: str) -> None:
    check_gradient(CASES[name], images(*SHAPE), tensors=TENSORS)


def test_gradient_of_copies() -> None:
    check_gradient(ops.Expand((3, 4, 5)), images(2, 3, 1, 5), tensors={})


def test_gradient_of_several_side_by_side() -> None:
    parts = (images(2, 1, 4), images(2, 3, 4, seed=1), images(2, 2, 4, seed=2))
    check_gradient(ops.Concatenate(1), *parts, tensors={})
