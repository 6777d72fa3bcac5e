"""Explanations as a project of ViRelAy: images, relevance and predictions in HDF5, as CoRelAy reads them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarp.explanation import Explanation
from clarp.models import Classifier
from clarp.optional import optional


def write_project(
    folder: str | Path,
    explanations: Iterable[Explanation],
    classifier: Classifier,
    truth: Sequence[int] | None = None,
) -> Path:
    """Write ``input.h5``, ``attribution.h5``, ``label-map.json`` and ``project.yaml``, batch by batch.

    Clusterings and embeddings, which ViRelAy shows beside them, are CoRelAy's work on ``attribution.h5``.

    Args:
        folder: made if it does not exist; files of these names in it are replaced.
        explanations: of batches of images of one size, one target each; a generator keeps memory small.
        classifier: turns preprocessed images back into photos, and names the classes.
        truth: the true class of each image, in order; None: the class that was explained stands there.

    Returns:
        The path of ``project.yaml``.

    Raises:
        ValueError: several targets of an image, no explanation, or another number of true classes.
        ModuleNotFoundError: h5py is not installed.
    """
    h5py = optional("h5py", "A project of ViRelAy", "interop")
    folder, count, name, of_truth = Path(folder), 0, "", truth is not None
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "input.h5", "w") as data, h5py.File(folder / "attribution.h5", "w") as found:
        for e in explanations:
            if e.target.ndim != 1:
                raise ValueError(
                    f"target has the shape {tuple(e.target.shape)}, expected one class for each image, (B,)."
                )
            size, name = len(e.target), f"{e.method.name} ({e.method.rules.name})"
            target = e.target.cpu().numpy().astype(np.uint16)
            actual = target if truth is None else np.asarray(truth[count : count + size], dtype=np.uint16)
            photos = np.stack([classifier.photo(image) for image in e.images])
            _append(data, "data", photos.transpose(0, 3, 1, 2))
            _append(data, "label", actual)
            _append(found, "index", np.arange(count, count + size, dtype=np.uint32))
            _append(found, "attribution", e.relevance.float().cpu().numpy())
            _append(found, "label", target)
            _append(found, "prediction", e.probabilities.float().cpu().numpy())
            count += size
            of_truth = of_truth and np.array_equal(actual, target)
    if count == 0 or (truth is not None and len(truth) != count):
        given = "" if truth is None else f", and truth has {len(truth)} class(es)"
        raise ValueError(
            f"{count} image(s) were explained{given}, expected one or more, and a class for each."
        )
    labels = [
        {"index": index, "word_net_id": f"class-{index}", "name": label}
        for index, label in enumerate(classifier.labels)
    ]
    (folder / "label-map.json").write_text(json.dumps(labels, indent=1), encoding="utf-8")
    project = folder / "project.yaml"  # JSON is YAML
    strategy = "true_label" if of_truth else "predicted_label"
    project.write_text(json.dumps(_project(classifier.name, name, strategy), indent=1), encoding="utf-8")
    return project


def _append(file: Any, name: str, values: NDArray[Any]) -> None:
    if name not in file:
        file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), chunks=True)
        return
    kept = file[name]
    kept.resize(len(kept) + len(values), axis=0)
    kept[-len(values) :] = values


def _project(model: str, method: str, strategy: str) -> dict[str, Any]:
    return {
        "project": {
            "name": model,
            "model": model,
            "label_map": "label-map.json",
            "dataset": {"name": "images as the model saw them", "type": "hdf5", "path": "input.h5"},
            "attributions": {
                "attribution_method": method,
                "attribution_strategy": strategy,
                "sources": ["attribution.h5"],
            },
            "analyses": [],
        }
    }
