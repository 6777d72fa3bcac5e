"""Intervals and tests against plain loops, by hand, and against scipy."""

from itertools import product

import numpy as np
import pytest

from clarp.evaluation.statistics import Sampling, bootstrap, enough_flips, holm, means, sign_flip_test

stats = pytest.importorskip("scipy.stats")


def columns(rows=30, seed=0, missing=0.2):
    generator = np.random.default_rng(seed)
    values = generator.normal(0.3, 1.0, (rows, 4))
    values[generator.random((rows, 4)) < missing] = np.nan
    return values


class TestMeans:
    def test_they_are_those_of_a_loop(self):
        values, weights = columns(), np.random.default_rng(1).integers(0, 4, (5, 30)).astype(float)
        groups = [np.arange(0, 7), np.arange(7, 8), np.arange(8, 30)]
        found = means(values, groups, weights)
        for r, c in product(range(5), range(4)):
            per_group = []
            for group in groups:
                total = count = 0.0
                for row in group:
                    if np.isfinite(values[row, c]):
                        total += weights[r, row] * values[row, c]
                        count += weights[r, row]
                if count:
                    per_group.append(total / count)
            assert found[r, c] == pytest.approx(sum(per_group) / len(per_group), rel=1e-12)

    def test_without_groups_and_weights_it_is_nanmean(self):
        assert means(columns())[0] == pytest.approx(np.nanmean(columns(), axis=0), rel=1e-12)

    def test_a_column_without_any_value_has_none(self):
        values = columns()
        values[:, 2] = np.nan
        assert np.isnan(means(values)[0]).tolist() == [False, False, True, False]


class TestBootstrap:
    def test_it_is_that_of_a_loop_with_the_same_draws(self):
        values, clusters = columns(12), np.array([0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8])
        sampling = Sampling(clusters, resamples=200, seed=3)
        drawn = np.random.default_rng(3).integers(0, 9, (200, 9))
        found = []
        for draw in drawn:
            rows = [row for picture in draw for row in np.flatnonzero(clusters == picture)]
            with np.errstate(all="ignore"):
                found.append([np.nanmean(values[rows, c]) for c in range(4)])
        expected = np.nanquantile(np.array(found), [0.025, 0.975], axis=0)
        assert np.stack(bootstrap(values, sampling)) == pytest.approx(expected, rel=1e-9)

    def test_it_is_repeatable_and_the_seed_matters(self):
        values, clusters = columns(), np.arange(30)
        first, second, other = (
            np.stack(bootstrap(values, Sampling(clusters, 300, seed))) for seed in (0, 0, 1)
        )
        assert (first == second).all()
        assert (first != other).any()

    def test_the_pieces_that_bound_the_memory_are_all_there(self):
        sampling = Sampling(np.arange(5000), resamples=2001)
        assert sum(sampling.pieces()) == 2001
        assert len(sampling.pieces()) > 1
        assert max(sampling.pieces()) * 5000 <= 4_000_000

    def test_it_agrees_with_scipy(self):
        values = columns(80, missing=0.0)[:, :1]
        ours = bootstrap(values, Sampling(np.arange(80), 9999, 0))
        theirs = stats.bootstrap((values[:, 0],), np.mean, method="percentile", rng=1).confidence_interval
        width = theirs.high - theirs.low
        assert ours[0][0] == pytest.approx(theirs.low, abs=0.05 * width)
        assert ours[1][0] == pytest.approx(theirs.high, abs=0.05 * width)

    def test_rows_of_one_picture_count_as_one_observation(self):
        values = np.repeat(columns(20, missing=0.0), 10, axis=0)
        alone = bootstrap(values[::10], Sampling(np.arange(20), 999))
        together = bootstrap(values, Sampling(np.repeat(np.arange(20), 10), 999))
        assert np.stack(alone) == pytest.approx(np.stack(together), rel=1e-9)

    def test_of_few_pictures_there_is_none(self):
        values = columns(8, missing=0.0)
        values[0, 1] = values[:3, 2] = np.nan  # 8, 7, 5 and 8 pictures
        low, high = bootstrap(values, Sampling(np.arange(8), 199))
        assert np.isfinite(low).tolist() == np.isfinite(high).tolist() == [True, True, False, True]
        many_rows_of_one = bootstrap(values, Sampling(np.zeros(8, dtype=int), 199))
        assert np.isnan(many_rows_of_one).all()
        low, _ = bootstrap(values[2:], Sampling(np.arange(6), 199))
        assert np.isfinite(low).tolist() == [True, True, False, True]


class TestSignFlipTest:
    def test_with_many_flips_it_comes_to_scipys_exact_test(self):
        differences = np.random.default_rng(2).normal(0.4, 1.0, 10)
        exact = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
        ours = sign_flip_test(differences[:, None], Sampling(np.arange(10), 40_000))[0]
        assert ours == pytest.approx(exact, abs=0.01)
        assert 0.01 < exact < 0.99

    def test_no_difference_is_no_evidence_and_a_large_one_is_the_strongest(self):
        values = np.stack([np.zeros(40), np.ones(40), np.full(40, np.nan)], axis=1)
        found = sign_flip_test(values, Sampling(np.arange(40), 999))
        assert found[0] == 1.0
        assert found[1] == 1 / 1000
        assert np.isnan(found[2])

    def test_ties_count_whatever_rounding_says(self):
        """Sums of tenths are rarely exact; those of whole numbers always are."""
        whole = np.array([1, 2, 3, 4, 5, -6, 7, -9], dtype=float)
        sampling = Sampling(np.arange(8), 999)
        signs = np.random.default_rng(1).integers(0, 2, (999, 8), dtype=np.int8) * 2 - 1
        sums = [
            abs(sum(sign * value for sign, value in zip(row, whole, strict=True))) for row in signs.tolist()
        ]
        ties = sums.count(abs(whole.sum()))
        assert ties > 50
        expected = (1 + sum(one >= abs(whole.sum()) for one in sums)) / 1000
        for unit in (1, 0.3, 0.7, np.pi):
            assert sign_flip_test(whole[:, None] * unit, sampling)[0] == expected

    @pytest.mark.parametrize("tests", [3, 540])
    def test_the_strongest_evidence_is_significant_however_many_tests_there_are(self, tests):
        sampling = Sampling(np.arange(40), 999)
        p = sign_flip_test(np.ones((40, tests)), enough_flips(sampling, tests))
        assert holm(p).max() < 0.03
        assert enough_flips(sampling, 3) == sampling

    def test_many_columns_of_few_pictures_are_done_in_pieces(self):
        assert max(Sampling(np.arange(2), 21_600).pieces(540)) * 540 <= 4_000_000

    def test_a_picture_flips_as_a_whole(self):
        repeated = sign_flip_test(np.ones((40, 1)), Sampling(np.zeros(40, dtype=int), 999))
        assert repeated[0] == 1.0


class TestHolm:
    def test_by_hand(self):
        # sorted .01 .02 .03 .04: times 4 3 2 1 is .04 .06 .06 .04, and never falls
        assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])

    def test_what_is_no_test_does_not_count_and_nothing_goes_above_one(self):
        found = holm([0.5, np.nan, 0.9])
        assert found[0] == 1.0
        assert np.isnan(found[1])
        assert found[2] == 1.0
