"""Classifiers of ultralytics, as its training saves them: ``ultralytics:FILE``."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clarp.models import labels as class_names
from clarp.models import own
from clarp.models.classifier import Classifier
from clarp.optional import optional
from clarp.task import TaskName

_SIDE = 224  # what ultralytics trains classifiers on unless told otherwise


def load(file: Path, labels: Sequence[str] | None = None, *, task: TaskName | None = None) -> Classifier:
    """Load a classifier with its labels and its preprocessing.

    The file is a pickle: loading it can execute code that is in it. Where ultralytics can rebuild its own
    classes only (``safe_only``), it is asked to.

    Args:
        file: a ``.pt`` file.
        labels: the class names; None for the file's own.
        task: what its last layer means; None: one of many classes.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: ultralytics is not installed.
        ValueError: it is no classifier of ultralytics, or the labels don't fit.
    """
    if not file.is_file():
        raise FileNotFoundError(f"ultralytics:{file}: no such model file.")
    from clarp.models import _torchvision  # noqa: F401  makes ultralytics' import of it work

    tasks = optional("ultralytics.nn.tasks", "A model of ultralytics", "ultralytics")
    checkpoint = _read(file, tasks)
    module: Any = checkpoint.get("ema") or checkpoint.get("model")
    classifies = isinstance(module, tasks.ClassificationModel)
    if not classifies:
        kind = "no model" if module is None else f"a {type(module).__name__}"
        raise ValueError(
            f"ultralytics:{file} holds {kind}, expected a classifier of ultralytics, which yolo classify "
            "train writes (best.pt)."
        )
    module = module.float().eval()
    size = (checkpoint.get("train_args") or {}).get("imgsz", _SIDE)
    augment = optional("ultralytics.data.augment", "A model of ultralytics", "ultralytics")
    preprocess = getattr(module, "transforms", None) or augment.classify_transforms(size)
    names = class_names.of_classes(
        labels or _names(module), len(_names(module)), f"ultralytics:{file}", task
    )[0]
    found = own.of_module(module, preprocess, names, task=task or "multiclass", spec=f"ultralytics:{file}")
    notes = tuple(note for note in found.notes if not note.startswith("output:"))  # it is always the same
    return replace(found, notes=(f"preprocessing: that of ultralytics, {size} x {size}", *notes))


def _names(module: Any) -> list[str]:
    names = module.names
    return [str(names[k]) for k in sorted(names)] if isinstance(names, dict) else list(map(str, names))


def _read(file: Path, tasks: Any) -> dict[str, Any]:
    try:
        if "safe_only" in inspect.signature(tasks.torch_safe_load).parameters:
            return dict(tasks.torch_safe_load(str(file), safe_only=True)[0])
        return dict(torch.load(file, map_location="cpu", weights_only=False))
    except Exception as error:  # whatever a pickle raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"ultralytics:{file}: not what ultralytics writes, or damaged ({type(error).__name__}: {reason})."
        ) from error
