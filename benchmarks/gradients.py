"""Our gradients of operations against torch.autograd's, taken in turn: `python benchmarks/gradients.py`.

Autograd's graph is made once and kept, so that only its way back is timed; K gradients are batched by ours, and one call
after the other, or one vmap, by autograd's.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from clarp.operations import (
    GELU,
    Convolution,
    Dense,
    LayerNorm,
    MatMul,
    MaxPool,
    Operation,
    Record,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
)

CASES: dict[str, tuple[Operation, list[tuple[int, ...]]]] = {
    "ReLU": (ReLU(), [(64, 56, 56)]),
    "Sigmoid": (Sigmoid(), [(64, 56, 56)]),
    "SiLU": (SiLU(), [(64, 56, 56)]),
    "GELU": (GELU("none"), [(197, 384)]),
    "Softmax": (Softmax(-1), [(6, 197, 197)]),
    "LayerNorm": (LayerNorm(None, None, 1e-6, (384,)), [(197, 384)]),
    "MatMul": (MatMul(), [(6, 197, 64), (6, 64, 197)]),
    "MaxPool": (MaxPool((2, 2), (2, 2), (0, 0), (1, 1), ceil_mode=False), [(64, 56, 56)]),
    "Convolution": (Convolution("w", None, (1, 1), (1, 1), (1, 1), 1), [(64, 56, 56)]),
    "Dense": (Dense("v", None), [(197, 384)]),
}


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = perf_counter()
    function()
    return perf_counter() - start


def ratios(
    operation: Operation, shapes: list[tuple[int, ...]], seeds: int, rounds: int
) -> tuple[float, float]:
    """The median time of autograd, one call after the other and by vmap, in units of ours."""
    tensors = {"w": torch.randn(64, 64, 3, 3), "v": torch.randn(384, 384)}
    inputs = tuple(torch.randn(1, *shape) for shape in shapes)
    output, memo = operation.forward(inputs, tensors)
    record = Record(inputs, output, tuple(x.shape for x in inputs), memo)
    given = [x.clone().requires_grad_() for x in inputs]
    result, _ = operation.forward(given, tensors)
    gradient = torch.randn(seeds, *output.shape)

    def autograd() -> list[tuple[Tensor, ...]]:
        return [torch.autograd.grad(result, given, one, retain_graph=True) for one in gradient]

    def batched() -> tuple[Tensor, ...]:
        return torch.autograd.grad(result, given, gradient, retain_graph=True, is_grads_batched=True)

    with torch.no_grad():
        assert torch.allclose(
            operation.gradient(gradient, record, tensors)[0][0], autograd()[0][0], atol=1e-3
        )
    found = []
    for _ in range(rounds):
        with torch.no_grad():
            own = timed(lambda: operation.gradient(gradient, record, tensors))
        found.append((timed(autograd) / own, timed(batched) / own))
    return median(one for one, _ in found), median(two for _, two in found)


if __name__ == "__main__":
    torch.manual_seed(0)
    for name, (operation, shapes) in CASES.items():
        cells = [ratios(operation, shapes, seeds, 60) for seeds in (1, 8)]
        print(f"| {name} | {cells[0][0]:.2f} | {cells[1][0]:.2f} | {cells[1][1]:.2f} |", flush=True)
