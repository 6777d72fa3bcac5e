"""A run's folder with maps that are given and not computed."""

import numpy as np
import pytest
import torch

from clarp.evaluation import pictures
from clarp.evaluation.pictures import Cells
from clarp.evaluation.store import Store

arrow = pytest.importorskip("pyarrow")

CLASSES = ("ant", "bee", "cow", "dog", "eel")
PER_PART = 16
NOISE = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
PHOTO = pictures.photo_bytes(NOISE)
"""Of all units where none are given: they look alike everywhere, so that the maps alone decide."""


def blob(generator, places, *, size=28, noise=0.02):
    """A map of noise with a peak at each of the places, (row, column) in shares of the sides."""
    y, x = (np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size
    values = generator.normal(0, noise, (size, size))
    for row, column in places:
        values += np.exp(-((y[:, None] - row) ** 2 + (x[None] - column) ** 2) / 0.004)
    return torch.from_numpy(values)


def anywhere(generator):
    return tuple(generator.uniform(0.15, 0.85, 2))


def run_of(
    folder, maps, classes, *, predicted=None, boxes=None, labels=None, probability=None, photos=None, **about
):
    """A finished run.

    Args:
        folder: of the run.
        maps: for each method one map a unit; None: no map.
        classes: which class each unit is of.
        predicted: what the model says; the class itself if left out.
        boxes: of each unit, lists of four edges.
        labels: the text of each unit's label.
        photos: of each unit a JPEG, or None where it is that of the unit before.
        about: more of run.json; target: of the fingerprint; names: of the classes.
    """
    store, methods, count = Store(folder), (*maps, "random"), len(classes)
    predicted = classes if predicted is None else predicted
    boxes = [[] for _ in classes] if boxes is None else boxes
    target = about.pop("target", "label")
    document = {"samples": count, "dataset": f"made up: {count} samples", "model": "none", "notes": []}
    document |= {"classes": list(about.pop("names", CLASSES)), "columns": {"masking/drop": "higher"}, **about}
    ranges = [(start, min(start + PER_PART, count)) for start in range(0, count, PER_PART)]
    with store.locked():
        store.begin({"methods": dict.fromkeys(methods, ""), "target": target}, document)
        for start, stop in ranges:
            own = range(start, stop)
            cells = [[None if m[n] is None else Cells.of(m[n]) for n in own] for m in maps.values()]
            shown = pictures.columns(
                [PHOTO if photos is None else photos[n] for n in own],
                [*cells, [None for _ in own]],
                [boxes[n] for n in own],
            )
            store.write_pictures(start, stop, shown, pictures.schema())
            rows = [
                {
                    "id": f"{n:04d}.png",
                    "label": str(classes[n]) if labels is None else labels[n],
                    "method": method,
                    "sample": n,
                    "class": int(classes[n]),
                    "target": int(classes[n] if target == "label" else predicted[n]),
                    "predicted": int(predicted[n]),
                    "probability": 0.5 if probability is None else probability[n],
                    "difficult": None,
                    "masking/drop": n / count,
                }
                for n in own
                for method in methods
            ]
            table = arrow.Table.from_pylist(rows)
            columns = {name: table.column(name).to_pylist() for name in table.column_names}
            store.write_part(start, stop, columns, table.schema, [])
        store.merge(ranges, [])
    return store
