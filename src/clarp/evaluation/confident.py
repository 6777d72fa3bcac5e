"""The photos that a model gets right with confidence: what the grid pointing game makes its mosaics of."""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from clarp.background import ahead
from clarp.data.dataset import Dataset
from clarp.data.problems import UnreadableImageError
from clarp.data.sample import Sample
from clarp.evaluation.files import run_files
from clarp.evaluation.inputs import AHEAD, Loader, module_on
from clarp.models import Classifier
from clarp.models.logits import Logits
from clarp.network import Network
from clarp.workers.fingerprint import of_classifier

CONFIDENCE = 0.9
"""The least probability of a right answer."""
_FILE = "confident.json"


def confident(
    photos: Dataset,
    classifier: Classifier,
    folder: str | Path,
    device: torch.device,
    confidence: float | None = None,
) -> Dataset:
    """The photos whose label the model gives at least this probability; None: :data:`CONFIDENCE`.

    Boehle 2021 asks for such photos, without a number. What was found is kept in the folder, so that a run
    that goes on does not look again.

    Raises:
        ValueError: there are none.
    """
    files = run_files(folder)
    least = CONFIDENCE if confidence is None else confidence
    key = _key(photos, classifier, least)
    there = map(json.loads, files.contents(_FILE))
    kept = next((one for one in there if one.get("of") == key), None)
    if kept is None:
        kept = {"of": key, "confidence": least, "photos": _found(photos, classifier, device, least)}
        if not kept["photos"]:
            raise ValueError(
                f"{classifier.name} gives none of the {len(photos)} photos of {photos.name} its label with "
                f"a probability of {least}, so there is nothing to make mosaics of: give photos of "
                "classes that it knows."
            )
        files.write(_FILE, lambda file: file.write(json.dumps(kept, indent=1).encode()))
    ids = set(kept["photos"])
    return photos.select(lambda sample: sample.id in ids)


def _key(photos: Dataset, classifier: Classifier, confidence: float) -> str:
    """A hash of all that decides which photos they are."""
    of = {"data set": photos.fingerprint(), "model": of_classifier(classifier), "task": classifier.task}
    return hashlib.sha256(json.dumps(of | {"confidence": confidence}, sort_keys=True).encode()).hexdigest()


def _found(photos: Dataset, classifier: Classifier, device: torch.device, confidence: float) -> list[str]:
    model, network = module_on(classifier, device), Network(classifier.module)
    logits: Logits | None = None
    loader = Loader(classifier, as_is=photos.as_is, located=False, placed=False)

    def opened(sample: Sample) -> Tensor | None:
        try:
            return loader.tensor(sample)
        except UnreadableImageError:
            return None

    ids: list[str] = []
    for sample, image in zip(photos, ahead(opened, photos, most=AHEAD), strict=True):
        if image is not None and sample.labels:
            logits = logits or Logits.of(model, network, image, classifier.task)
            probabilities = logits.probabilities(image[None].to(device))[0].tolist()
            if max(probabilities[index] for index in sample.labels[0]) >= confidence:
                ids.append(sample.id)
    return ids
