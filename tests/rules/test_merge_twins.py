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


class Embedded(nn.Module):
    """Features and a constant that differs from place to place; class 0 does not read the first channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        self.place = nn.Parameter(torch.randn(1, 4, 4, 3))
        with torch.no_grad():
            self.head.weight[0, 0] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.body(x) + self.place).relu().mean((2, 3)))


def test_the_constants_share_is_each_targets_own() -> None:
    """Where the first target has no relevance, the constant beside has its part of the second's."""
    chosen = clarp.composites.get("epsilon", residual="proportional")
    explainer = clarp.Explainer(Embedded().double().eval(), clarp.Method(composite=chosen))
    x = images(2, 3, 6, 5)
    together = explainer(x, [[0, 1], [0, 1]]).ledger
    assert any(row["operation"] == "Shift" for row in together.rows())
    for k in range(2):
        alone = explainer(x, k).ledger
        assert apart(together.total("bias")[:, k], alone.total("bias")) < 1e-12
