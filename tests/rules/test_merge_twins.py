"""Products, quotients and lengths equal their loops, through the public API."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import rules
from oracle import linear
from oracle.calls import apart, composite, images, propagate
from oracle.linear import Array

Body = Callable[[Tensor], Tensor]
Split = Callable[[Array, Array], Array]


class Headed(nn.Module):
    """The body, and a dense layer."""

    def __init__(self, body: Body, features: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


def mirrored(R: Array) -> Array:
    return R[:, :, ::-1]


def length(x: Array, R: Array) -> Array:
    """R (C,) of the lengths of each channel."""
    out = np.zeros_like(x)
    for c, i, j in np.ndindex(*x.shape):
        total = sum(x[c, u, v] ** 2 for u, v in np.ndindex(*x.shape[1:]))
        out[c, i, j] = x[c, i, j] ** 2 / total * R[c]
    return out


CASES: dict[str, tuple[Body, int, Split]] = {
    # by the rule, all to the first factor, all to the second, half to each (the second is the image mirrored)
    "gate behind": (lambda x: x * x.flip(-1).sigmoid(), 24, lambda x, R: R.reshape(x.shape)),
    "gate in front": (lambda x: x.sigmoid() * x.flip(-1), 24, lambda x, R: mirrored(R.reshape(x.shape))),
    "signals": (
        lambda x: x * x.flip(-1),
        24,
        lambda x, R: R.reshape(x.shape) / 2 + mirrored(R.reshape(x.shape)) / 2,
    ),
    "quotient": (lambda x: x / (x.flip(-1).square() + 1), 24, lambda x, R: R.reshape(x.shape)),
    "inverse": (lambda x: (1 / (x.square() + 1)) * x.flip(-1), 24, lambda x, R: mirrored(R.reshape(x.shape))),
    "length": (lambda x: x.norm(dim=(2, 3)), 2, length),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rule", [rules.Zero(), rules.ZPlus()])
def test_against_loops(name: str, rule: rules.LinearRule) -> None:
    body, features, split = CASES[name]
    model = Headed(body, features).double().eval()
    x, R = images(2, 2, 3, 4), images(2, 3, seed=1)
    theirs = []
    for image, seed in zip(x, R, strict=True):
        hidden = body(image[None]).flatten().numpy()
        formula = linear.zero if isinstance(rule, rules.Zero) else linear.zplus
        relevance = formula(linear.affine(model.head, (features,)), hidden, seed.numpy())
        theirs.append(split(image.numpy(), relevance))
    assert apart(propagate(model, x, R, composite(rule)), np.stack(theirs)) < 1e-10


def test_an_inverse_alone_absorbs() -> None:
    """Held constant, as a divisor is: the ledger has what it took."""
    model = Headed(lambda x: 1 / (x.square() + 1), 24).double().eval()
    explanation = clarp.Explainer(model, "lrp", composite="epsilon-plus")
    with pytest.warns(clarp.RelevanceLost):
        found = explanation(images(1, 2, 3, 4))
    assert torch.count_nonzero(found.relevance) == 0
    assert torch.allclose(found.ledger.seed, found.ledger.total("bias") + found.ledger.total("epsilon"))
