"""What a run asked, unit by unit, as its rows say it: which class, of which photo, and the prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarp.evaluation.attribution import CONTROLS
from clarp.evaluation.store import Store

Units = NDArray[np.int64]
"""Numbers of units, in the order of the rows."""


@dataclass(frozen=True, eq=False)
class Asked:
    """All units of a run, a unit being one label in one picture.

    Attributes:
        ids: (U,) names of the photos, a pyarrow column.
        classes: the C ids of the classes that are explained, rising.
        group: (U,) which of these is explained, 0 to C - 1.
        label: (U,) the first id of the label, -1 without a label.
        predicted: (U,) what the model says.
        wrong: (U,) whether there is a label, and the prediction is none of its ids.
        probability: (U,) of the class that is explained.
        methods: the M methods that have maps.
        columns: (M,) their places among all methods of the run.
        count: of all methods of the run, those without maps included.
        parts: how many units each part of the pictures has; none where rows and parts don't agree.
        names: of the classes, by id.
        target: "label" or "predicted": of what the maps are.
        task: "multiclass", "binary", "multilabel", or None where the run doesn't say.
    """

    ids: Any
    classes: NDArray[np.int64]
    group: Units
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    probability: NDArray[np.float64]
    methods: tuple[str, ...]
    columns: tuple[int, ...]
    count: int
    parts: tuple[int, ...]
    names: tuple[str, ...]
    target: str
    task: str | None

    @classmethod
    def of(cls, store: Store) -> "Asked":
        """Read the rows of a run.

        Raises:
            ValueError: no run there, or no rows yet.
        """
        about = store.about()
        every = list(about["fingerprint"]["methods"])
        count, controls = len(every), {control.name for control in CONTROLS}
        rows = store.rows().select(["id", "label", "class", "target", "predicted", "probability"])
        rows = rows.take(np.arange(0, len(rows), count))
        label, target, predicted = (
            rows.column(name).to_numpy().astype(np.int64) for name in ("class", "target", "predicted")
        )
        classes, group = np.unique(target, return_inverse=True)
        columns = tuple(place for place, name in enumerate(every) if name not in controls)
        sizes = [found // count for found in store.part_rows()]
        return cls(
            ids=rows.column("id"),
            classes=classes,
            group=group.astype(np.int64),
            label=label,
            predicted=predicted,
            wrong=_wrong(rows.column("label"), predicted),
            probability=rows.column("probability").to_numpy(),
            methods=tuple(every[place] for place in columns),
            columns=columns,
            count=count,
            # A run that isn't complete, or whose parts were removed later, may have fewer parts than rows.
            parts=tuple(sizes) if sum(sizes) == len(rows) else (),
            names=tuple(about["classes"]),
            target=about["fingerprint"].get("target", "label"),
            task=about.get("task"),
        )

    def __len__(self) -> int:
        return len(self.group)

    def name(self, index: int) -> str:
        """Of a class by its id."""
        return self.names[index] if 0 <= index < len(self.names) else str(index)

    def photos(self, units: Sequence[int] | Units) -> list[str]:
        """Names of the photos of units."""
        found: list[str] = self.ids.take(np.asarray(units, dtype=np.int64)).to_pylist()
        return found


def _wrong(labels: Any, predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a prediction is none of the ids of its label; False where there is no label."""
    texts = labels.combine_chunks().dictionary_encode()
    numbers = texts.indices.to_numpy()
    wrong = np.zeros(len(predicted), dtype=bool)
    for number, text in enumerate(texts.dictionary.to_pylist()):
        ids = [int(index) for index in text.split()]
        if ids:
            own = numbers == number
            wrong[own] = ~np.isin(predicted[own], ids)
    return wrong
