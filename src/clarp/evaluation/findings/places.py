"""Marks at a fixed place: classes whose maps have their evidence where those of other classes have none.

Places are tested, and not clusters: a test of clusters that were found in the same maps would be too sure.
For each class and place the number of photos with a peak there is compared with what random labels would
give (Fisher's exact test, the permutation test of which no permutation needs to be drawn). Significance
alone finds too much, for in a large run every small difference is significant: objects of different classes
do stand differently. So a place also has to be where the object is not, and the photos have to look alike
there (:mod:`clarp.evaluation.findings.alike`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clarp.evaluation.findings.asked import Asked, Units
from clarp.evaluation.findings.frame import ALONG, FIELDS, PLACES, WINDOW, box_of, name_of, near, windowed
from clarp.evaluation.findings.gathering import Gathered
from clarp.geometry import Box
from clarp.optional import optional

LEAST_PHOTOS = 5
"""Fewer photos with a peak at one place are no finding, and a class of fewer is not tested."""
LEAST_SHARE = 0.1
"""Of the class's photos."""
TIMES_OTHERS = 3.0
"""So many times the share of the other classes' photos."""
LEVEL = 0.05
"""Of the corrected p-value."""
_APART = 3  # places nearer than so many fields are one
_AT_ONCE = 8192
_EVEN = WINDOW**2 / FIELDS**2  # the share of a place where the evidence is spread evenly


@dataclass(frozen=True)
class FixedPlace:
    """A class many of whose maps have a peak at one place of the input, where the object is not.

    Attributes:
        method: of the maps.
        index: the class's id.
        name: and its name.
        place: in words, "bottom left".
        box: left, top, right, bottom in shares of the input's width and height.
        units: the units with a peak there.
        count: of the class's units that have a map.
        others: the share of the other classes' units with a peak there.
        outside: of the units that have boxes, the share whose peak lies outside of them; None without boxes.
        p: of Fisher's exact test, corrected for all places, classes and methods (Bonferroni).
        likeness: how alike the photos look there, see :func:`clarp.evaluation.findings.alike.likeness`; NaN
            before they were compared.
    """

    method: str
    index: int
    name: str
    place: str
    box: Box
    units: tuple[int, ...]
    count: int
    others: float
    outside: float | None
    p: float
    likeness: float = math.nan

    @property
    def share(self) -> float:
        """Of the class's photos."""
        return len(self.units) / self.count


@dataclass(frozen=True, eq=False)
class PlaceCounts:
    """One method's peaks by class and place.

    Attributes:
        hits: (C, PLACES) units with a peak there.
        maps: (C,) units with a map.
        p: (C, PLACES) of Fisher's exact test, one-sided, not corrected.
    """

    hits: NDArray[np.int64]
    maps: NDArray[np.int64]
    p: NDArray[np.float64]

    @classmethod
    def of(cls, asked: Asked, found: NDArray[np.uint8], seen: NDArray[np.bool_]) -> "PlaceCounts":
        """Count them.

        Args:
            asked: the units.
            found: (U, PEAKS) of the method.
            seen: (U,) whether there is a map.
        """
        classes = len(asked.classes)
        hits = np.zeros((classes, PLACES), np.int64)
        for start in range(0, len(asked), _AT_ONCE):
            piece = slice(start, start + _AT_ONCE)
            np.add.at(hits, asked.group[piece], near(found[piece]))
        maps = np.bincount(asked.group[seen], minlength=classes)
        law = optional("scipy.stats", "Findings").hypergeom
        p = law.sf(hits - 1, maps.sum(), hits.sum(axis=0)[None], maps[:, None])
        return cls(hits, maps, np.where((maps >= LEAST_PHOTOS)[:, None], p, np.nan))

    def others(self) -> NDArray[np.float64]:
        """(C, PLACES) the share of the other classes' units."""
        rest = (self.maps.sum() - self.maps)[:, None]
        found: NDArray[np.float64] = (self.hits.sum(axis=0)[None] - self.hits) / np.maximum(rest, 1)
        return found


def fixed_places(asked: Asked, gathered: Gathered) -> list[FixedPlace]:
    """All such places, by method and class; none where fewer than two classes have maps."""
    counts = [
        PlaceCounts.of(asked, found, seen) for found, seen in zip(gathered.peaks, gathered.seen, strict=True)
    ]
    tests = sum(int(np.isfinite(held.p).sum()) for held in counts)
    return [
        place
        for method, held in enumerate(counts)
        if (held.maps > 0).sum() > 1
        for group in range(len(asked.classes))
        for place in _of_class(asked, gathered, method, group, counts=held, tests=tests)
    ]


def _of_class(
    asked: Asked, gathered: Gathered, method: int, group: int, *, counts: PlaceCounts, tests: int
) -> list[FixedPlace]:
    """The places of a class, most photos first, that are neither near each other nor the object's."""
    hits, maps, others = counts.hits[group], int(counts.maps[group]), counts.others()[group]
    p = np.minimum(counts.p[group] * tests, 1.0)
    enough = (hits >= LEAST_PHOTOS) & (hits >= LEAST_SHARE * maps) & (hits > TIMES_OTHERS * others * maps)
    found: list[FixedPlace] = []
    taken: list[tuple[int, int]] = []
    for place in np.lexsort((p, -hits)):
        row, column = divmod(int(place), ALONG)
        if not (enough[place] and p[place] <= LEVEL):
            continue
        if any(max(abs(row - y), abs(column - x)) <= _APART for y, x in taken):
            continue
        units = np.flatnonzero(asked.group == group)
        units = units[near(gathered.peaks[method, units])[:, place]]
        outside = _outside(gathered, method, units, int(place))
        if not _where_the_object_is_not(gathered, method, group, int(place), outside):
            continue
        taken.append((row, column))
        found.append(
            FixedPlace(
                method=asked.methods[method],
                index=int(asked.classes[group]),
                name=asked.name(int(asked.classes[group])),
                place=name_of(int(place)),
                box=box_of(int(place)),
                units=tuple(units.tolist()),
                count=maps,
                others=float(others[place]),
                outside=outside,
                p=float(p[place]),
            )
        )
    return found


def _outside(gathered: Gathered, method: int, units: Units, place: int) -> float | None:
    """Of those units that have boxes, the share whose peak at the place lies outside; None: too few have."""
    boxed = units[np.isfinite(gathered.area[units])]
    if len(boxed) < LEAST_PHOTOS:
        return None
    slots = gathered.peaks[method, boxed]
    at = np.stack([near(slots[:, [k]])[:, place] for k in range(slots.shape[1])], axis=1)
    inside: NDArray[np.bool_] = (at & gathered.inside[method, boxed]).any(axis=1)
    return float(1 - inside.mean())


def _where_the_object_is_not(
    gathered: Gathered, method: int, group: int, place: int, outside: float | None
) -> bool:
    """By the boxes; without them, where the other classes have less evidence than on average.

    Objects stand in the middle more often than at the border, and so does the evidence of all classes.
    """
    if outside is not None:
        return outside > 0.5
    total, count = gathered.classes.total[method], gathered.classes.count[method]
    rest = (total.sum(axis=0) - total[group]) / max(int(count.sum() - count[group]), 1)
    return bool(windowed(rest).reshape(PLACES)[place] <= _EVEN)


def sentences(found: Sequence[FixedPlace]) -> list[str]:
    """Each place in words."""
    return [_sentence(one) for one in found]


def shown_p(p: float) -> str:
    """A corrected p-value in words.

    >>> shown_p(1e-9), shown_p(0.0123)
    ('p < 0.001, corrected', 'p = 0.012, corrected')
    """
    return f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}, corrected"


def _sentence(one: FixedPlace) -> str:
    boxes = "" if one.outside is None else f"; {one.outside:.0%} of these peaks lie outside of its boxes"
    return (
        f"{one.name} ({one.index}), {one.method}: the maps of {len(one.units)} of {one.count} photos "
        f"({one.share:.0%}) have a peak at the same place, {one.place}, as do {one.others:.1%} of the other "
        f"classes' photos ({shown_p(one.p)}){boxes}. The photos look alike there "
        f"(correlation {one.likeness:.2f})."
    )
