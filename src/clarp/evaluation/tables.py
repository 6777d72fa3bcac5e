"""From rows to numbers: means with intervals, paired differences, ratios, classes, subsets and curves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarp.evaluation.statistics import Array, Sampling, bootstrap, enough_flips, holm, means, sign_flip_test
from clarp.evaluation.store import Store

RATIO_TO = "lrp"
_NAN = float("nan")
_ROWS_PER_CLASS = 10


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval, whose ends are NaN where there are too few pictures for one."""

    mean: float = _NAN
    low: float = _NAN
    high: float = _NAN


@dataclass(frozen=True)
class TableLine:
    """One method in one column of one subset.

    Attributes:
        column: metric and column, ``patch-masking/drop@9``.
        better: "higher" or "lower".
        subset: "all" or "difficult".
        method: its name.
        n: rows that count.
        absent: rows that don't (NaN: the question didn't arise).
        value: the mean over rows.
        classes: the mean over classes of each class's mean (the pointing game's accuracy); without an
            interval where a class has fewer than 10 rows that count, because resampling would leave such
            classes out. Classes without any are left out, and so are rows without a class.
        ratio: ``value`` over LRP's, NaN where LRP's interval reaches zero, or lower is better.
        difference: the reference minus this method, over the rows that both have.
        p: of that difference being zero, two-sided sign-flip test.
        p_holm: corrected for all tests of the report.
    """

    column: str
    better: str
    subset: str
    method: str
    n: int
    absent: int
    value: Estimate
    classes: Estimate
    ratio: float
    difference: Estimate
    p: float
    p_holm: float = _NAN


@dataclass(frozen=True)
class Curve:
    """A metric at several sizes or fractions.

    Attributes:
        name: metric and what is drawn, ``patch-masking/drop``.
        at: (K,) the sizes or fractions.
        values: by method the means (K,).
    """

    name: str
    at: tuple[float, ...]
    values: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class ClassLine:
    """The mean of each method in one column for one class; ``n``: units of which any method's row counts."""

    column: str
    index: int
    name: str
    n: int
    values: dict[str, float]


@dataclass(frozen=True, eq=False)
class RunTable:
    """The rows of a run as arrays; units are (picture, label) pairs in order.

    Attributes:
        methods: M names.
        values: by column (units, M).
        clusters: (units,) the picture of each, numbered without gaps.
        classes: (units,) class ids, -1 where there is none.
        difficult: (units,) bool, None where that is unknown.
    """

    methods: tuple[str, ...]
    values: dict[str, Array]
    clusters: NDArray[np.int64]
    classes: NDArray[np.int64]
    difficult: NDArray[np.bool_] | None

    @classmethod
    def of(cls, store: Store) -> "RunTable":
        """Read them; a part of them if the run isn't complete.

        Raises:
            ValueError: the rows are not unit by unit all methods in the order that ``run.json`` gives.
        """
        table, about = store.rows(), store.about()
        methods = tuple(about["fingerprint"]["methods"])
        count = len(methods)
        if table.column("method").to_pylist() != [*methods] * (len(table) // count):
            raise ValueError(
                f"{store.folder}: the rows are not those of the methods {', '.join(methods)} in this order "
                "for every label, as run.json says, so no number could be told whose it is: make the run "
                "anew with another --out."
            )
        columns = {name: table.column(name).to_numpy().reshape(-1, count) for name in about["columns"]}
        _, clusters = np.unique(table.column("sample").to_numpy()[::count], return_inverse=True)
        flags = table.column("difficult").to_pylist()[::count]
        difficult = None if not flags or None in flags else np.array(flags, dtype=bool)
        classes = table.column("class").to_numpy()[::count].astype(np.int64)
        return cls(methods, columns, clusters.astype(np.int64), classes, difficult)

    def where(self, chosen: NDArray[np.bool_]) -> "RunTable":
        """The chosen units only."""
        _, clusters = np.unique(self.clusters[chosen], return_inverse=True)
        values = {name: column[chosen] for name, column in self.values.items()}
        return replace(self, values=values, clusters=clusters, classes=self.classes[chosen], difficult=None)

    def groups(self) -> list[NDArray[np.int64]]:
        """The units of each class, in the order of the ids; those without a class are in none."""
        return [np.flatnonzero(self.classes == index) for index in np.unique(self.classes) if index >= 0]


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that a report shows.

    Attributes:
        about: ``run.json``.
        complete: whether all parts were there.
        pictures: that gave rows.
        problems: files that gave none.
        lost: methods with which more than half of the relevance never reached the pixels.
        damaged: files of the run whose bytes are not those that were written; none of them was used.
        reference: the method of the differences.
        lines: the main table.
        classes: per class, for the columns where a direction is better.
        curves: metrics at several sizes or fractions.
    """

    about: dict[str, Any]
    complete: bool
    pictures: int
    problems: int
    lost: tuple[str, ...]
    damaged: tuple[str, ...]
    reference: str
    lines: tuple[TableLine, ...]
    classes: tuple[ClassLine, ...]
    curves: tuple[Curve, ...]

    @classmethod
    def of(cls, store: Store, reference: str, *, resamples: int = 9999, seed: int = 0) -> "Report":
        """Compute it from a run's folder.

        Raises:
            ValueError: no run there, no rows yet, or no such reference method.
        """
        about, rows = store.about(), RunTable.of(store)
        if reference not in rows.methods:
            raise ValueError(
                f"the run has no method {reference!r}, expected one of {', '.join(rows.methods)}."
            )
        # The pointing game's hit_difficult says again what the difficult subset says of hit.
        directions = {
            name: better
            for name, better in about["columns"].items()
            if better != "none" and not name.endswith("_difficult")
        }
        subsets = {"all": rows}
        if rows.difficult is not None and rows.difficult.any():
            subsets["difficult"] = rows.where(rows.difficult)
        tests = len(subsets) * len(directions) * (len(rows.methods) - 1)
        found: list[TableLine] = []
        for name, subset in subsets.items():
            sampling = Sampling(subset.clusters, resamples, seed)
            flips = enough_flips(sampling, tests)
            found += _lines(subset, name, directions, reference, sampling, flips=flips)
        corrected = holm([line.p for line in found])
        lines = tuple(replace(line, p_holm=float(p)) for line, p in zip(found, corrected, strict=True))
        order = [(column, name) for column in directions for name in subsets]
        lines = tuple(sorted(lines, key=lambda line: order.index((line.column, line.subset))))
        return cls(
            about=about,
            complete=store.complete,
            pictures=len(np.unique(rows.clusters)),
            problems=store.problems(),
            lost=store.lost(),
            damaged=store.damaged(),
            reference=reference,
            lines=lines,
            classes=tuple(_classes(rows, list(directions), about["classes"])),
            curves=tuple(_curves(rows)),
        )


def _lines(
    rows: RunTable,
    subset: str,
    directions: dict[str, str],
    reference: str,
    sampling: Sampling,
    *,
    flips: Sampling,
) -> list[TableLine]:
    """All methods in all columns; every column is resampled by the same draws."""
    count, at = len(rows.methods), rows.methods.index(reference)
    if not directions:
        return []
    values = np.concatenate([rows.values[name] for name in directions], axis=1)
    compared = np.concatenate([rows.values[name][:, [at]] - rows.values[name] for name in directions], axis=1)
    groups = rows.groups()
    whole = _intervals(values, sampling)
    by_class = _over_classes(values, sampling, groups)
    differences = _intervals(compared, sampling)
    tests = sign_flip_test(compared, flips)
    n = np.isfinite(values).sum(axis=0)
    lines: list[TableLine] = []
    for number, (column, better) in enumerate(directions.items()):
        base = number * count
        lrp = whole[base + rows.methods.index(RATIO_TO)] if RATIO_TO in rows.methods else Estimate()
        for place, method in enumerate(rows.methods):
            k, own = base + place, place == at
            lines.append(
                TableLine(
                    column,
                    better,
                    subset,
                    method,
                    n=int(n[k]),
                    absent=len(values) - int(n[k]),
                    value=whole[k],
                    classes=by_class[k],
                    ratio=whole[k].mean / lrp.mean if better == "higher" and lrp.low > 0 else _NAN,
                    difference=Estimate() if own else differences[k],
                    p=_NAN if own else float(tests[k]),
                )
            )
    return lines


def _intervals(
    values: Array, sampling: Sampling, groups: Sequence[NDArray[np.int64]] | None = None
) -> list[Estimate]:
    centre = means(values, groups)[0]
    low, high = bootstrap(values, sampling, groups)
    return [Estimate(*map(float, ends)) for ends in zip(centre, low, high, strict=True)]


def _over_classes(values: Array, sampling: Sampling, groups: Sequence[NDArray[np.int64]]) -> list[Estimate]:
    """Nothing where fewer than two classes count, a mean alone where one of them has few rows that count."""
    there = np.isfinite(values)
    counts = np.array([there[group].sum(axis=0) for group in groups]).reshape(-1, values.shape[1])
    several = (counts > 0).sum(axis=0) > 1
    enough = several & ((counts == 0) | (counts >= _ROWS_PER_CLASS)).all(axis=0)
    found = [Estimate()] * values.shape[1]
    for k in np.flatnonzero(several & ~enough):
        found[k] = Estimate(float(means(values[:, [k]], groups)[0, 0]))
    if enough.any():
        kept = np.flatnonzero(enough)
        for k, interval in zip(kept, _intervals(values[:, kept], sampling, groups), strict=True):
            found[k] = interval
    return found


def _classes(rows: RunTable, columns: Sequence[str], names: Sequence[str]) -> list[ClassLine]:
    lines: list[ClassLine] = []
    for column in columns:
        for group in rows.groups():
            index = int(rows.classes[group[0]])
            values = rows.values[column][group]
            name = names[index] if 0 <= index < len(names) else str(index)
            found = dict(zip(rows.methods, means(values)[0].tolist(), strict=True))
            count = int(np.isfinite(values).any(axis=1).sum())
            lines.append(ClassLine(column, index, name, count, found))
    return lines


def _curves(rows: RunTable) -> list[Curve]:
    """Columns that differ only in the number behind the @, where there are at least two."""
    families: dict[str, list[tuple[float, str]]] = {}
    for column in rows.values:
        name, _, number = column.rpartition("@")
        if name:
            families.setdefault(name, []).append((float(number), column))
    curves: list[Curve] = []
    for name, points in families.items():
        if len(points) > 1:
            points.sort()
            found = np.stack([means(rows.values[column])[0] for _, column in points])
            values = {method: tuple(found[:, m].tolist()) for m, method in enumerate(rows.methods)}
            curves.append(Curve(name, tuple(at for at, _ in points), values))
    return curves
