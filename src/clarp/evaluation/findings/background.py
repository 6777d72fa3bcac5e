"""Relevance outside the object, where boxes exist: its share of each class, and classes that rest on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clarp.evaluation.findings.asked import Asked
from clarp.evaluation.findings.gathering import Gathered
from clarp.evaluation.findings.places import LEAST_PHOTOS, LEVEL, shown_p
from clarp.evaluation.statistics import Sampling, bootstrap, holm
from clarp.evaluation.tables import Estimate
from clarp.optional import optional

HALF = 0.5
"""A class rests on the background only if more than this share of its evidence lies there."""
_RESAMPLES = 1999


@dataclass(frozen=True)
class Outside:
    """Where the evidence of one class lies, by one method.

    Attributes:
        method: of the maps.
        index: the class's id.
        name: and its name.
        count: its units with boxes and a map.
        share: the mean share of the evidence outside of the boxes, with its interval.
        area: the mean share of the input that is outside of them.
        excess: how much more lies outside than the run's other photos with boxes of the same size have.
        p_holm: that its excess is greater than the other classes', Mann-Whitney's test, one-sided, corrected
            over classes and methods; NaN where there are too few photos.
        units: its units, those with the greatest share outside first.
    """

    method: str
    index: int
    name: str
    count: int
    share: Estimate
    area: float
    excess: float
    p_holm: float
    units: tuple[int, ...]

    @property
    def from_background(self) -> bool:
        """Whether the class is told apart by the background: most of it lies there, and more than others'."""
        return self.p_holm <= LEVEL and self.share.low > HALF


def outside(asked: Asked, gathered: Gathered, seed: int) -> list[Outside]:
    """A line for each method and class that has boxes."""
    found = [
        line for method in range(len(asked.methods)) for line in _of_method(asked, gathered, method, seed)
    ]
    corrected = holm([line.p_holm for line in found])
    return [replace(line, p_holm=float(p)) for line, p in zip(found, corrected, strict=True)]


def _of_method(asked: Asked, gathered: Gathered, method: int, seed: int) -> list[Outside]:
    shares = gathered.outside[method].astype(np.float64)
    there = np.flatnonzero(np.isfinite(shares))
    if not len(there):
        return []
    area = gathered.area.astype(np.float64)
    excess = np.full(len(shares), np.nan)
    excess[there] = shares[there] - _expected(shares[there], area[there])
    own_group = asked.group[there]
    lines = []
    for group in np.unique(own_group):
        own, rest = there[own_group == group], there[own_group != group]
        lines.append(
            Outside(
                method=asked.methods[method],
                index=int(asked.classes[group]),
                name=asked.name(int(asked.classes[group])),
                count=len(own),
                share=_estimate(shares[own], seed),
                area=float(area[own].mean()),
                excess=float(excess[own].mean()),
                p_holm=_greater(excess[own], excess[rest]),
                units=tuple(own[np.argsort(-shares[own], kind="stable")].tolist()),
            )
        )
    return lines


def _expected(shares: NDArray[np.float64], area: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share that photos with so much area outside have in this run: a line through all of them.

    The smaller an object, the more lies outside of it, whatever the class rests on.
    """
    if len(shares) < 3 or np.ptp(area) < 1e-6:
        return np.full(len(shares), shares.mean())
    slope, base = np.polyfit(area, shares, 1)
    found: NDArray[np.float64] = base + slope * area
    return found


def _estimate(values: NDArray[np.float64], seed: int) -> Estimate:
    low, high = bootstrap(values[:, None], Sampling(np.arange(len(values)), _RESAMPLES, seed))
    return Estimate(float(values.mean()), float(low[0]), float(high[0]))


def _greater(own: NDArray[np.float64], rest: NDArray[np.float64]) -> float:
    if min(len(own), len(rest)) < LEAST_PHOTOS:
        return float("nan")
    test = optional("scipy.stats", "Findings").mannwhitneyu
    return float(test(own, rest, alternative="greater").pvalue)


def sentences(found: Sequence[Outside]) -> list[str]:
    """Each class that is told apart by the background, in words."""
    return [
        f"{one.name} ({one.index}), {one.method}: {one.share.mean:.0%} of the evidence "
        f"[{one.share.low:.0%}, {one.share.high:.0%}] lies outside of its boxes, {100 * one.excess:.0f} "
        f"points more than photos with boxes of this size have in this run ({shown_p(one.p_holm)}), over "
        f"{one.count} photos."
        for one in found
        if one.from_background
    ]
