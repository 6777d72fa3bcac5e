"""What a rule is: how one operation hands the relevance of its output to its inputs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.operations import Operation, Record
from clarp.operations.base import Kept, Tensors, may_overwrite, sample_sums
from clarp.rules.parts import Part, TensorOrFloat


@dataclass(frozen=True)
class Context:
    """Everything that a rule may look at while it works on one operation.

    Attributes:
        operation: the operation.
        record: what the forward pass kept.
        tensors: the weights by name.
        weight: gives a part of the operation's weight, prepared once.
        signs: for each input whether it can't be negative.
        bounds: the lowest and highest input, each (B or 1, ...), where the operation reads the pixels.
        selected: what the rule reads in place of the input where there is selection in neuron form, (K, B,
            ...).
        constant: for each input whether it is held constant, as a weight is, so that relevance given to it
            ends there.
    """

    operation: Operation
    record: Record
    tensors: Tensors
    weight: Callable[[Part], TensorOrFloat]
    signs: tuple[bool, ...] = (False, False)
    bounds: tuple[Tensor, Tensor] | None = None
    selected: Tensor | None = None
    constant: tuple[bool, ...] = (False, False)


@dataclass(frozen=True)
class Shares:
    """What a rule hands on.

    Attributes:
        inputs: the relevance of each input, (K, B, ...), or None for one that gets nothing.
        bias: the relevance that the bias absorbed, (K, B), or None where the rule has no bias.
        fresh: whether the inputs' lie in memory that nobody else reads, and may be overwritten.
    """

    inputs: tuple[Tensor | None, ...]
    bias: Tensor | None = None
    fresh: bool = False


class Rule(ABC):
    """Subclasses are frozen dataclasses: a rule can be printed, compared and tested alone."""

    keeps: ClassVar[frozenset[Kept]] = frozenset()
    """What it reads of the forward pass."""
    transports: ClassVar[bool] = False
    """Whether it asks for the operation's gradient, which may read more."""

    @abstractmethod
    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        """Hand relevance (K, B, ...) of the output to the inputs."""

    def weight_parts(self, operation: Operation, *, non_negative: bool) -> tuple[Part, ...]:
        """The parts of the operation's weight that it will ask for."""
        return ()


@dataclass(frozen=True)
class Pass(Rule):
    """``R_in = R``: one element in, one element out, as in a ReLU."""

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        return Shares((relevance,))


@dataclass(frozen=True)
class Transport(Rule):
    """``R_in = J^T R`` with the operation's Jacobian J of zeros and ones.

    Each relevance goes where its value came from: through a view, a slice, a padding, and to the winner of a
    max pooling (ties: the first).
    """

    transports: ClassVar[bool] = True

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        return Shares(context.operation.gradient(relevance, context.record, context.tensors))


@dataclass(frozen=True)
class Crop(Rule):
    """``R_in = R`` where the value was put; what constants around it (a class token) got is the bias's."""

    transports: ClassVar[bool] = True

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        shares = context.operation.gradient(relevance, context.record, context.tensors)
        lost = sample_sums(relevance) - sum(sample_sums(share) for share in shares)
        return Shares(shares, lost)


TINY = 1e-30


def divide(
    relevance: Tensor, z: Tensor, epsilon: float = 0.0, *, non_negative: bool = False, reuse: bool = False
) -> Tensor:
    """``R / (z + epsilon sign(z))`` with ``sign(0) = 1``; for epsilon = 0, zero where z is zero.

    An output without a single contribution has nobody to hand its relevance to.

    Args:
        relevance: R.
        z: broadcasts with R.
        epsilon: not negative.
        non_negative: whether z is known not to be negative, which saves two passes over memory.
        reuse: whether the memory of z may be overwritten.
    """
    if epsilon > 0:
        return relevance / torch.where(z < 0, z - epsilon, z + epsilon)
    if not may_overwrite(relevance, z):
        return relevance / z.masked_fill(z <= TINY if non_negative else z.abs() <= TINY, torch.inf)
    if non_negative:
        safe = torch.threshold_(z, TINY, torch.inf) if reuse else torch.threshold(z, TINY, torch.inf)
    else:
        zero = (z <= TINY).logical_and_(z >= -TINY)
        safe = z.masked_fill_(zero, torch.inf) if reuse else z.masked_fill(zero, torch.inf)
    # Fresh memory costs more than the division.
    if relevance.ndim == safe.ndim and relevance.shape == safe.shape:
        return torch.div(relevance, safe, out=safe)
    if relevance.shape[0] > 1 or relevance.ndim == safe.ndim:
        return relevance / safe
    return torch.div(relevance[0], safe, out=safe).unsqueeze(0)
