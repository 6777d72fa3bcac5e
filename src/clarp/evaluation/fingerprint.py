"""What the numbers of a run depend on, in words and hashes."""

import hashlib
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import clarp
from clarp.models import Classifier


def of_classifier(classifier: Classifier) -> dict[str, str]:
    """Weights, architecture, source file, and what the preprocessing makes of a picture of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    seen = classifier.preprocess(Image.fromarray(noise)).detach().cpu().contiguous()
    return {
        "name": Path(classifier.name).name,  # where a file lies changes nothing
        "weights": classifier.weights_sha256(),
        "architecture": _sha(re.sub(r"0x[0-9a-f]+", "", repr(classifier.module))),
        "source": _source(classifier.name),
        "preprocessing": hashlib.sha256(seen.numpy().tobytes()).hexdigest(),
        "classes": _sha(repr(classifier.labels)),
    }


def of_machine(device: torch.device, *, foreign: bool) -> dict[str, Any]:
    """Device, threads and versions: with others, the last bits of a number are others.

    Args:
        device: where the run computes.
        foreign: whether captum takes part.
    """
    names = ("torch", "numpy", "pillow", *(["captum"] if foreign else []))
    return {
        "device": _device_name(device),
        "threads (OMP_NUM_THREADS)": torch.get_num_threads(),
        "versions": {
            "clarp": clarp.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in names},
        },
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type


def _source(name: str) -> str:
    """The hash of the Python file that built the model, "" where it was not a file."""
    path = Path(name.rpartition(":")[0])
    is_file = path.suffix == ".py" and path.is_file()
    return hashlib.sha256(path.read_bytes()).hexdigest() if is_file else ""


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
