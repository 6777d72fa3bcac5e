"""A body between a convolution and a dense layer, and what every spelling of it must show."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

import clarp
from clarp.network import Network
from oracle.calls import images
from oracle.nets import randomise_

Body = Callable[[Tensor], Tensor]


class Around(nn.Module):
    """A convolution, the body, and a dense layer."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3, padding=1), body
        features = body(torch.ones(2, 4, 6, 6, dtype=torch.float64)).flatten(1).shape[1]
        self.head = nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).flatten(1))


@cache
def model(body: Body) -> nn.Module:
    """With random weights, in float64; the same for all tests of a body, and none changes it."""
    return randomise_(Around(body).double(), seed=3).eval()


@cache
def network(body: Body) -> Network:
    """The model's network, so that each body is captured once."""
    return Network(model(body))


def check_maps(*bodies: Body) -> None:
    """Each gives the model's logits, the same map as the first, a ledger that closes, and the same for an image alone."""
    x = images(2, 3, 6, 6)
    maps = []
    for body in bodies:
        explainer = clarp.Explainer(network(body), "lrp", composite="zero")
        explanation = explainer(x, target=[0, 2])
        assert torch.allclose(explanation.logits, model(body)(x))
        ledger = explanation.ledger
        lost = ledger.total("bias") + ledger.total("epsilon")
        assert torch.allclose(ledger.seed, ledger.pixels + lost)
        alone = explainer(x[1:], target=[2])
        assert torch.allclose(alone.relevance[0], explanation.relevance[1], rtol=1e-9)
        maps.append(explanation.relevance)
    for other in maps[1:]:
        assert torch.allclose(other, maps[0], rtol=1e-9, atol=1e-12)


def check_gradient(body: Body) -> None:
    """The gradient that selection uses is autograd's."""
    x = images(2, 3, 6, 6).requires_grad_()
    program = clarp.Explainer(network(body), "ssglrp")._program(x.detach())[0]
    seed = images(1, 2, 3, seed=4)
    (expected,) = torch.autograd.grad(model(body)(x), x, seed[0])
    graph = program.plan.graph
    found = dict(program.gradients(program.forward(x.detach()), seed, {graph.input}))
    assert torch.allclose(found[graph.input][0], expected, rtol=1e-9, atol=1e-12)
