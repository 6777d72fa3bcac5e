"""Evidence outside of the boxes: which classes rest on it."""

import numpy as np
import pytest

from clarp.evaluation.findings.asked import Asked
from clarp.evaluation.findings.background import outside, sentences
from clarp.evaluation.findings.gathering import Gathered
from clarp.evaluation.statistics import holm
from evaluation.findings.made_up import blob, run_of

stats = pytest.importorskip("scipy.stats")

FOUR = np.arange(60) % 4


def lines_of(store):
    asked = Asked.of(store)
    gathered = Gathered.of(store, asked, np.full(len(asked), -1), 0, 0)
    return gathered, outside(asked, gathered, 0)


def photos(folder, where, side):
    """Objects of a side, and the evidence in the object or beside it."""
    generator = np.random.default_rng(5)
    maps, boxes = [], []
    for kind in FOUR:
        left, top = generator.uniform(0.05, 0.5 - side(kind) / 2, 2)
        middle = (top + side(kind) / 2, left + side(kind) / 2)
        maps.append(blob(generator, [middle if where(kind) == "in" else (middle[0], 0.95)]))
        boxes.append([(left, top, left + side(kind), top + side(kind))])
    return run_of(folder, {"lrp": maps}, FOUR, boxes=boxes)


def test_a_class_that_rests_on_the_background(tmp_path):
    gathered, lines = lines_of(
        photos(tmp_path / "run", lambda kind: "out" if kind == 1 else "in", lambda _: 0.4)
    )
    assert [line.name for line in lines if line.from_background] == ["bee"]
    (text,) = sentences(lines)
    assert text.startswith("bee (1), lrp: ")
    for line in lines:
        own = gathered.outside[0][line.index == FOUR]
        assert line.share.mean == pytest.approx(own.mean())
        assert line.share.low <= line.share.mean <= line.share.high
        assert line.count == 15
        assert line.area == pytest.approx(1 - 0.4**2, abs=0.02)
        assert gathered.outside[0][list(line.units)].tolist() == sorted(own.tolist(), reverse=True)


def test_the_test_is_mann_whitneys_with_holms_correction(tmp_path):
    gathered, lines = lines_of(
        photos(tmp_path / "run", lambda kind: "out" if kind == 1 else "in", lambda _: 0.4)
    )
    shares, area = gathered.outside[0].astype(float), gathered.area.astype(float)
    excess = shares - np.polyval(np.polyfit(area, shares, 1), area)
    p = [
        stats.mannwhitneyu(excess[k == FOUR], excess[k != FOUR], alternative="greater").pvalue
        for k in range(4)
    ]
    np.testing.assert_allclose([line.p_holm for line in lines], holm(p), rtol=1e-6)
    np.testing.assert_allclose([line.excess for line in lines], [excess[k == FOUR].mean() for k in range(4)])


def test_small_objects_alone_are_no_reason(tmp_path):
    """Less of the evidence fits into small boxes, whatever the class rests on."""
    _, lines = lines_of(photos(tmp_path / "run", lambda _: "in", lambda kind: 0.06 if kind == 1 else 0.4))
    small = next(line for line in lines if line.name == "bee")
    assert small.share.mean > 0.5 > max(line.share.mean for line in lines if line is not small)
    assert not small.from_background


def test_much_outside_everywhere_is_no_difference(tmp_path):
    _, lines = lines_of(photos(tmp_path / "run", lambda _: "out", lambda _: 0.4))
    assert min(line.share.low for line in lines) > 0.5
    assert not any(line.from_background for line in lines)


def test_no_boxes_no_lines(tmp_path):
    generator = np.random.default_rng(0)
    maps = [blob(generator, [(0.5, 0.5)]) for _ in FOUR]
    assert lines_of(run_of(tmp_path / "run", {"lrp": maps}, FOUR))[1] == []
