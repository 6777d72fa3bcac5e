"""The lines of Python that make a map again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from clarp.method import BASELINES
from clarp.text import literal

_LINES = """\
from pathlib import Path

import clarp
from clarp.images import open_photo
from clarp.models import load

classifier = load({arguments})
image = classifier.preprocess(open_photo(Path("photo.jpg"))).unsqueeze(0)
explainer = clarp.Explainer(classifier.module, {method}, bounds=classifier.bounds, task=classifier.task)
explanation = explainer(image, target={target}, against={against})  # {what}
heatmap = explanation.heatmap[0]  # (height, width)
"""
_COMPARED = """\
from pathlib import Path

import torch

from clarp.evaluation.baselines import Baseline
from clarp.images import open_photo
from clarp.models import load
from clarp.network import Network

classifier = load({arguments})
image = classifier.preprocess(open_photo(Path("photo.jpg")))
baseline = Baseline.of({method}, Network(classifier.module), image)
heatmap = baseline(image.unsqueeze(0), torch.tensor([{target}]))[0]  # {what}; (height, width)
"""


def recipe(
    model: str,
    method: str,
    target: int,
    against: Sequence[int],
    labels: Sequence[str],
    *,
    options: Mapping[str, Path | str] = MappingProxyType({}),
) -> str:
    """The lines, for a photo called photo.jpg.

    Args:
        model: as on the command line. Of files only the names are told, so the lines run in their folder.
        method: the name of a method or a baseline.
        target: the class explained.
        against: its rivals; empty: those of the task, or nothing where the method has none.
        labels: of all classes.
        options: other arguments of :func:`clarp.models.load`, by name.
    """
    named = [literal(labels[index]) for index in against]
    given = [f"{name}={_argument(value)}" for name, value in options.items()]
    lines = _COMPARED if method in BASELINES else _LINES
    return lines.format(
        arguments=", ".join([literal(Path(model).name), *given]),
        method=literal(method),
        target=target,
        against=list(against) or None,
        what=literal(labels[target]) + (f" against {', '.join(named)}" if named else ""),
    )


def _argument(value: Path | str) -> str:
    return f"Path({literal(value.name)})" if isinstance(value, Path) else literal(value)
