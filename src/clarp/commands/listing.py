"""``clarp models``, ``clarp methods`` and ``clarp plan``: what there is, as text or JSON."""

import json as json_format
import sys
from collections.abc import Iterable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from textwrap import fill
from typing import Any

from PIL import Image

from clarp import models as registry
from clarp.cache import default_folder
from clarp.commands.notes import note
from clarp.explainer import Explainer
from clarp.method import BASELINES, RIVALS, Method
from clarp.method import methods as method_names
from clarp.network import Network
from clarp.table import table
from clarp.task import TaskName

OTHERS = (
    "other models: timm's by their names (timm:NAME where torchvision has it too), transformers' by "
    "repository or folder (hf:REPO), a .pt2 file, file.py:function."
)
_WIDTH = 110
_TRIED = ((320, 320), (480, 400))
"""The sizes of two photos, to see whether images are all of one size."""


def models(*, json: bool) -> None:
    """List the names of the models."""
    names = registry.names()
    _print(list(names), names, json=json)
    if not json:
        note(OTHERS)


def methods(*, json: bool) -> None:
    """List the methods: when to take each, and what it is made of."""
    found = [Method.named(name) for name in method_names()]
    made = [
        {
            "name": method.name,
            "seed": repr(method.seed),
            "selection": ", ".join(f"{s.form}, {s.layers}, {s.gradient}" for s in method.selections)
            or "none",
            "passes": method.passes,
            "composite": method.rules.name,
        }
        for method in found
    ]
    rows = [{**parts, "when": method.when} for method, parts in zip(found, made, strict=True)]
    widest = max(map(len, method_names())) + 2
    when = [
        fill(f"{method.name:{widest}}{method.when}", _WIDTH, subsequent_indent=" " * widest)
        for method in found
    ]
    names, _, *lines = table(made, list(made[0]))
    _print(rows, [*when, "", names, *lines], json=json)
    if not json:
        note(f"baselines, for `clarp compare` and `clarp evaluate` only: {', '.join((*BASELINES, *RIVALS))}.")


def plan(
    model: str,
    weights: Path | None,
    labels: Path | None,
    method: str,
    composite: str | None,
    *,
    output: str | None = None,
    task: TaskName | None = None,
    json: bool,
) -> None:
    """Print which rule every operation of a model gets, for photos of the model's size."""
    with redirect_stdout(sys.stderr) if json else nullcontext():
        classifier = registry.load(model, weights, labels, output, task=task, trained=False)
        for assumed in classifier.notes:
            note(assumed)
        classifier.check_is_model()
        network = Network(classifier.module, cache=default_folder())
        explainer = Explainer(network, method, composite=composite, bounds=classifier.bounds)
        shape, other = (tuple(classifier.preprocess(Image.new("RGB", size)).shape) for size in _TRIED)
        if other != shape:
            note(
                f"the preprocessing gives images of several sizes: this is the plan for a photo of "
                f"{_TRIED[0][0]} x {_TRIED[0][1]}, which becomes {' x '.join(map(str, shape))}."
            )
        found = explainer.plan(shape)
    usual = Method.named(method).with_composite(composite).rules.name
    if not json and found.composite.name != usual:
        note(f"in this model {method} has the composite {found.composite.name} in place of {usual}.")
    _print(found.rows(), [str(found)], json=json)


def _print(document: Any, lines: Iterable[str], *, json: bool) -> None:
    text = json_format.dumps(document, indent=2, ensure_ascii=False) if json else "\n".join(lines)
    sys.stdout.write(text + "\n")
