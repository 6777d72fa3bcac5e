"""Confused classes: counts against loops, and the differences of their maps against scipy's own test."""

from collections import Counter

import numpy as np
import pytest

from clarp.evaluation.findings.asked import Asked
from clarp.evaluation.findings.confusion import confused_pairs, confused_units, sentences
from clarp.evaluation.findings.frame import PLACES, windowed
from clarp.evaluation.findings.gathering import Gathered
from evaluation.findings.made_up import anywhere, blob, run_of

stats = pytest.importorskip("scipy.stats")

COUNT = 120
LABEL = np.arange(COUNT) % 4
LEFT, RIGHT = (0.5, 0.15), (0.5, 0.85)


def store_of(folder, target="label", task=None):
    """Of every third ant the model says bee, of some bees ant, of some dogs cow; ants are told by the left,
    those that it takes for bees show the right."""
    generator = np.random.default_rng(0)
    predicted = LABEL.copy()
    predicted[(LABEL == 0) & (np.arange(COUNT) % 3 == 0)] = 1
    predicted[[1, 5]] = 0
    predicted[[3, 7, 11]] = 2
    predicted[13] = 4
    maps = []
    for label, told in zip(LABEL, predicted, strict=True):
        place = LEFT if (label, told) == (0, 0) else RIGHT if label == 0 else anywhere(generator)
        maps.append(blob(generator, [place]))
    probability = generator.random(COUNT)
    return run_of(
        folder, {"lrp": maps}, LABEL, predicted=predicted, probability=probability, target=target, task=task
    )


def pairs_of(store):
    asked = Asked.of(store)
    pairs, groups = confused_units(asked)
    gathered = Gathered.of(store, asked, groups, 2 * len(pairs), 0)
    return asked, gathered, pairs, groups, confused_pairs(asked, gathered, pairs, groups)


def test_pairs_are_those_that_are_confused_most(tmp_path):
    asked, _, pairs, groups, found = pairs_of(store_of(tmp_path / "run"))
    ways = Counter((int(a), int(b)) for a, b in zip(asked.label, asked.predicted, strict=True) if a != b)
    assert ways == {(0, 1): 10, (1, 0): 2, (3, 2): 3, (1, 4): 1}
    assert pairs == [(0, 1), (3, 2)]
    assert [(pair.names, pair.count, pair.photos) for pair in found] == [
        (("ant", "bee"), (10, 2), (30, 30)),
        (("dog", "cow"), (3, 0), (30, 30)),
    ]
    for number, (a, b) in enumerate(pairs):
        for way, (label, told) in enumerate(((a, b), (b, a))):
            expected = [n for n in range(COUNT) if (asked.label[n], asked.predicted[n]) == (label, told)]
            assert np.flatnonzero(groups == 2 * number + way).tolist() == expected
        unsure = asked.probability[list(found[number].units)]
        assert unsure.tolist() == sorted(unsure)


def test_several_valid_ids_are_no_confusion(tmp_path):
    generator = np.random.default_rng(0)
    store = run_of(
        tmp_path / "run",
        {"lrp": [blob(generator, [LEFT]) for _ in range(4)]},
        [0, 0, 0, 2],
        predicted=[1, 1, 3, 3],
        labels=["0 1", "0 1", "0 1", ""],
    )
    assert Asked.of(store).wrong.tolist() == [False, False, True, False]


def test_where_they_differ_equals_welchs_test(tmp_path):
    asked, gathered, _, groups, found = pairs_of(store_of(tmp_path / "run"))
    units, frames = (np.concatenate([gathered.kept[0, g][k] for g in range(4)]) for k in (0, 1))
    windows = np.empty((COUNT, PLACES))
    windows[units] = windowed(frames).reshape(COUNT, PLACES)
    tests = PLACES * 1 * 2 * 3
    for differences, one, other in (
        (found[0].classes, LABEL == 0, LABEL == 1),
        (found[0].confused, groups == 0, (LABEL == 0) & (groups != 0)),
    ):
        test = stats.ttest_ind(windows[one], windows[other], equal_var=False)
        for difference, place in zip(
            differences, (test.statistic.argmax(), test.statistic.argmin()), strict=False
        ):
            assert difference.first == pytest.approx(windows[one, place].mean(), rel=1e-5)
            assert difference.second == pytest.approx(windows[other, place].mean(), rel=1e-5)
            assert difference.p == pytest.approx(min(1, test.pvalue[place] * tests), rel=1e-3)
    assert [one.place for one in found[0].confused] == ["right", "left"]
    assert found[0].classes[0].place == "left"
    assert found[1].classes == found[1].confused == ()  # objects anywhere, and three photos
    first, second = sentences(found, asked.target)
    assert first.startswith(
        "10 of 30 photos of ant (0) are taken for bee (1), and 2 of 30 the other way round."
    )
    assert "Where the maps of the confused photos differ from others of the same label: right (lrp: " in first
    assert second.endswith("Nowhere do the maps differ significantly; 5 of each are needed to compare.")


def test_maps_of_the_prediction_are_compared_with_those_of_the_prediction(tmp_path):
    asked, gathered, _, groups, found = pairs_of(store_of(tmp_path / "run", target="predicted"))
    assert (asked.classes[asked.group] == asked.predicted).all()
    # The ten ants that are called bees have maps for the bee, which are compared with those of other bees.
    (difference, *_) = found[0].confused
    assert difference.place == "right"
    rest = (asked.predicted == 1) & (groups != 0)
    units, frames = gathered.kept[0, 1]
    own = windowed(frames[np.isin(units, np.flatnonzero(rest))]).reshape(-1, PLACES)
    assert difference.second == pytest.approx(own.mean(0)[np.argmin(np.abs(own.mean(0) - difference.second))])
    assert difference.second < difference.first


def test_findings_of_which_several_may_be_there_have_no_pairs(tmp_path):
    _, _, pairs, groups, found = pairs_of(store_of(tmp_path / "run", task="multilabel"))
    assert (pairs, found) == ([], [])
    assert (groups == -1).all()
