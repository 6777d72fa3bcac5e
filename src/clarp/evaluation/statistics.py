"""Intervals and tests for means over images: paired, by resampling whole images, and with one correction.

Not scipy.stats' bootstrap and permutation_test: rows are resampled by pictures, all columns by the same draws
so that differences stay paired, and means over classes leave NaN out; and a seed gives the numbers that it
always gave.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_AT_ONCE = 4_000_000
_FLIPS_PER_TEST = 40
LEAST_PICTURES = 6
"""Fewer have no 95 % interval. The percentile bootstrap stays between the least and the greatest value, and
of n values from a symmetric distribution both ends lie on one side of its mean with probability 2^(1 - n),
which is at most 5 % from n = 6 on; so is the smallest p-value of the sign-flip test."""


@dataclass(frozen=True)
class Sampling:
    """How rows are resampled: by whole pictures, for the rows of one picture are not independent.

    Attributes:
        clusters: (rows,) the picture of each row, 0, 1, 2, ...
        resamples: how often.
        seed: of the draws; the same seed, the same draws for every column, so that differences stay paired.
    """

    clusters: NDArray[np.int64]
    resamples: int = 9999
    seed: int = 0

    @property
    def pictures(self) -> int:
        return int(self.clusters.max()) + 1 if len(self.clusters) else 0

    def pieces(self, columns: int = 1) -> list[int]:
        """How many resamples of so many columns to do at once, piece by piece, to bound the memory."""
        size = max(1, min(self.resamples, _AT_ONCE // max(1, self.pictures, columns)))
        return [min(size, self.resamples - start) for start in range(0, self.resamples, size)]


def means(
    values: Array, groups: Sequence[NDArray[np.int64]] | None = None, weights: Array | None = None
) -> Array:
    """Means of columns, NaN left out; or means over groups of the groups' means.

    Args:
        values: (rows, columns).
        groups: the row numbers of each group, a class for example; None: all rows count the same. A group
            without any value in a column is left out there.
        weights: (resamples, rows) how often each row counts; None: once.

    Returns:
        (resamples, columns), one resample where there are no weights; NaN where nothing counts.
    """
    counted = np.isfinite(values).astype(np.float64)
    filled = np.where(counted > 0, values, 0.0)
    weights = np.ones((1, len(values))) if weights is None else weights
    rows = [np.arange(len(values))] if groups is None else groups
    total, number = np.zeros((len(weights), values.shape[1])), np.zeros((len(weights), values.shape[1]))
    for group in rows:
        count = weights[:, group] @ counted[group]
        there = count > 0
        total += np.where(there, weights[:, group] @ filled[group] / np.where(there, count, 1.0), 0.0)
        number += there
    return np.where(number > 0, total / np.where(number > 0, number, 1.0), np.nan)


def bootstrap(
    values: Array,
    sampling: Sampling,
    groups: Sequence[NDArray[np.int64]] | None = None,
    *,
    confidence: float = 0.95,
) -> tuple[Array, Array]:
    """Percentile bootstrap intervals of :func:`means` (Efron 1979): (low, high), each (columns,).

    Pictures are drawn with replacement, as many as there are. NaN where fewer than :data:`LEAST_PICTURES`
    have a value.

    >>> values = np.arange(10.0)[:, None]
    >>> low, high = bootstrap(values, Sampling(np.arange(10), resamples=999))
    >>> bool(low[0] < 4.5 < high[0])
    True
    """
    generator = np.random.default_rng(sampling.seed)
    found = []
    for size in sampling.pieces():
        drawn = generator.integers(0, sampling.pictures, (size, sampling.pictures))
        offsets = np.arange(size)[:, None] * sampling.pictures
        counts = np.bincount((drawn + offsets).ravel(), minlength=size * sampling.pictures)
        weights = counts.reshape(size, sampling.pictures).astype(np.float64)
        found.append(means(values, groups, weights[:, sampling.clusters]))
    sample = np.concatenate(found)
    counted = np.zeros((sampling.pictures, values.shape[1]), dtype=bool)
    np.logical_or.at(counted, sampling.clusters, np.isfinite(values))
    usable = counted.sum(axis=0) >= LEAST_PICTURES
    ends = np.full((2, values.shape[1]), np.nan)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    ends[:, usable] = np.nanquantile(sample[:, usable], tails, axis=0)
    return ends[0], ends[1]


def enough_flips(sampling: Sampling, tests: int) -> Sampling:
    """As many resamples as the smallest p-value of a sign-flip test needs to pass Holm's correction.

    The smallest is ``1 / (1 + resamples)``, and Holm multiplies it by up to ``tests``: with 40 for each test
    no more than 1/40 comes out, so that a report with many methods and metrics can still decide something.

    >>> [enough_flips(Sampling(np.arange(9)), tests).resamples for tests in (10, 540)]
    [9999, 21600]
    """
    return replace(sampling, resamples=max(sampling.resamples, _FLIPS_PER_TEST * tests))


def sign_flip_test(differences: Array, sampling: Sampling) -> Array:
    """Two-sided p-values of paired differences having mean zero, by random signs (Fisher's permutation test).

    Under the null hypothesis a picture's differences are as likely as their negatives. Pictures flip as a
    whole. ``p = (1 + number of flips with |mean| >= |observed mean|) / (1 + resamples)``, so it is never
    zero.

    Args:
        differences: (rows, columns), NaN where one of the pair is missing.
        sampling: pictures, number of flips and seed.

    Returns:
        (columns,); NaN where a column has no difference at all, 1 where all are zero.
    """
    filled = np.where(np.isfinite(differences), differences, 0.0)
    sums = np.zeros((sampling.pictures, differences.shape[1]))
    np.add.at(sums, sampling.clusters, filled)
    # Rounding must not turn a tie into a smaller value.
    observed = np.abs(sums.sum(axis=0)) * (1 - 1e-12)
    generator = np.random.default_rng(sampling.seed + 1)
    extreme = np.zeros(differences.shape[1])
    for size in sampling.pieces(differences.shape[1]):
        signs = generator.integers(0, 2, (size, sampling.pictures), dtype=np.int8) * 2.0 - 1.0
        extreme += (np.abs(signs @ sums) >= observed).sum(axis=0)
    p = (1 + extreme) / (1 + sampling.resamples)
    return np.where(np.isfinite(differences).any(axis=0), p, np.nan)


def holm(p: Sequence[float] | Array) -> Array:
    """Holm's correction (1979) for many tests; NaN is no test.

    With the p-values in rising order: ``p'_(i) = max over j <= i of min(1, (m - j + 1) p_(j))``.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(p, dtype=np.float64)
    tests = np.flatnonzero(np.isfinite(given))
    order = tests[np.argsort(given[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(len(given), np.nan)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, factors * given[order]))
    return corrected
