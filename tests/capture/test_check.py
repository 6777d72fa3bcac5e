"""The captured graph must compute the model's own logits: rounding is forgiven, anything else is not."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.capture.check import _logits, check_logits
from clarp.network import Network


class Cancelling(nn.Module):
    """Small differences of large values: float32 leaves few digits of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Conv2d(3, 64, 3), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu().mean((2, 3))
        return self.head(y * 1e7) - self.head(y * 1e7 + 0.3)


def example() -> tuple[nn.Module, Tensor]:
    return Cancelling().eval(), torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_rounding_is_no_reason_to_refuse() -> None:
    model, x = example()
    graph = Network(model).graph((3, 9, 9), torch.float32)
    own, exact = (_logits(graph, x, dtype) for dtype in (torch.float32, torch.float64))
    assert ((own - exact).abs().max() / exact.abs().max()) > 1e-3  # else there is nothing to forgive
    check_logits(graph, x, (exact + 3 * (own - exact)).float())  # as another order of sums might be
    with pytest.raises(clarp.CaptureError, match="differ from the model's own"):
        check_logits(graph, x, (exact + 6 * (own - exact)).float())


def test_what_is_more_than_rounding_is_refused() -> None:
    model, x = example()
    graph = Network(model).graph((3, 9, 9), torch.float32)
    with torch.no_grad(), pytest.raises(clarp.CaptureError, match="differ from the model's own"):
        check_logits(graph, x, model(x) + 50)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3)).eval()
    graph = Network(plain).graph((3, 9, 9), torch.float32)
    weights = {name: tensor * 1.01 if tensor.ndim == 4 else tensor for name, tensor in graph.tensors.items()}
    with torch.no_grad(), pytest.raises(clarp.CaptureError, match="differ from the model's own"):
        check_logits(replace(graph, tensors=weights), x, plain(x))


def test_infinite_logits_must_be_the_same() -> None:
    model, x = example()
    graph = Network(model).graph((3, 9, 9), torch.float32)
    with torch.no_grad(), pytest.raises(clarp.CaptureError, match="some of which are infinite"):
        check_logits(graph, x, model(x).index_fill(1, torch.tensor([2]), -torch.inf))
