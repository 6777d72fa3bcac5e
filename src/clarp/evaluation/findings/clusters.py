"""Clusters of a class's maps, after SpRAy (Lapuschkin et al. 2019): which kinds of evidence there are.

Spectral clustering, as there, and not HDBSCAN: the gap in the eigenvalues says how many clusters there are,
also that there is one; every map belongs to one, and no density has to be chosen. The graph is dense with a
scale of its own at each map (Zelnik-Manor and Perona 2004), and not that of the log(n) nearest neighbours as
in SpRAy: with a few dozen maps, that fell into four to eight pieces where there was one kind of evidence.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clarp.evaluation.findings.asked import Asked, Units
from clarp.evaluation.findings.frame import PLACES, Frames, name_of, windowed
from clarp.evaluation.findings.gathering import Gathered
from clarp.optional import optional

LEAST_MAPS = 12
"""Fewer maps of a class are not clustered."""
MOST_CLUSTERS = 8
_FAR_OUT = 3.0  # interquartile ranges above the third quartile (Tukey 1977)
_PURPOSE = "Clusters of maps"
_NEIGHBOURHOOD = 4  # a map's scale is its distance to the nearest fourth of the class
_ALIKE = 0.05  # the least scale: maps nearer than this are alike, and no affinity may vanish
_NEAREST = 3  # an outlier is far from so many


@dataclass(frozen=True, eq=False)
class Cluster:
    """Maps of one class that have their evidence alike.

    Attributes:
        units: its units, those most like the prototype first.
        mean: (FIELDS, FIELDS) the mean of its maps.
        place: of most evidence in the mean map, in words.
        concentration: the share of the evidence at that place.
    """

    units: Units
    mean: Frames
    place: str
    concentration: float

    @property
    def prototype(self) -> int:
        """The unit whose map is nearest to all others of the cluster, its medoid."""
        return int(self.units[0])


@dataclass(frozen=True, eq=False)
class ClassClusters:
    """The clusters of one class by one method.

    Attributes:
        method: of the maps.
        index: the class's id.
        name: and its name.
        count: how many of its maps have evidence.
        clustered: of these, how many were clustered; fewer are a sample.
        clusters: the largest first.
        outliers: units whose maps are far from all others, the farthest first.
        eigenvalues: the smallest of the graph's normalised Laplacian; the widest gap says how many clusters.
    """

    method: str
    index: int
    name: str
    count: int
    clustered: int
    clusters: tuple[Cluster, ...]
    outliers: tuple[int, ...]
    eigenvalues: tuple[float, ...]


def class_clusters(asked: Asked, gathered: Gathered, seed: int) -> Iterator[ClassClusters]:
    """By method and class, where there are enough maps.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    optional("sklearn", _PURPOSE)
    for (method, group), (units, frames) in sorted(gathered.kept.items(), key=lambda item: item[0]):
        if len(units) < LEAST_MAPS:
            continue
        distances = _distances(frames)
        labels, eigenvalues, farness = _partition(distances, seed)
        index = int(asked.classes[group])
        yield ClassClusters(
            method=asked.methods[method],
            index=index,
            name=asked.name(index),
            count=int(gathered.classes.count[method, group]),
            clustered=len(units),
            clusters=tuple(_clusters(units, frames, distances, labels)),
            outliers=tuple(units[_far(farness)].tolist()),
            eigenvalues=tuple(eigenvalues.tolist()),
        )


def _distances(frames: Frames) -> NDArray[np.float64]:
    """Between all maps (n, n): Hellinger's, of the shares of their places.

    Places are larger than fields, so that a shift by one field makes maps no strangers.
    """
    shares = windowed(frames).reshape(len(frames), -1)
    roots = np.sqrt(shares / shares.sum(axis=1, keepdims=True))
    found: NDArray[np.float64] = np.sqrt(np.maximum(1 - roots @ roots.T, 0.0))
    np.fill_diagonal(found, 0.0)
    return found


def _partition(
    distances: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The cluster of each map, the smallest eigenvalues, and how far each map is from its neighbours."""
    count = len(distances)
    nearest = np.sort(distances, axis=1)[:, 1:]
    scale = np.maximum(nearest[:, count // _NEIGHBOURHOOD], _ALIKE)
    affinity = np.exp(-(distances**2) / (scale[:, None] * scale[None]))
    np.fill_diagonal(affinity, 0.0)
    laplacian = optional("scipy.sparse.csgraph", _PURPOSE).laplacian(affinity, normed=True)
    eigh = optional("scipy.linalg", _PURPOSE).eigh
    values = eigh(laplacian, eigvals_only=True, subset_by_index=[0, min(MOST_CLUSTERS, count // 3)])
    number = int(np.argmax(np.diff(values))) + 1
    labels = np.zeros(count, np.int64)
    if number > 1:
        clustering = optional("sklearn.cluster", _PURPOSE).SpectralClustering(
            number, affinity="precomputed", assign_labels="cluster_qr", random_state=seed
        )
        labels = clustering.fit_predict(affinity).astype(np.int64)
    return labels, values, nearest[:, :_NEAREST].mean(axis=1)


def _far(farness: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which maps are outliers, the farthest first; none that is alike to its neighbours."""
    first, third = np.quantile(farness, [0.25, 0.75])
    order = np.argsort(-farness, kind="stable")
    return order[farness[order] > max(third + _FAR_OUT * (third - first), _ALIKE)]


def _clusters(
    units: Units, frames: Frames, distances: NDArray[np.float64], labels: NDArray[np.int64]
) -> list[Cluster]:
    found = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        within = distances[np.ix_(own, own)]
        medoid = int(within.sum(axis=1).argmin())
        mean = frames[own].mean(axis=0)
        places = windowed(mean).reshape(PLACES)
        ordered = units[own[np.argsort(within[medoid], kind="stable")]]
        found.append(Cluster(ordered, mean, name_of(int(places.argmax())), float(places.max())))
    return sorted(found, key=lambda one: (-len(one.units), one.prototype))
