"""Pairs of classes that the model confuses most, and where the maps of the two differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clarp.evaluation.findings.asked import Asked, Units
from clarp.evaluation.findings.frame import PLACES, box_of, name_of, windowed
from clarp.evaluation.findings.gathering import Gathered, Sums
from clarp.evaluation.findings.places import LEAST_PHOTOS, LEVEL
from clarp.geometry import Box
from clarp.optional import optional

MOST_PAIRS = 10
LEAST_CONFUSED = 2
"""Photos that are confused; a single one makes no pair."""

SHOWS = {
    "label": "The run's maps explain the label, so a confused photo's map shows what spoke for its label; "
    "what spoke for the class that the model said was not kept (--target predicted keeps that).",
    "predicted": "The run's maps explain the prediction, so a confused photo's map shows what spoke for the "
    "class that the model said; what spoke for its label was not kept (--target label keeps that).",
}
"""What the maps of confused photos show, by the run's target."""


@dataclass(frozen=True)
class Difference:
    """A place where the mean maps of two groups differ.

    Attributes:
        method: of the maps.
        place: in words.
        box: left, top, right, bottom in shares of the input's width and height.
        first: the mean share of the evidence there in the first group's maps.
        second: and in the second group's.
        p: of Welch's test, two-sided, corrected for all places, methods and pairs (Bonferroni).
    """

    method: str
    place: str
    box: Box
    first: float
    second: float
    p: float


@dataclass(frozen=True, eq=False)
class ConfusedPair:
    """Two classes that the model confuses.

    Attributes:
        first: id of the class with more confused photos.
        second: of the other.
        names: of both.
        count: photos of the first that the model says to be the second, and the other way round.
        photos: of each class by label.
        units: of both ways together, the least sure first.
        classes: where the mean maps of the two classes differ, at most one place each way a method.
        confused: where the maps of confused photos differ from the others that explain the same class, the
            one of which there are maps; likewise.
    """

    first: int
    second: int
    names: tuple[str, str]
    count: tuple[int, int]
    photos: tuple[int, int]
    units: tuple[int, ...]
    classes: tuple[Difference, ...]
    confused: tuple[Difference, ...]


def confused_units(asked: Asked) -> tuple[list[tuple[int, int]], Units]:
    """The pairs that are confused most, and of each unit the group that it is in.

    Returns:
        Pairs (a, b), of which a has more photos that are said to be b; and (U,) twice the number of the pair,
        plus one where it is b said to be a; -1 for all others. No pair where several classes may be in one
        photo.
    """
    groups = np.full(len(asked), -1, np.int64)
    wrong = np.flatnonzero(asked.wrong)
    if asked.task == "multilabel" or not len(wrong):
        return [], groups
    ways = np.stack([asked.label[wrong], asked.predicted[wrong]], axis=1)
    found, which, count = np.unique(ways, axis=0, return_inverse=True, return_counts=True)
    each = {(int(a), int(b)): int(n) for (a, b), n in zip(found, count, strict=True)}
    both = {(a, b): n + each.get((b, a), 0) for (a, b), n in each.items()}
    # Of the two ways of a pair the more frequent is kept, and of equal ones that from the lower id.
    kept = [(a, b) for (a, b), n in each.items() if (n, -a) > (each.get((b, a), 0), -b)]
    kept = [pair for pair in kept if both[pair] >= LEAST_CONFUSED]
    kept = sorted(kept, key=lambda pair: (-both[pair], pair))[:MOST_PAIRS]
    numbers = {pair: 2 * k for k, pair in enumerate(kept)} | {
        (b, a): 2 * k + 1 for k, (a, b) in enumerate(kept)
    }
    of_way = np.array([numbers.get((int(a), int(b)), -1) for a, b in found])
    groups[wrong] = of_way[which.reshape(-1)]
    return kept, groups


def confused_pairs(
    asked: Asked, gathered: Gathered, pairs: Sequence[tuple[int, int]], groups: Units
) -> list[ConfusedPair]:
    """What the maps say of each pair."""
    tests = PLACES * len(asked.methods) * len(pairs) * 3
    found = []
    for number, (first, second) in enumerate(pairs):
        ways = [np.flatnonzero(groups == 2 * number + way) for way in (0, 1)]
        units = np.concatenate(ways)
        units = units[np.argsort(asked.probability[units], kind="stable")]
        of_class, of_confused = [], []
        for method in range(len(asked.methods)):
            one, other = (_of_class(asked, gathered.classes, method, index) for index in (first, second))
            of_class += _differences(asked.methods[method], one, other, tests)
            for way in (0, 1):
                own = _Moments.of(gathered.pairs, method, 2 * number + way)
                explained = (first, second)[way if asked.target == "label" else 1 - way]
                rest = _of_class(asked, gathered.classes, method, explained).without(own)
                of_confused += _differences(asked.methods[method], own, rest, tests)
        found.append(
            ConfusedPair(
                first,
                second,
                (asked.name(first), asked.name(second)),
                (len(ways[0]), len(ways[1])),
                (int((asked.label == first).sum()), int((asked.label == second).sum())),
                tuple(units.tolist()),
                tuple(of_class),
                tuple(of_confused),
            )
        )
    return found


@dataclass(frozen=True, eq=False)
class _Moments:
    """How many maps a group has, and (PLACES,) the sums of their shares and of the squares."""

    count: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, sums: Sums, method: int, group: int) -> "_Moments":
        total = windowed(sums.total[method, group]).reshape(PLACES)
        return cls(int(sums.count[method, group]), total, sums.squares[method, group].reshape(PLACES))

    def without(self, other: "_Moments") -> "_Moments":
        return _Moments(self.count - other.count, self.total - other.total, self.squares - other.squares)

    @property
    def mean(self) -> NDArray[np.float64]:
        return self.total / max(self.count, 1)

    @property
    def deviation(self) -> NDArray[np.float64]:
        spread = self.squares - self.count * self.mean**2
        return np.sqrt(np.maximum(spread, 0.0) / max(self.count - 1, 1))


def _of_class(asked: Asked, sums: Sums, method: int, index: int) -> _Moments:
    place = int(np.searchsorted(asked.classes, index))
    if place == len(asked.classes) or asked.classes[place] != index:  # never explained
        return _Moments(0, np.zeros(PLACES), np.zeros(PLACES))
    return _Moments.of(sums, method, place)


def _differences(method: str, one: _Moments, other: _Moments, tests: int) -> list[Difference]:
    """The place where the first has most more, and that where the second has, if they are significant."""
    if min(one.count, other.count) < LEAST_PHOTOS:
        return []
    test = optional("scipy.stats", "Findings").ttest_ind_from_stats
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic, p = test(
            one.mean, one.deviation, one.count, other.mean, other.deviation, other.count, equal_var=False
        )
    statistic, p = np.nan_to_num(statistic, posinf=0.0, neginf=0.0), np.nan_to_num(p, nan=1.0)
    found = []
    for sign in (1, -1):
        place = int(np.argmax(sign * statistic))
        corrected = min(1.0, float(p[place]) * tests)
        if sign * statistic[place] > 0 and corrected <= LEVEL:
            means = float(one.mean[place]), float(other.mean[place])
            found.append(Difference(method, name_of(place), box_of(place), *means, corrected))
    return found


def sentences(found: Sequence[ConfusedPair], target: str) -> list[str]:
    """Each pair in words."""
    return [_sentence(pair, target) for pair in found]


def _sentence(pair: ConfusedPair, target: str) -> str:
    (first, second), (there, back), (of_first, of_second) = pair.names, pair.count, pair.photos
    text = f"{there} of {of_first} photos of {first} ({pair.first}) are taken for {second} ({pair.second})"
    text += f", and {back} of {of_second} the other way round." if back else "."
    kind = "label" if target == "label" else "prediction"
    told = [
        *_told(pair.classes, f"the maps of {first} differ from those of {second}"),
        *_told(pair.confused, f"the maps of the confused photos differ from others of the same {kind}"),
    ]
    nothing = f"Nowhere do the maps differ significantly; {LEAST_PHOTOS} of each are needed to compare."
    return " ".join([text, *(told or [nothing])])


def _told(found: Sequence[Difference], words: str) -> list[str]:
    parts = [f"{d.place} ({d.method}: {d.first:.1%} against {d.second:.1%})" for d in found]
    return [f"Where {words}: {', '.join(parts)}."] if parts else []
