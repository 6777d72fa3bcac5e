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
        a = site.record.input(0).abs()
        b = site.record.input(1) if site.signs[1] else site.record.input(1).abs()
        share = a.div_(a + b).nan_to_num_(nan=0.5)
        first = share.mul_(relevance[0]).unsqueeze(0) if relevance.shape[0] == 1 else relevance * share
        return Shares((first, relevance - first))


def proportional(relevance: Tensor, site: Site) -> Shares:
    """``R_a = a / (a + b) R``, signs included: unbounded where a and b cancel, nothing where they cancel exactly."""
    ratio = divide(relevance, site.record.result())
    return Shares((ratio * site.record.input(0), ratio * site.record.input(1)))
