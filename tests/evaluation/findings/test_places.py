"""Marks at a fixed place: Fisher's test, and what is one and what is none."""

from dataclasses import replace

import numpy as np
import pytest

from clarp.evaluation.findings.asked import Asked
from clarp.evaluation.findings.frame import PLACES, near
from clarp.evaluation.findings.gathering import Gathered
from clarp.evaluation.findings.places import PlaceCounts, fixed_places, sentences
from evaluation.findings.made_up import anywhere, blob, run_of

stats = pytest.importorskip("scipy.stats")

CORNER = (0.87, 0.13)  # bottom left
FOUR = np.arange(80) % 4


def found_in(store):
    asked = Asked.of(store)
    gathered = Gathered.of(store, asked, np.full(len(asked), -1), 0, 0)
    return asked, gathered, fixed_places(asked, gathered)


def with_mark(folder, marked, *, place=CORNER, seed=0, classes=FOUR, **options):
    """Objects anywhere, and a second peak at the place where a unit is marked."""
    generator = np.random.default_rng(seed)
    maps = [blob(generator, [anywhere(generator), *([place] if m else [])]) for m in marked]
    return run_of(folder, {"lrp": maps}, classes, **options)


def some(share, kind=2, classes=FOUR, seed=9):
    return (classes == kind) & (np.random.default_rng(seed).random(len(classes)) < share)


def test_it_is_found_by_class_place_and_photos(tmp_path):
    marked = some(0.6)
    _, _, (mark,) = found_in(with_mark(tmp_path / "run", marked))
    assert (mark.name, mark.index, mark.method, mark.place, mark.count) == (
        "cow",
        2,
        "lrp",
        "bottom left",
        20,
    )
    assert set(np.flatnonzero(marked)) <= set(mark.units)
    assert len(mark.units) <= marked.sum() + 1  # an object may stand there
    left, top, right, bottom = mark.box
    assert left < CORNER[1] < right
    assert top < CORNER[0] < bottom
    assert mark.p < 1e-3
    assert mark.outside is None
    (text,) = sentences([replace(mark, likeness=0.5)])
    assert text.startswith(f"cow (2), lrp: the maps of {len(mark.units)} of 20 photos (")
    assert "bottom left" in text
    assert text.endswith("(p < 0.001, corrected). The photos look alike there (correlation 0.50).")


def test_two_marks_of_one_class(tmp_path):
    generator = np.random.default_rng(0)
    maps = [blob(generator, [CORNER, (0.13, 0.87)] if kind == 1 else [anywhere(generator)]) for kind in FOUR]
    _, _, marks = found_in(run_of(tmp_path / "run", {"lrp": maps}, FOUR))
    assert [(mark.name, mark.place) for mark in marks] == [("bee", "bottom left"), ("bee", "top right")] or [
        (mark.name, mark.place) for mark in marks
    ] == [("bee", "top right"), ("bee", "bottom left")]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_without_a_mark(tmp_path, seed):
    _, _, marks = found_in(with_mark(tmp_path / "run", FOUR < 0, seed=seed))
    assert marks == []


def test_nothing_where_every_class_has_it(tmp_path):
    marked = np.random.default_rng(4).random(len(FOUR)) < 0.6
    assert found_in(with_mark(tmp_path / "run", marked))[2] == []


def test_nothing_in_too_few_photos(tmp_path):
    marked = np.zeros(len(FOUR), dtype=bool)
    marked[np.flatnonzero(FOUR == 2)[:4]] = True
    assert found_in(with_mark(tmp_path / "run", marked))[2] == []


def test_where_the_objects_are_is_no_mark(tmp_path):
    """A class whose objects stand in the middle more often than those of others, without and with boxes."""
    generator = np.random.default_rng(2)

    def around(spread):
        return tuple(np.clip(generator.normal(0.5, spread, 2), 0.15, 0.85))

    maps = [blob(generator, [around(0.02 if kind == 2 else 0.15)]) for kind in FOUR]
    asked, gathered, marks = found_in(run_of(tmp_path / "run", {"lrp": maps}, FOUR))
    assert marks == []
    counts = PlaceCounts.of(asked, gathered.peaks[0], gathered.seen[0])
    assert np.nanmin(counts.p[2]) * PLACES * 4 < 1e-4  # though it is significant


@pytest.mark.parametrize(("box", "named"), [([0, 0.7, 0.3, 1], []), ([0.3, 0.1, 0.9, 0.7], ["cow"])])
def test_boxes_say_what_is_the_object(tmp_path, box, named):
    boxes = [[box] for _ in FOUR]
    _, _, marks = found_in(with_mark(tmp_path / "run", some(0.9), boxes=boxes))
    assert [mark.name for mark in marks] == named
    assert all(mark.outside == 1.0 for mark in marks)


def test_one_class_alone_can_not_be_compared(tmp_path):
    classes = np.full(20, 2)
    store = with_mark(tmp_path / "run", some(0.9, classes=classes), classes=classes)
    assert found_in(store)[2] == []


def test_p_is_fishers_and_counts_are_plain(tmp_path):
    marked = some(0.3)
    asked, gathered, _ = found_in(with_mark(tmp_path / "run", marked))
    counts = PlaceCounts.of(asked, gathered.peaks[0], gathered.seen[0])
    hits = near(gathered.peaks[0])
    for group in range(4):
        own = asked.group == group
        for place in range(0, PLACES, 7):
            one, other = hits[own, place].sum(), hits[~own, place].sum()
            assert counts.hits[group, place] == one
            assert counts.others()[group, place] == pytest.approx(other / 60)
            expected = stats.fisher_exact(
                [[one, 20 - one], [other, 60 - other]], alternative="greater"
            ).pvalue
            assert counts.p[group, place] == pytest.approx(expected, rel=1e-6)


def test_random_labels_give_no_alarm():
    """The level holds over all places and classes together: of 200 draws at most 5 % have any p below it."""
    generator = np.random.default_rng(0)
    peaks = np.full((120, 4), 255, np.uint8)
    peaks[:, 0] = generator.choice(PLACES, 120, p=generator.dirichlet(np.ones(PLACES) / 4))
    alarms = 0
    for _ in range(200):
        asked = Asked(None, np.arange(4), generator.permutation(np.arange(120) % 4), *[None] * 11)
        counts = PlaceCounts.of(asked, peaks, np.ones(120, dtype=bool))
        alarms += counts.p.min() * counts.p.size <= 0.05
    assert alarms <= 10
