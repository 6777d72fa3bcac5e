"""Rules for operations with an input that only says which values go where, and is held constant."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clarp.operations import GridSample, Where
from clarp.operations.base import Kept, sample_sums
from clarp.rules.rule import Context, Rule, Shares, divide


@dataclass(frozen=True)
class Chosen(Rule):
    """``R_a = R`` where a was chosen, ``R_b = R`` where b was; a constant's part is absorbed as bias.

    The gradient convention of ReLUs and max poolings: what was not chosen did not contribute. A place in a
    max unpooling is a choice too.
    """

    transports: ClassVar[bool] = True

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        shares = list(context.operation.gradient(relevance, context.record, context.tensors))
        if isinstance(context.operation, Where):
            lost = sample_sums(relevance) - sum(sample_sums(share) for share in shares)
            asks = context.operation.condition is None
            inputs: list[Tensor | None] = [None, *shares[1:]] if asks else [*shares]
            return Shares(
                tuple(inputs), lost if context.operation.first or context.operation.second else None
            )
        return Shares((shares[0], None))


@dataclass(frozen=True)
class Sampled(Rule):
    """Sampling at a grid held constant: ``R_i = sum_j x_i w_ij / z_j R_j``; nothing to the grid."""

    keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs", "output"})

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        assert isinstance(context.operation, GridSample)
        ratio = divide(relevance, context.record.result())
        back = context.operation.gradient(ratio, context.record, context.tensors)[0]
        share = back * context.record.input(0)
        return Shares((share,) if context.operation.grid is not None else (share, None))
