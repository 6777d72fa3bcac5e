"""What autograd says of one operation's gradient."""

from typing import Any

import torch
from torch import Tensor

from clarp.operations import Record


def check_gradient(
    operation: Any, *inputs: Tensor, tensors: dict[str, Tensor] | None = None, seeds: int = 2
) -> None:
    """``operation.gradient`` of random gradients (K, B, ...) against autograd, at float64 inputs (B, ...)."""
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    output, memo = operation.forward(list(inputs), tensors or {})
    record = Record(tuple(x.detach() for x in inputs), output.detach(), tuple(x.shape for x in inputs), memo)
    generator = torch.Generator().manual_seed(5)
    g = torch.randn(seeds, *output.shape, generator=generator, dtype=output.dtype)
    ours = operation.gradient(g, record, tensors or {})
    for k in range(seeds):
        theirs = torch.autograd.grad(output, inputs, g[k], retain_graph=True)
        for one, other in zip(ours, theirs, strict=True):
            assert one.shape[1:] == other.shape
            assert torch.allclose(one[k], other, rtol=1e-9, atol=1e-11)
