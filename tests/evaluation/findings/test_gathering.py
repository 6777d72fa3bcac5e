"""One pass over the maps against plain loops over all of them."""

import numpy as np
import pytest

from clarp.evaluation.findings import gathering
from clarp.evaluation.findings.asked import Asked
from clarp.evaluation.findings.frame import evidence, framed, windowed
from clarp.evaluation.findings.gathering import Gathered
from clarp.evaluation.pictures import Cells
from evaluation.findings.made_up import anywhere, blob, run_of

pytest.importorskip("scipy")

COUNT = 40
KINDS = np.array([1, 3, 3, 4])[np.arange(COUNT) % 4]


@pytest.fixture
def maps():
    generator = np.random.default_rng(1)
    own = [blob(generator, [anywhere(generator)], size=56 if n < 20 else 28) for n in range(COUNT)]
    own[5], own[6] = None, -own[6].abs()  # no map, and nothing that speaks for the class
    return {"lrp": own, "sglrp": [None if m is None else m.flip(0) for m in own]}


@pytest.fixture
def store(maps, tmp_path):
    return run_of(
        tmp_path / "run",
        maps,
        KINDS,
        boxes=[[(0.125, 0.25, 0.625, 0.875)] if n % 2 else [] for n in range(COUNT)],
    )


def gathered(store, groups=None, seed=0):
    asked = Asked.of(store)
    groups = np.full(COUNT, -1) if groups is None else groups
    return asked, Gathered.of(store, asked, groups, 2, seed)


def frames_of(own):
    found = {}
    for unit, heatmap in enumerate(own):
        if heatmap is not None:
            shares, totals = evidence(Cells.of(heatmap).codes[None])
            if totals[0] > 0:
                found[unit] = framed(shares)[0], shares[0]
    return found


def test_sums_are_those_of_all_maps(store, maps):
    groups = np.where(np.arange(COUNT) % 5 == 0, 1, -1)
    asked, found = gathered(store, groups)
    assert asked.classes.tolist() == [1, 3, 4]
    assert asked.methods == ("lrp", "sglrp")
    assert asked.columns == (0, 1)
    for method, own in enumerate(maps.values()):
        frames = frames_of(own)
        assert sorted(frames) == [unit for unit in range(COUNT) if unit not in {5, 6}]
        for sums, chosen, group in (
            *((found.classes, kind == KINDS, place) for place, kind in enumerate((1, 3, 4))),
            (found.pairs, groups == 1, 1),
            (found.pairs, groups == 0, 0),
        ):
            those = [frames[unit][0] for unit in np.flatnonzero(chosen) if unit in frames]
            assert sums.count[method, group] == len(those)
            if those:
                np.testing.assert_allclose(sums.total[method, group], np.sum(those, axis=0), rtol=1e-5)
                squares = np.sum([windowed(one) ** 2 for one in those], axis=0)
                np.testing.assert_allclose(sums.squares[method, group], squares, rtol=1e-5)
        assert found.seen[method].tolist() == [unit in frames for unit in range(COUNT)]


def test_what_lies_outside_of_the_boxes(store, maps):
    _, found = gathered(store)
    for method, own in enumerate(maps.values()):
        frames = frames_of(own)
        for unit in range(COUNT):
            if unit not in frames or unit % 2 == 0:
                assert np.isnan(found.outside[method, unit])
                continue
            shares = frames[unit][1]
            side = len(shares)
            at = (np.arange(16 * side) + 0.5) / (16 * side)
            fine = np.kron(shares, np.ones((16, 16))) / 256
            inside = ((at > 0.25) & (at < 0.875))[:, None] & ((at > 0.125) & (at < 0.625))[None]
            assert found.outside[method, unit] == pytest.approx(fine[~inside].sum(), rel=1e-5)
            assert found.area[unit] == pytest.approx(1 - 0.625 * 0.5)


def test_maps_are_kept_up_to_a_number_by_lot(store, maps, monkeypatch):
    _, found = gathered(store)
    assert found.most == gathering.MOST == 500
    units, frames = found.kept[0, 1]
    assert units.tolist() == [unit for unit in np.flatnonzero(KINDS == 3) if unit not in {5, 6}]
    expected = frames_of(maps["lrp"])
    for unit, frame in zip(units, frames, strict=True):
        np.testing.assert_array_equal(frame, expected[unit][0])
    monkeypatch.setattr(gathering, "MOST", 7)
    (_, few), (_, again), (_, other) = gathered(store), gathered(store), gathered(store, seed=1)
    assert few.classes.count.tolist() == found.classes.count.tolist()  # sums are of all
    assert few.kept[0, 1][0].tolist() == again.kept[0, 1][0].tolist() != other.kept[0, 1][0].tolist()
    assert set(few.kept[0, 1][0]) <= set(units)
    assert all(len(own) <= 7 for own, _ in few.kept.values())


def test_all_kept_maps_together_have_a_bound(store, monkeypatch):
    monkeypatch.setattr(gathering, "BUDGET", 2 * 3 * 4 * 14 * 14 * 4)
    _, found = gathered(store)
    assert found.most == 4
    assert sum(frames.nbytes for _, frames in found.kept.values()) <= gathering.BUDGET


def test_parts_without_pictures_are_left_out(store):
    next(iter(store.folder.glob("pictures/*16-*32.parquet"))).unlink()
    _, found = gathered(store)
    assert np.flatnonzero(~found.seen[0]).tolist() == sorted({5, 6} | set(range(16, 32)))


def test_rows_that_are_not_of_the_parts_have_no_maps(store):
    next(iter(store.folder.glob("parts/*16-*32.parquet"))).unlink()
    asked, found = gathered(store)
    assert asked.parts == ()
    assert not found.seen.any()
