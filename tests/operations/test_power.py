"""Powers with any exponent: their gradient is autograd's where that is finite, and zero where it is not."""

import pytest
import torch

from clarp.operations import RealPower
from clarp.operations.base import Record


@pytest.mark.parametrize(("p", "at_zero"), [(0.5, 0.0), (1.0, 1.0), (3.0, 0.0)])
def test_gradient(p: float, at_zero: float) -> None:
    x = torch.tensor([[0.0, 0.25, 4.0]], dtype=torch.float64, requires_grad=True)
    operation, tensors = RealPower("p"), {"p": torch.full((1, 1), p, dtype=torch.float64)}
    y, _ = operation.forward([x], tensors)
    (wanted,) = torch.autograd.grad(y.sum(), x)
    (found,) = operation.gradient(
        torch.ones(1, 1, 3).double(), Record((x.detach(),), None, (x.shape,)), tensors
    )
    assert float(found[0, 0, 0]) == at_zero
    torch.testing.assert_close(found[0, :, 1:], wanted[:, 1:])
