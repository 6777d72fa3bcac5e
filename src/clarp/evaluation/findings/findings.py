"""All findings of a run, and what was left out and why."""

from dataclasses import dataclass

import numpy as np

from clarp.evaluation.findings.alike import marks
from clarp.evaluation.findings.asked import Asked
from clarp.evaluation.findings.background import Outside, outside
from clarp.evaluation.findings.clusters import LEAST_MAPS, ClassClusters, class_clusters
from clarp.evaluation.findings.confusion import ConfusedPair, confused_pairs, confused_units
from clarp.evaluation.findings.gathering import Gathered
from clarp.evaluation.findings.places import LEAST_PHOTOS, FixedPlace, fixed_places
from clarp.evaluation.store import Store


@dataclass(frozen=True, eq=False)
class Findings:
    """What no single map says.

    Attributes:
        asked: the units of the run.
        gathered: what its maps came to.
        places: classes with a mark at a fixed place, where their photos look alike.
        outside: of each class and method the evidence outside of the boxes; none without boxes.
        pairs: classes that are confused.
        clusters: of each class and method.
        left_out: sentences, what could not be asked of this run.
    """

    asked: Asked
    gathered: Gathered
    places: tuple[FixedPlace, ...]
    outside: tuple[Outside, ...]
    pairs: tuple[ConfusedPair, ...]
    clusters: tuple[ClassClusters, ...]
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, store: Store, *, seed: int = 0) -> "Findings":
        """Compute them from a run's folder, in one pass over its pictures.

        Args:
            store: the run's folder.
            seed: of the samples of maps, of k-means and of the bootstrap.

        Raises:
            ValueError: no run there, or no rows yet.
        """
        asked = Asked.of(store)
        pairs, groups = confused_units(asked)
        gathered = Gathered.of(store, asked, groups, 2 * len(pairs), seed)
        left_out = _left_out(asked, gathered)
        try:
            clusters = tuple(class_clusters(asked, gathered, seed))
        except ModuleNotFoundError as error:
            clusters = ()
            left_out.append(f"Clusters: {error}")
        return cls(
            asked,
            gathered,
            tuple(marks(store, asked, fixed_places(asked, gathered))),
            tuple(outside(asked, gathered, seed)),
            tuple(confused_pairs(asked, gathered, pairs, groups)),
            clusters,
            tuple(left_out),
        )


def _left_out(asked: Asked, gathered: Gathered) -> list[str]:
    """What this run can't be asked."""
    found: list[str] = []
    maps = gathered.classes.count.max(axis=0, initial=0)
    if not maps.sum():
        why = "the run kept no pictures" if asked.parts else "the run's parts are not those of its rows"
        return [f"All but confusions: {why}, and these findings are made of the maps kept with them."]
    if (maps > 0).sum() < 2:
        found.append(
            "Marks at a fixed place: the maps are of one class, and there is none to compare it with."
        )
    few = int((maps < LEAST_PHOTOS).sum())
    if few:
        found.append(
            f"Marks at a fixed place: {few} of {len(maps)} classes have fewer than {LEAST_PHOTOS} maps."
        )
    few = int((maps < LEAST_MAPS).sum())
    if few:
        found.append(f"Clusters: {few} of {len(maps)} classes have fewer than {LEAST_MAPS} maps.")
    if (maps > gathered.most).any():
        found.append(
            f"Clusters: of classes with more maps, {gathered.most} of each method were taken by lot."
        )
    if not np.isfinite(gathered.area).any():
        found.append(
            "Evidence outside of objects: the run kept no boxes. It keeps them where the data set has boxes "
            "and a metric asks for the objects' places (energy-pointing)."
        )
    if asked.task == "multilabel":
        found.append("Confusions: where several classes may be in one photo, none excludes another.")
    return found
