"""The way back of a difference: secants between two forward passes, in place of gradients at one."""

import torch
from torch import Tensor

from clarp.operations import Elementwise, Operation, Record
from clarp.operations.base import Tensors
from clarp.operations.pooling import Maximum


def secant(
    operation: Operation, gradient: Tensor, record: Record, other: Record, tensors: Tensors
) -> tuple[Tensor, ...]:
    """Transport a secant (K, B, ...) of an operation's output to each of its inputs.

    With x and x~ the inputs of the two passes, ``sum m_x (x - x~)`` is then ``sum m_y (y - y~)``: exactly for
    linear and elementwise operations, sums, products and maxima, nearly for softmaxes and normalisations.
    For rectifiers this is DeepLIFT's rescale rule (Shrikumar 2017, arXiv 1704.02685).

    - Linear operations: the gradient, which is the same everywhere.
    - Elementwise ones: ``m_y (y - y~) / (x - x~)``; where the two are equal but for rounding, as the others.
    - Maxima: to the winners of both passes, so that both steps together are the output's.
    - Others: the mean of the gradients at both, which is exact for products.

    Args:
        operation: one of the network.
        gradient: the secant of its output, (K, B, ...).
        record: of the one forward pass, with inputs and output of elementwise operations.
        other: of the other.
        tensors: the network's constants.
    """
    if isinstance(operation, Maximum):
        share = _share(operation, record, other)
        return (
            operation.gradient(gradient * share, record, tensors)[0]
            + operation.gradient(gradient * (1 - share), other, tensors)[0],
        )
    shares = operation.gradient(gradient, record, tensors)
    if not operation.gradient_keeps and record.memo is None:
        return shares
    halves = operation.gradient(gradient, other, tensors)
    means = tuple((share + half) / 2 for share, half in zip(shares, halves, strict=True))
    if not isinstance(operation, Elementwise):
        return means
    x, before = record.input(), other.input()
    step, least = x - before, torch.finfo(x.dtype).eps ** 0.5
    apart = step.abs() > least * torch.maximum(x.abs(), before.abs())
    slope = (record.result() - other.result()) / torch.where(apart, step, 1)
    return (torch.where(apart, gradient * slope, means[0]),)


def _share(operation: Maximum, record: Record, other: Record) -> Tensor:
    """How much of an output's difference goes to its winner in the first pass; the rest to that in the other.

    With a and b the steps of the two inputs, ``a >= y - y~ >= b``: a share within 0 and 1 is exact.
    """
    step = record.input() - other.input()
    a, b = (operation.at_winners(step, each.remembered()) for each in (record, other))
    y = record.result() - other.result()
    return torch.where(a == b, 0.5, (y - b) / torch.where(a == b, 1, a - b)).clamp(0, 1)
