"""The preset ``attnlrp`` is AttnLRP as published (Achtibat et al. 2024, arXiv 2402.05602), part by part and as a whole."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from clarp import rules
from oracle.calls import images
from oracle.nets import randomise_

EPSILON = 1e-6


class Block(nn.Module):
    """A transformer of one block on the pixels' columns: position embedding, attention, MLP, two residual sums."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(images(1, 5, 4, seed=9))
        self.norm, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.embed, self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(5))
        self.up, self.down, self.head = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1, 2).mT) + self.place
        y = self.norm(x)
        x = x + self.out((self.q(y) @ self.k(y).mT * 0.5).softmax(-1) @ self.v(y))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


def stable(z: Tensor) -> Tensor:
    return torch.where(z < 0, z - EPSILON, z + EPSILON)


def dense(layer: nn.Linear, x: Tensor, R: Tensor) -> Tensor:
    """R_i = sum_j x_i w_ji / (z_j + eps sign z_j) R_j, output by output."""
    share, z = torch.zeros_like(x), layer(x)
    for j in range(layer.out_features):
        share += x * layer.weight[j] * (R[..., j] / stable(z[..., j]))[..., None]
    return share


def summed(parts: Sequence[Tensor], R: Tensor) -> list[Tensor]:
    """The epsilon rule for an addition."""
    return [part / stable(parts[0] + parts[1]) * R for part in parts]


def product(a: Tensor, b: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    """Prop. 3.3: each contribution a_ik b_kj by epsilon, half of it to either factor."""
    of_a, of_b, z = torch.zeros_like(a), torch.zeros_like(b), a @ b
    for i in range(a.shape[-2]):
        for k in range(a.shape[-1]):
            for j in range(b.shape[-1]):
                part = a[i, k] * b[k, j] / stable(z[i, j]) * R[i, j] / 2
                of_a[i, k] += part
                of_b[k, j] += part
    return of_a, of_b


def softmax(x: Tensor, R: Tensor) -> Tensor:
    """Prop. 3.1."""
    return x * (R - x.softmax(-1) * R.sum(-1, keepdim=True))


def twin(net: Block, image: Tensor, R: Tensor) -> Tensor:
    """AttnLRP of one image, from the paper's formulas; R of the logits."""
    pixels = image.flatten(0, 1).mT
    tokens = net.embed(pixels)
    x0 = tokens + net.place[0]
    y = net.norm(x0)
    q, k, v = net.q(y), net.k(y), net.v(y)
    scores = q @ k.mT * 0.5
    mixed = scores.softmax(-1) @ v
    a = net.out(mixed)
    x1 = x0 + a
    up = net.up(net.norm2(x1))
    m = net.down(F.gelu(up))
    x2 = x1 + m
    R = dense(net.head, x2.mean(0), R)
    R = x2 / x2.sum(0) * R  # a mean over tokens, in proportion
    R1, Rm = summed((x1, m), R)
    R1 = R1 + dense(
        net.up, net.norm2(x1), dense(net.down, F.gelu(up), Rm)
    )  # activations and norms by the identity
    R0, Ra = summed((x0, a), R1)
    Rweights, Rv = product(scores.softmax(-1), v, dense(net.out, mixed, Ra))
    Rq, Rk = product(q, k.mT, softmax(scores, Rweights))
    R0 = R0 + dense(net.q, y, Rq) + dense(net.k, y, Rk.mT) + dense(net.v, y, Rv)
    return dense(net.embed, pixels, summed((tokens, net.place[0]), R0)[0]).mT.reshape(image.shape)


def test_a_transformer_equals_the_formulas_of_the_paper() -> None:
    net = randomise_(Block().double(), seed=2).eval()
    x = images(2, 2, 2, 5)
    explainer = clarp.Explainer(net, "lrp", composite="attnlrp")
    found = explainer(x, target=[1, 2])
    with torch.no_grad():
        for image, target, relevance in zip(x, (1, 2), found.relevance, strict=True):
            logits = net(image[None])[0]
            expected = twin(net, image, logits * F.one_hot(torch.tensor(target), 3))
            assert float((relevance - expected).abs().max()) < 1e-10 * max(1.0, float(expected.abs().max()))


def test_sums_are_by_the_epsilon_rule() -> None:
    found = {
        step.rule
        for step in clarp.Explainer(Block().double().eval(), "lrp", composite="attnlrp").plan((2, 2, 5))
    }
    assert {rules.Epsilon(), rules.Halves(), rules.Taylor(), rules.Pass()} <= found
    assert not any(isinstance(rule, rules.Ratio) for rule in found)


def test_a_residual_network_of_linear_layers_is_gradient_times_input() -> None:
    """With sums by size it is not."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = (nn.Linear(20, n, bias=False) for n in (20, 20, 3))

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            x = x + self.a(x)
            return self.head(x + self.b(x).relu())

    net = randomise_(Residual().double(), seed=1).eval()
    x = images(2, 2, 2, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    for composite, alike in (("attnlrp", True), ("epsilon", False)):
        found = clarp.Explainer(net, "lrp", composite=composite)(x.detach(), target=1).relevance
        assert torch.allclose(found, x.detach() * gradient, rtol=1e-2, atol=1e-3) is alike
