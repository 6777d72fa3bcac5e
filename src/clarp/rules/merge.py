"""Rules for the sum of two branches."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clarp.operations.base import Kept
from clarp.rules.rule import Rule, Shares, Site, divide


@dataclass(frozen=True)
class Ratio(Rule):
    """``R_a = |a| / (|a| + |b|) R``, and the rest to b; half each where both are zero. Bounded, and always conserves.

    Otsuki et al., ECCV 2024, "Layer-Wise Relevance Propagation with Conservation Property for ResNet".
    """

    keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def propagate(self, relevance: Tensor, site: Site) -> Shares:
        """Split by size."""
        a, b = site.record.input(0).abs(), site.record.input(1).abs()
        share = a.div_(b.add_(a)).nan_to_num_(nan=0.5)
        first = relevance * share
        return Shares((first, relevance - first))


def proportional(relevance: Tensor, site: Site) -> Shares:
    """``R_a = a / (a + b) R``, signs included: unbounded where a and b cancel, nothing where they cancel exactly."""
    ratio = divide(relevance, site.record.result())
    return Shares((ratio * site.record.input(0), ratio * site.record.input(1)))
