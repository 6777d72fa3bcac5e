"""One pass over a run's maps, part by part: sums of each class, peaks of each map, and a sample of maps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarp.evaluation.findings.asked import Asked, Units
from clarp.evaluation.findings.frame import (
    ALONG,
    FIELDS,
    NONE,
    PEAKS,
    Frames,
    covered,
    evidence,
    framed,
    in_a_box,
    peaks,
    windowed,
)
from clarp.evaluation.store import Store

MOST = 500
"""So many maps of a class and method are kept for clusters; of more, a sample."""
BUDGET = 256 * 2**20
"""Bytes of all kept maps together; with many classes and methods, fewer of each are kept."""
_BYTES = FIELDS * FIELDS * 4


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the maps of groups of units, for means and their errors.

    Attributes:
        count: (M, G) maps with evidence.
        total: (M, G, FIELDS, FIELDS) their sum.
        squares: (M, G, ALONG, ALONG) the sum of the squares of their places' shares.
    """

    count: NDArray[np.int64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def empty(cls, methods: int, groups: int) -> "Sums":
        """Of no map."""
        shape = (methods, groups)
        return cls(
            np.zeros(shape, np.int64), np.zeros((*shape, FIELDS, FIELDS)), np.zeros((*shape, ALONG, ALONG))
        )

    def add(self, method: int, groups: Units, frames: Frames, windows: NDArray[np.float64]) -> None:
        """Count maps (n, ...) in their groups (n,); -1 is no group."""
        own = groups >= 0
        np.add.at(self.count[method], groups[own], 1)
        np.add.at(self.total[method], groups[own], frames[own])
        np.add.at(self.squares[method], groups[own], windows[own] ** 2)


@dataclass(frozen=True, eq=False)
class Gathered:
    """What the findings are computed from; of a photo it holds a few bytes, and of a class a sample of maps.

    Attributes:
        classes: sums of each class's maps.
        pairs: sums of the maps of each group of confused units.
        peaks: (M, U, PEAKS) the places where each map has its evidence, NONE where there are fewer.
        inside: (M, U, PEAKS) whether the middle of that place lies in a box of the label.
        outside: (M, U) the share of a map's evidence outside of the label's boxes; NaN without boxes or
            evidence.
        area: (U,) the share of the input outside of the label's boxes; NaN without boxes.
        kept: by (method, class) the units whose maps were kept, and these maps (n, FIELDS, FIELDS).
        most: how many maps of a class and method were kept at most.
    """

    classes: Sums
    pairs: Sums
    peaks: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    outside: NDArray[np.float32]
    area: NDArray[np.float32]
    kept: dict[tuple[int, int], tuple[Units, Frames]]
    most: int

    @classmethod
    def of(cls, store: Store, asked: Asked, pairs: Units, pair_count: int, seed: int) -> "Gathered":
        """Go over all pictures once.

        Args:
            store: the run's folder.
            asked: its units.
            pairs: (U,) the group of each confused unit, -1: none.
            pair_count: how many such groups there are.
            seed: of the sample of maps.
        """
        most = min(MOST, max(1, BUDGET // (_BYTES * max(1, len(asked.methods) * len(asked.classes)))))
        methods, units = len(asked.methods), len(asked)
        found = cls(
            Sums.empty(methods, len(asked.classes)),
            Sums.empty(methods, pair_count),
            np.full((methods, units, PEAKS), NONE, np.uint8),
            np.zeros((methods, units, PEAKS), dtype=bool),
            np.full((methods, units), np.nan, np.float32),
            np.full(units, np.nan, np.float32),
            {},
            most,
        )
        sampled = _sampled(asked, most, seed)
        pieces: dict[tuple[int, int], list[tuple[Units, Frames]]] = {}
        for start, table in picture_parts(store, asked):
            boxes = _boxes(table, asked.count)
            for method, column in enumerate(asked.columns):
                for at, codes in _maps(table, column, asked.count):
                    own, frames = found._add(method, start + at, codes, [boxes[k] for k in at])
                    found._sum(method, frames, asked.group[own], pairs[own])
                    kept = sampled[own]
                    for group in np.unique(asked.group[own[kept]]):
                        chosen = kept & (asked.group[own] == group)
                        piece = own[chosen], frames[chosen]
                        pieces.setdefault((method, int(group)), []).append(piece)
        for key, held in pieces.items():
            found.kept[key] = (np.concatenate([p[0] for p in held]), np.concatenate([p[1] for p in held]))
        return found

    def _add(
        self, method: int, units: Units, codes: NDArray[np.int8], boxes: list[list[float]]
    ) -> tuple[Units, Frames]:
        """Take up maps (n, h, w) of units (n,); those that have evidence come back in the common frame."""
        shares, totals = evidence(codes)
        there = np.flatnonzero(totals > 0)
        units, shares = units[there], shares[there]
        frames = framed(shares)
        self.peaks[method, units] = places = peaks(windowed(frames))
        for unit, share, place, edges in zip(units, shares, places, (boxes[k] for k in there), strict=True):
            if edges:
                within = covered(edges, *share.shape)
                self.outside[method, unit] = np.clip((share * (1 - within)).sum(), 0.0, 1.0)
                self.area[unit] = 1 - within.mean()
                self.inside[method, unit] = [k != NONE and in_a_box(int(k), edges) for k in place]
        return units, frames

    def _sum(self, method: int, frames: Frames, classes: Units, pairs: Units) -> None:
        windows = windowed(frames)
        self.classes.add(method, classes, frames, windows)
        self.pairs.add(method, pairs, frames, windows)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(M, U) whether there is a map with evidence."""
        found: NDArray[np.bool_] = self.peaks[:, :, 0] != NONE
        return found


def _sampled(asked: Asked, most: int, seed: int) -> NDArray[np.bool_]:
    """Which units' maps are kept: all of a class, or so many by lot."""
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(asked), dtype=bool)
    order = np.argsort(asked.group, kind="stable")
    for own in np.split(order, np.cumsum(np.bincount(asked.group))[:-1]):
        chosen[own if len(own) <= most else generator.choice(own, most, replace=False)] = True
    return chosen


def picture_parts(store: Store, asked: Asked) -> Iterator[tuple[int, Any]]:
    """The pictures of each part that has any, with the number of its first unit."""
    if not asked.parts:
        return
    start = 0
    for size, table in zip(asked.parts, store.pictures(), strict=True):
        if table is not None:
            yield start, table
        start += size


def _boxes(table: Any, count: int) -> list[list[float]]:
    """The edges of the label's boxes of each unit; none in runs of before there were any."""
    if "boxes" not in table.column_names:
        return [[]] * (len(table) // count)
    return [edges or [] for edges in table.column("boxes").to_pylist()[::count]]


def _maps(table: Any, column: int, count: int) -> Iterator[tuple[Units, NDArray[np.int8]]]:
    """A method's maps by their size: which units of the part have one (n,), and the codes (n, h, w)."""
    heights, widths, codes = (
        table.column(name).to_pylist()[column::count] for name in ("height", "width", "codes")
    )
    sizes = list(zip(heights, widths, strict=True))
    for height, width in dict.fromkeys(sizes):
        if height is not None:
            at = [number for number, size in enumerate(sizes) if size == (height, width)]
            held = np.frombuffer(b"".join(codes[number] for number in at), np.int8)
            yield np.array(at), held.reshape(len(at), height, width)
