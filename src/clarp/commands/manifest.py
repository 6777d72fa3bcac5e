"""What a run says of itself, and the names of its files."""

import math
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import clarp
from clarp.explanation import Explanation
from clarp.files import shortened
from clarp.method import Method
from clarp.models import Classifier
from clarp.render import Look
from clarp.task import Task, TaskName
from clarp.text import printable

_NAMED = 3  # rivals in a title


def head(classifier: Classifier) -> dict[str, Any]:
    """What every manifest begins with: versions, command and model."""
    return {
        "clarp": clarp.__version__,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "command": shlex.join(["clarp", *sys.argv[1:]]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": classifier.name,
            "classes": len(classifier.labels),
            "weights_sha256": classifier.weights_sha256(),
            "preprocessing": " ".join(repr(classifier.preprocess).split()),
            "notes": list(classifier.notes),
        },
    }


def describe(classifier: Classifier, method: Method, device: torch.device, batch_size: int) -> dict[str, Any]:
    """The head, and the method, composite and bounds of a run of one method."""
    return {
        **head(classifier),
        "method": {"name": method.name, "definition": repr(method)},
        "composite": {"name": method.rules.name, "definition": repr(method.rules)},
        "bounds": _bounds(classifier, method),
        "device": str(device),
        "batch_size": batch_size,
    }


def _bounds(classifier: Classifier, method: Method) -> dict[str, Any]:
    if not method.needs_bounds:
        return {"source": "not used by this composite"}
    if classifier.bounds is None:
        return {"source": "each image's own minima and maxima per channel"}
    low, high = classifier.bounds
    source = "measured: what the preprocessing makes of a black and of a white picture"
    return {"source": source, "low": low.tolist(), "high": high.tolist()}


def described(task: Task | None) -> dict[str, str] | None:
    """The task in a manifest: its name, and how it is known; None where nothing was explained."""
    return None if task is None else {"name": task.name, "source": task.source}


def drawn_as(look: Look) -> dict[str, Any]:
    """How maps were drawn, and in which unit scales are."""
    return {
        **asdict(look),
        "smoothing": look.sigma,
        "unit": "relevance of a pixel of the model's input, summed over its channels, in units of the initial relevance; colour bars are in percent "
        "of the peak",
    }


def named(classifier: Classifier, probabilities: Tensor, index: int) -> dict[str, Any]:
    """A class in a manifest: number, label and probability, of (N,) probabilities."""
    return {
        "class": index,
        "label": classifier.labels[index],
        "probability": finite(float(probabilities[index])),
    }


def caption(
    classifier: Classifier,
    explanation: Explanation,
    target: int,
    probability: float,
    rivals: Sequence[int],
    *more: str,
    colours: tuple[str, str] = ("red", "blue"),
) -> str:
    """What stands with a map: a title, and a line of small print.

    Args:
        classifier: whose decision it is.
        explanation: how it was explained.
        target: the class.
        probability: its probability.
        rivals: the classes that it is contrasted with; empty: those of its task.
        *more: for the small print.
        colours: of what speaks for the class, and of what speaks against it.
    """
    method = explanation.method
    made = f"{method.name.upper()} ({method.rules.name})"
    return titled(
        classifier,
        target,
        probability,
        rivals,
        *more,
        task=explanation.task,
        made=made,
        contrasts=method.has_rivals,
        colours=colours,
    )


def titled(
    classifier: Classifier,
    target: int,
    probability: float,
    rivals: Sequence[int],
    *more: str,
    task: TaskName,
    made: str,
    contrasts: bool,
    colours: tuple[str, str] = ("red", "blue"),
) -> str:
    """The :func:`caption` of a map that need not be an explanation's.

    Args:
        classifier: whose decision it is.
        target: the class.
        probability: its probability.
        rivals: the classes that it is contrasted with; empty: those of its task.
        *more: for the small print.
        task: what the last layer means.
        made: by what the map was made.
        contrasts: whether what made the map contrasts the class with rivals.
        colours: as of :func:`caption`.
    """
    labels = [spoken(classifier, index) for index in (target, *rivals)]
    title = f"{labels[0]} ({percent(finite(probability))})"
    if rivals:
        others = f" and {len(rivals) - _NAMED} more" if len(rivals) > _NAMED else ""
        title += f" against {', '.join(labels[1 : 1 + _NAMED])}{others}"
    elif task == "multiclass" and contrasts:
        title += " against all other classes"
    if task == "binary":
        other = spoken(classifier, 1 - target)
        more = (f"{colours[0]} speaks for {labels[0]}, {colours[1]} for {other}", *more)
    return f"{title}\n{' · '.join(map(printable, [made, Path(classifier.name).name, *more]))}"


def spoken(classifier: Classifier, index: int) -> str:
    """The name of a class in words."""
    return printable(classifier.labels[index].replace("_", " "))


def of_two(names: tuple[str, str], caption: str) -> str:
    """The caption of the picture of two classes, from that of the first class's map."""
    return f"{names[0]} or {names[1]}\n{caption.splitlines()[1]}"


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


def _plain(stem: str) -> str:
    r"""A name that every file system takes and no terminal obeys, with room for what is put behind it.

    >>> _plain("a\nb$'"), _plain("\udcff")
    ("a_b$'", '_')
    """
    kept = "".join(letter if printable(letter) == letter else "_" for letter in stem)
    return shortened(kept[:80], 80)


def output_stems(paths: Iterable[Path]) -> dict[Path, str]:
    """A file name for each photo, without suffix: its own, and a number where that is taken.

    Names that differ only in case count as the same, because they are on some file systems.

    >>> list(output_stems([Path("a/cat.jpg"), Path("b/Cat.png"), Path("dog.jpg")]).values())
    ['cat', 'Cat-2', 'dog']
    """
    stems: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        own = _plain(path.stem)
        stem, number = own, 2
        while stem.casefold() in taken:
            stem, number = f"{own}-{number}", number + 1
        taken.add(stem.casefold())
        stems[path] = stem
    return stems
