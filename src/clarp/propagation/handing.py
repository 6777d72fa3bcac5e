"""One operation on the way back: what selection leaves of its relevance, and what its rule hands on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Size, Tensor

from clarp.operations import WeightedLinear
from clarp.operations.base import sample_sums
from clarp.operations.custom import Custom
from clarp.propagation.plan import Step
from clarp.rules import Rule
from clarp.rules.rule import Context, Shares


class Selector(Protocol):
    """What selection does on the way back."""

    def select(self, name: str, relevance: Tensor) -> Tensor:
        """Change the relevance (K, B, ...) that arrived at this operation's output."""

    def modulation(self, name: str, seeds: int) -> Tensor | None:
        """The factors (K, B, ...) of this operation's input, or None; they may be overwritten."""


def check_shares(step: Step, shares: Shares, shapes: Sequence[Size]) -> None:
    """Refuse shares of a registered rule without the inputs' shapes: they would be broadcast."""
    operation = step.node.operation
    if not isinstance(operation, Custom):
        return
    found = [None if share is None else tuple(share.shape[2:]) for share in shares.inputs]
    expected = [tuple(shape[1:]) for shape in shapes]
    if len(found) != len(expected) or any(a not in (None, b) for a, b in zip(found, expected, strict=True)):
        raise ValueError(
            f"the rule {step.rule!r} registered for {operation.target} gives relevance of the shapes "
            f"{found}, expected those of its inputs, {expected} (without batch). Register a rule that knows "
            "the operation (docs/rules.md)."
        )


def _dual(context: Context) -> Context:
    """The same context with its weight negated, and the output that follows from it."""
    operation = context.operation
    assert isinstance(operation, WeightedLinear)
    negated = -context.tensors[operation.weight]
    tensors = {**context.tensors, operation.weight: negated}
    output, _ = operation.forward([context.record.input()], tensors)
    return replace(
        context,
        tensors=tensors,
        weight=lambda part: part(negated),
        record=replace(context.record, output=output),
    )


def selected(selector: Selector | None, name: str, relevance: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """What selection leaves of the relevance at an operation's output, and its sum."""
    left = relevance if selector is None else selector.select(name, relevance)
    return left, total if left is relevance else sample_sums(left)


def handed(rule: Rule, relevance: Tensor, context: Context, dual_from: int | None) -> Shares:
    """What a rule makes of relevance (K, B, ...); from seed ``dual_from`` on, with the weight negated."""
    if dual_from is None:
        return rule.propagate(relevance, context)
    return _hand_dual(rule, relevance, context, dual_from)


def _hand_dual(rule: Rule, relevance: Tensor, context: Context, dual_from: int) -> Shares:
    """The seeds up to ``dual_from`` through the context, the others through its dual."""
    chosen = context.selected
    own, other = (None, None) if chosen is None else (chosen[:dual_from], chosen[dual_from:])
    first = rule.propagate(relevance[:dual_from], replace(context, selected=own))
    second = rule.propagate(relevance[dual_from:], _dual(replace(context, selected=other)))
    pairs = zip(first.inputs, second.inputs, strict=True)
    inputs = tuple(None if a is None or b is None else torch.cat([a, b]) for a, b in pairs)
    bias = None if first.bias is None or second.bias is None else torch.cat([first.bias, second.bias])
    return Shares(inputs, bias)
