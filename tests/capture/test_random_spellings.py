"""Random small networks, each layer in a random spelling, everyday Python between them and a wrapper around: one map."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import clarp
from oracle.calls import images
from oracle.nets import randomise_
from oracle.spellings import Body

SPELLINGS: tuple[tuple[Body, ...], ...] = (
    # each row: spellings of one function of (B, 4, 6, 6) to the same shape
    (F.relu, lambda x: x.masked_fill(x < 0, 0), lambda x: torch.where(x > 0, x, 0.0), lambda x: torch.maximum(x, torch.zeros(()))),
    (nn.LeakyReLU(0.1), lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: torch.where(x <= 0, x / 10, x)),
    (lambda x: x.clamp(-1, 1), lambda x: torch.minimum(torch.maximum(x, torch.tensor(-1)), torch.tensor(1)), nn.Hardtanh()),
    (torch.abs, lambda x: x * x.sign(), lambda x: torch.where(x > 0, x, -x)),
    (lambda x: torch.maximum(x, x.flip(3)), lambda x: torch.where(x >= x.flip(3), x, x.flip(3)), lambda x: torch.stack([x, x.flip(3)]).amax(0)),
    (lambda x: x / (1 + x * x).sqrt(), lambda x: x * (x.square() + 1).rsqrt(), lambda x: x * (x**2 + 1) ** -0.5),
    (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), lambda x: F.glu(torch.cat([x, x.mean((2, 3), keepdim=True).expand_as(x)], 1), 1)),
    (lambda x: x + x.topk(2, 1)[0].mean(1, keepdim=True), lambda x: x + x.sort(1, descending=True)[0][:, :2].mean(1, keepdim=True)),
    (lambda x: x + x.logsumexp((2, 3), keepdim=True), lambda x: x + x.exp().sum((2, 3), keepdim=True).log()),
    (lambda x: x + 0.5, lambda x: x + torch.full((4, 6, 6), 0.5, dtype=x.dtype), lambda x: torch.add(x, torch.full_like(x, 0.5))),
)  # fmt: skip


def hooked(x: Tensor) -> Tensor:
    x.register_hook(lambda gradient: gradient)
    return x


def checked(x: Tensor) -> Tensor:
    assert not torch.isnan(x).any(), "not a number"
    return x


EVERYDAY: tuple[Body, ...] = (
    lambda x: x,
    lambda x: x.to(torch.zeros(1).device),
    lambda x: x.cpu().type_as(x),
    lambda x: x.view(len(x), 4, 36).reshape(len(x), 4, 6, 6),
    lambda x: x.reshape(int(x.size(0)), -1).unflatten(1, (4, 6, 6)),
    lambda x: x * torch.tensor(1.0).item(),
    lambda x: x if torch.ones(3).sum() > 2 else -x,
    lambda x: x[:, torch.tensor([True] * 4)],
    hooked,
    checked,
)


class Arguments(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


WRAPPERS: tuple[Callable[[nn.Module], nn.Module], ...] = (
    lambda m: m,
    nn.DataParallel,
    Arguments,
    nn.Sequential,
)


class Network(nn.Module):
    def __init__(self, layers: list[tuple[Body, Body]]) -> None:
        super().__init__()
        self.stem, self.head, self.layers = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3), layers
        self.between = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for body, around in self.layers:
            x = self.between(around(body(x)))
        return self.head(x.mean((2, 3)))


def explained(
    layers: list[tuple[Body, Body]], wrap: Callable[[nn.Module], nn.Module], x: Tensor
) -> clarp.Explanation:
    model = wrap(randomise_(Network(layers).double(), seed=4)).eval()
    return clarp.Explainer(model, "lrp", composite="epsilon-plus")(x, target=[0, 1, 2])


LAYERS = st.lists(
    st.sampled_from(SPELLINGS).flatmap(
        lambda row: st.tuples(st.just(row[0]), st.sampled_from(row), st.sampled_from(EVERYDAY))
    ),
    min_size=1,
    max_size=3,
)


def check(layers: list[tuple[Body, Body, Body]], wrap: Callable[[nn.Module], nn.Module]) -> None:
    x = images(3, 3, 6, 6)
    plain = explained([(first, EVERYDAY[0]) for first, _, _ in layers], WRAPPERS[0], x)
    other = explained([(spelt, around) for _, spelt, around in layers], wrap, x)
    assert torch.allclose(other.logits, plain.logits, rtol=1e-9)
    assert torch.allclose(
        other.relevance, plain.relevance, rtol=1e-7, atol=1e-7 * float(plain.relevance.abs().max())
    )


@given(LAYERS, st.sampled_from(WRAPPERS))
@settings(max_examples=12)
def test_random_spellings(
    layers: list[tuple[Body, Body, Body]], wrap: Callable[[nn.Module], nn.Module]
) -> None:
    check(layers, wrap)


@pytest.mark.slow
@given(LAYERS, st.sampled_from(WRAPPERS))
@settings(max_examples=1000)
def test_a_thousand_random_spellings(
    layers: list[tuple[Body, Body, Body]], wrap: Callable[[nn.Module], nn.Module]
) -> None:
    check(layers, wrap)
