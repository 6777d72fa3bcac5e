"""Rules for sums and products of two branches, and for the sum of a value and a constant."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from clarp.operations import Shift
from clarp.operations.base import Interval, Kept, may_overwrite, sample_sums
from clarp.rules.rule import Context, Rule, Shares, divide


@dataclass(frozen=True)
class Ratio(Rule):
    """``R_a = |a| / (|a| + |b|) R``, the rest to b; half each where both are zero. Bounded, conserves always.

    Otsuki et al., ECCV 2024, "Layer-Wise Relevance Propagation with Conservation Property for ResNet".
    """

    keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        if isinstance(context.operation, Shift):
            return self._beside_constant(relevance, context)
        a = context.record.input(0).abs()
        b = context.record.input(1) if context.signs[1] else context.record.input(1).abs()
        both = a + b
        reuse = may_overwrite(relevance, both)
        if reuse:
            share = a.div_(both).nan_to_num_(nan=0.5)
        else:
            share = torch.where(both == 0, 0.5, a / both.masked_fill(both == 0, 1))
        if relevance.shape[0] > 1 or not reuse:
            first = relevance * share
            return Shares((first, relevance - first))
        first = share.mul_(relevance[0])
        second = torch.sub(relevance[0], first, out=both)  # fresh memory costs more than the difference
        return Shares((first.unsqueeze(0), second.unsqueeze(0)))

    def _beside_constant(self, relevance: Tensor, context: Context) -> Shares:
        """What a constant gets is the bias's; one of zero gets nothing."""
        assert isinstance(context.operation, Shift)
        a, b = context.record.input().abs(), context.tensors[context.operation.constant].abs()
        first = relevance * (a / (a + b).masked_fill(b == 0, 1)).masked_fill(b == 0, 1)
        return Shares((first,), sample_sums(relevance - first))


def proportional(relevance: Tensor, context: Context, epsilon: float = 0.0) -> Shares:
    """``R_a = a / (a + b + epsilon sign(a + b)) R``: large where a and b nearly cancel, zero if exactly."""
    ratio = divide(relevance, context.record.result(), epsilon)
    if isinstance(context.operation, Shift):
        taken = (ratio * context.tensors[context.operation.constant]).masked_fill(ratio == 0, 0)
        return Shares((ratio * context.record.input(),), sample_sums(taken))
    return Shares((ratio * context.record.input(0), ratio * context.record.input(1)))


def favoured(relevance: Tensor, context: Context, gamma: float) -> Shares:
    """``R_a = c(a) / (c(a) + c(b)) R``, c(v) = (1 + gamma) v for v with the sign of a + b, else v.

    Its parts sum to at most ``(2 + gamma) / gamma |R|`` in size. A sum of exactly zero counts as positive.
    """
    fixed = context.tensors[context.operation.constant] if isinstance(context.operation, Shift) else None
    a, b = context.record.input(0), context.record.input(1) if fixed is None else fixed
    positive = context.record.result() >= 0
    a, b = (torch.where((v > 0) == positive, (1 + gamma) * v, v) for v in (a, b))
    ratio = divide(relevance, a + b)
    if fixed is None:
        return Shares((ratio * a, ratio * b))
    return Shares((ratio * a,), sample_sums(ratio * b))


@dataclass(frozen=True)
class Gate(Rule):
    """``R_signal = R``: the other factor is a gate, a weight that is held constant. A divisor is one too.

    Arras et al. 2017, "Explaining Recurrent Neural Network Predictions in Sentiment Analysis" (LRP-all).

    Attributes:
        signal: which of the two inputs is the signal, 0 or 1.
    """

    signal: int

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        return Shares((relevance, None) if self.signal == 0 else (None, relevance))


@dataclass(frozen=True)
class Half(Rule):
    """``R_a = R_b = R / 2``: two signals multiplied, each half as important (AttnLRP, arXiv 2402.05602)."""

    def propagate(self, relevance: Tensor, context: Context) -> Shares:
        return Shares((relevance / 2, relevance / 2))


def product_rule(intervals: Sequence[Interval], constant: Sequence[bool]) -> Gate | Half:
    """The rule for a product: which of two factors is a gate.

    A gate is a factor that can't be negative and is bounded above by the operations that made it (a sigmoid,
    a softmax, a clamp, perhaps scaled, averaged and broadcast), or one that is held constant already. Of two
    such factors the one with the lower bound is the gate; where the bounds are equal, or neither is a gate,
    both are signals.

    >>> product_rule([(-inf, inf), (0.0, 1.0)], (False, False))
    Gate(signal=0)
    >>> product_rule([(0.0, 1.0), (0.0, 6.0)], (False, False))
    Gate(signal=1)
    >>> product_rule([(-1.0, 1.0), (0.0, inf)], (False, False))
    Half()
    """
    first, second = (
        (-inf if fixed else high) if fixed or low >= 0 else inf
        for (low, high), fixed in zip(intervals, constant, strict=True)
    )
    return Half() if first == second else Gate(signal=0 if second < first else 1)
