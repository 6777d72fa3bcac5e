"""What the numbers of a command depend on, in words and hashes."""

import hashlib
import itertools
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import clarp
from clarp.arguments import EngineName
from clarp.files import file_sha256
from clarp.models import Classifier
from clarp.optional import optional

THREADS = "threads (OMP_NUM_THREADS)"


def of_classifier(classifier: Classifier) -> dict[str, str]:
    """Weights, architecture, source file, and what the preprocessing makes of a picture of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    seen = classifier.preprocess(Image.fromarray(noise)).detach().cpu().contiguous()
    return {
        "name": Path(classifier.name).name,  # where a file lies changes nothing
        "weights": classifier.weights_sha256(),
        "architecture": _architecture(classifier),
        "source": _source(classifier.name),
        "preprocessing": hashlib.sha256(seen.numpy().tobytes()).hexdigest(),
        "classes": _sha(repr(classifier.labels)),
    }


def of_machine(device: torch.device, *, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Device, threads and versions: with others, the last bits of a number are others.

    Args:
        device: where it computes.
        packages: others that take part, such as captum.
    """
    names = ("torch", "numpy", "pillow", *packages)
    return {
        "device": _device_name(device),
        THREADS: torch.get_num_threads(),
        "versions": {
            "clarp": clarp.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in names},
        },
    }


def of_engine(engine: EngineName) -> dict[str, str]:
    """The engine with its version; nothing for PyTorch, which is among the versions.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if engine == "torch":
        return {}
    return {"engine": f"{engine} {optional(engine, f'--engine {engine}', extra='onnx').__version__}"}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each entry that differs.

    >>> changes({"batch size": 8, "limit": None}, {"batch size": 4, "limit": None})
    ['batch size: 8 -> 4']
    """
    lines: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            lines += [f"{name}, {line}" for line in changes(before, after)]
        else:
            one, other = ("nothing" if value is None else str(value) for value in (before, after))
            same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
            start = max(0, len(list(same)) - 30)
            lines.append(f"{name}: {_shown(one, start)} -> {_shown(other, start)}")
    return lines


def differs(what: str, lines: Sequence[str]) -> str:
    """The message for workers that would make other rows; ``lines`` of :func:`changes`."""
    shown = "\n".join(f"  {line}" for line in lines)
    return (
        f"{what}; what differs:\n{shown}\nGive all processes and machines the same model, files and versions."
    )


def compared(theirs: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a worker computes with, if it has the same as this process; devices and threads may differ.

    Raises:
        ValueError: it has another model, or another version of a library.
    """
    free = {"device", THREADS}
    lines = changes(*({k: v for k, v in seen.items() if k not in free} for seen in (own, theirs)))
    if lines:
        raise ValueError(differs("a worker computes with something else than this process", lines))
    return theirs


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type


def _architecture(classifier: Classifier) -> str:
    """The hash of the model's description, or of the file that explains."""
    if classifier.file is not None:
        return file_sha256(Path(classifier.file.path))
    return _sha(re.sub(r"0x[0-9a-f]+", "", repr(classifier.module)))


def _source(name: str) -> str:
    """The hash of the Python file that built the model, "" where it was not a file."""
    path = Path(name.rpartition(":")[0])
    is_file = path.suffix == ".py" and path.is_file()
    return file_sha256(path) if is_file else ""


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _shown(text: str, start: int) -> str:
    """The text, or if it is long the piece of it around the first difference."""
    if len(text) <= 150:
        return text
    return ("... " if start else "") + text[start : start + 120] + (" ..." if start + 120 < len(text) else "")
