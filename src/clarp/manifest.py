"""What manifests and answers say of a run: versions, model, classes, task, and how maps were drawn."""

import hashlib
import math
import platform
import re
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor

import clarp
from clarp.cache.key import code_of
from clarp.files import write_atomically
from clarp.method import Method
from clarp.models import Classifier
from clarp.render import Look, Scale
from clarp.task import Task
from clarp.text import document

TOP = 5
"""How many predictions are listed."""
_UNIT = (
    "relevance of a pixel of the model's input, summed over its channels, in units of the initial "
    "relevance; colour bars are in percent of the peak"
)


def head(classifier: Classifier) -> dict[str, Any]:
    """What every manifest begins with: versions, command and model."""
    return {
        "clarp": clarp.__version__,
        "clarp_sha256": code_of("."),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
        "command": shlex.join(["clarp", *sys.argv[1:]]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": classifier.name,
            "classes": len(classifier.labels),
            "weights_sha256": classifier.weights_sha256(),
            "preprocessing": _described(classifier.preprocess),
            "notes": list(classifier.notes),
        },
    }


def _described(preprocess: object) -> str:
    """A preprocessing in words, without the address of a function, which differs from run to run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(preprocess).split()))


def machine(device: torch.device) -> dict[str, Any]:
    """Where it was computed, as far as rounding depends on it."""
    return {
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def tensor_sha256(values: Tensor) -> str:
    """SHA-256 over type, shape and bytes of a tensor."""
    plain = values.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}\n".encode())
    digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def bounds_of(classifier: Classifier, method: Method) -> dict[str, Any]:
    """Where the bounds of the pixels came from, and what they are."""
    if not method.needs_bounds:
        return {"source": "not used by this composite"}
    if classifier.bounds is None:
        return {"source": "each image's own minima and maxima per channel"}
    low, high = classifier.bounds
    source = "measured: what the preprocessing makes of a black and of a white picture"
    return {"source": source, "low": low.tolist(), "high": high.tolist()}


def task_entry(task: Task | None) -> dict[str, Any] | None:
    """The task: its name, how it is known, and notes; None where nothing was explained."""
    return None if task is None else {"name": task.name, "source": task.source, "notes": list(task.notes)}


def look_entry(look: Look) -> dict[str, Any]:
    """How maps were drawn, and in which unit scales are."""
    return {**asdict(look), "smoothing": look.sigma, "unit": _UNIT}


def scale_entry(scale: Scale) -> dict[str, Any]:
    """What the colours of a picture stand for."""
    return {"peak": scale.peak, "full_colour": scale.limit, "basis": scale.basis, "warning": scale.warning}


def class_entry(classifier: Classifier, probabilities: Tensor, index: int) -> dict[str, Any]:
    """A class: number, label and probability, of (N,) probabilities."""
    return {
        "class": index,
        "label": classifier.labels[index],
        "probability": finite(float(probabilities[index])),
    }


def top(probabilities: Tensor, count: int = TOP) -> list[int]:
    """The most probable classes, of (N,) probabilities."""
    found: list[int] = probabilities.topk(min(count, len(probabilities))).indices.tolist()
    return found


def write(manifest: dict[str, Any], path: Path) -> str:
    """Write a manifest, whole or not at all, and return its text.

    Raises:
        OSError: it can't be written.
    """
    text = document(manifest) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    return text


def finite(value: float) -> float | None:
    """The number, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def percent(probability: float | None) -> str:
    """A probability for people.

    >>> percent(0.3186), percent(0.0001), percent(None)
    ('31.9%', '<0.1%', 'NaN')
    """
    if probability is None:
        return "NaN"
    return "<0.1%" if probability < 0.0005 else f"{probability:.1%}"
