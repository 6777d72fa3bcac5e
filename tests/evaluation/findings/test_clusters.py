"""Clusters of maps that were made up of known kinds."""

import numpy as np
import pytest

from clarp.evaluation.findings.asked import Asked
from clarp.evaluation.findings.clusters import LEAST_MAPS, class_clusters
from clarp.evaluation.findings.frame import windowed
from clarp.evaluation.findings.gathering import Gathered
from evaluation.findings.made_up import anywhere, blob, run_of

pytest.importorskip("sklearn")

COUNT = 60
KIND = np.arange(COUNT) % 3  # two of three at the left


def clusters_of(folder, maps, classes=None, seed=0):
    store = run_of(folder, {"lrp": maps}, np.zeros(len(maps), int) if classes is None else classes)
    asked = Asked.of(store)
    gathered = Gathered.of(store, asked, np.full(len(asked), -1), 0, 0)
    return gathered, list(class_clusters(asked, gathered, seed))


def jittered(generator, row, column):
    return tuple(np.array([row, column]) + generator.normal(0, 0.03, 2))


@pytest.fixture
def two_kinds():
    generator = np.random.default_rng(0)
    return [blob(generator, [jittered(generator, 0.5, 0.8 if kind == 2 else 0.2)]) for kind in KIND]


def test_two_kinds_of_maps_are_two_clusters(tmp_path, two_kinds):
    _, (found,) = clusters_of(tmp_path / "run", two_kinds)
    assert (found.method, found.name, found.count, found.clustered) == ("lrp", "ant", COUNT, COUNT)
    assert [sorted(cluster.units) for cluster in found.clusters] == [
        np.flatnonzero(KIND != 2).tolist(),
        np.flatnonzero(KIND == 2).tolist(),
    ]
    assert [cluster.place for cluster in found.clusters] == ["left", "right"]
    assert np.argmax(np.diff(found.eigenvalues)) == 1
    assert found.eigenvalues[0] == pytest.approx(0, abs=1e-9)
    assert len(found.outliers) <= 3


def test_a_prototype_is_the_medoid(tmp_path, two_kinds):
    gathered, (found,) = clusters_of(tmp_path / "run", two_kinds)
    units, frames = gathered.kept[0, 0]
    for cluster in found.clusters:
        own = [int(np.flatnonzero(units == unit)[0]) for unit in cluster.units]

        def distance(a, b):
            one, other = (windowed(frames[k]) / windowed(frames[k]).sum() for k in (a, b))
            return np.sqrt(max(0, 1 - np.sqrt(one * other).sum()))

        sums = [sum(distance(a, b) for b in own) for a in own]
        assert cluster.prototype == cluster.units[int(np.argmin(sums))]
        to_it = [distance(own[0], b) for b in own]
        assert to_it == sorted(to_it)
        np.testing.assert_allclose(cluster.mean, frames[own].mean(axis=0), rtol=1e-5)
        assert cluster.concentration == pytest.approx(windowed(cluster.mean).max())


@pytest.mark.parametrize("seed", range(4))
def test_one_kind_is_one_cluster(tmp_path, seed):
    generator = np.random.default_rng(seed)
    maps = [blob(generator, [anywhere(generator)], noise=0.05) for _ in range(COUNT)]
    _, (found,) = clusters_of(tmp_path / "run", maps)
    assert len(found.clusters) == 1
    assert len(found.clusters[0].units) == COUNT


def test_an_outlier(tmp_path):
    generator = np.random.default_rng(0)
    maps = [blob(generator, [jittered(generator, 0.5, 0.2)]) for _ in range(COUNT)]
    maps[17] = blob(generator, [(0.85, 0.85)])
    _, (found,) = clusters_of(tmp_path / "run", maps)
    assert found.outliers[0] == 17
    assert len(found.outliers) <= 3


def test_few_maps_are_not_clustered(tmp_path, two_kinds):
    classes = np.where(np.arange(COUNT) < LEAST_MAPS - 1, 3, 0)
    _, found = clusters_of(tmp_path / "run", two_kinds, classes)
    assert [one.name for one in found] == ["ant"]


def test_the_same_maps_give_the_same_clusters(tmp_path, two_kinds):
    first, second = (clusters_of(tmp_path / name, two_kinds)[1][0] for name in ("one", "two"))
    assert [c.units.tolist() for c in first.clusters] == [c.units.tolist() for c in second.clusters]


def test_equal_maps_are_one_cluster_without_outliers(tmp_path):
    heatmap = blob(np.random.default_rng(0), [(0.5, 0.5)])
    _, (found,) = clusters_of(tmp_path / "run", [heatmap] * 20)
    assert (len(found.clusters), found.outliers) == (1, ())
