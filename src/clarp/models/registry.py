"""Which source a model's name means."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from clarp.models import labels as class_names
from clarp.models.classifier import Classifier
from clarp.output import Output
from clarp.task import TaskName, checked_task

DEFAULT = "efficientnet-lite0"
ONE_OF_MANY: TaskName = "multiclass"
"""The task of the classifiers that are known by name."""
ULTRALYTICS = "ultralytics:"
_WEIGHTS_SUFFIXES = {".pt", ".pth", ".safetensors", ".bin", ".ckpt"}


def names() -> tuple[str, ...]:
    """The names that `load` knows: the embedded model, then torchvision's classifiers.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    from clarp.models import zoo

    return (DEFAULT, *zoo.names())


def program_file(spec: str) -> Path | None:
    """The file of a model that is code or may hold some, which loading executes; None for other models."""
    path, _, _ = spec.rpartition(":")
    if path.endswith(".py"):
        return Path(path)
    if spec.startswith(ULTRALYTICS):
        return Path(spec.removeprefix(ULTRALYTICS))
    return Path(spec) if spec.endswith((".pt2", ".onnx")) else None


def has(spec: str) -> bool:
    """Whether this is a model by name: the embedded one, or one of torchvision's or timm's.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    from clarp.models import timm_zoo

    return spec in names() or timm_zoo.has(spec.removeprefix("timm:"))


def load(
    spec: str,
    weights: Path | None = None,
    labels: Path | Sequence[str] | None = None,
    output: Output = None,
    *,
    task: TaskName | None = None,
    trained: bool = True,
) -> Classifier:
    """Load a classifier with its labels and its preprocessing.

    Args:
        spec: ``"efficientnet-lite0"`` (embedded, no download), the name of a classifier of torchvision or
            timm (``"timm:resnet50"`` where both have it), ``"hf:REPO"`` for one of transformers (a repository
            of the hub, or a folder), ``"ultralytics:FILE"`` for one that ultralytics saved, a ``.pt2`` file,
            an ``.onnx`` file of :func:`clarp.export`, or ``"file.py:function"``. An ultralytics, ``.pt2`` or
            Python file can execute code when it is loaded.
        weights: weights for it, safetensors, a state dict or a training checkpoint, in which nothing is
            executed; None for its default weights.
        labels: the class names, or a text file with one a line; None for the model's own.
        output: which of several results of a function's model are its logits, as of :class:`clarp.Explainer`.
        task: what its last layer means; None: what is known of a model by name, else as the model ends.
        trained: False: a classifier by name needs no weights and gets random ones, without a download; for
            what doesn't depend on them.

    Raises:
        ValueError: the name is unknown (the message has the nearest ones), or something does not fit.
        FileNotFoundError: a file is missing.
        ModuleNotFoundError: a package is missing; the message says how to install it.
        ConnectionError: the weights could not be downloaded.
    """
    found = _loaded(spec, weights, labels, output, task=checked_task(task), trained=trained)
    if found.task == "binary" and len(found.labels) > 2:
        raise ValueError(
            f"the task is binary, and {spec} has {len(found.labels)} classes, expected one logit. Say "
            "multilabel where several of them may be there at once, multiclass where one is."
        )
    return found


def _loaded(
    spec: str,
    weights: Path | None,
    labels: Path | Sequence[str] | None,
    output: Output,
    *,
    task: TaskName | None,
    trained: bool,
) -> Classifier:
    classes = class_names.read(labels) if isinstance(labels, Path) else labels
    path, _, function = spec.rpartition(":")
    if path.endswith(".py"):
        from clarp.models import own

        return own.load_function(Path(path), function, weights, classes, output, task=task)
    if output is not None:
        raise ValueError(
            f"output {output!r} chooses among the results of a file.py:function; leave it out with {spec}."
        )
    if spec.endswith((".pt2", ".onnx")) or spec.startswith(("hf:", ULTRALYTICS)):
        if weights is not None:
            raise ValueError(f"{spec} has its weights inside; leave out --weights {weights}.")
        return _with_weights(spec, classes, task=task, trained=trained)
    if spec == DEFAULT:
        from clarp.models import efficientnet_lite

        return replace(efficientnet_lite.load(weights, classes), task=task or ONE_OF_MANY)
    return replace(_by_name(spec, weights, classes, trained=trained), task=task or ONE_OF_MANY)


def _with_weights(
    spec: str, classes: Sequence[str] | None, *, task: TaskName | None, trained: bool
) -> Classifier:
    """From a file or a repository that has the weights inside."""
    from clarp.models import explained_file, hugging_face, own, ultralytics_file

    if spec.startswith("hf:"):
        return hugging_face.load(spec.removeprefix("hf:"), classes, task=task, trained=trained)
    if spec.startswith(ULTRALYTICS):
        return ultralytics_file.load(Path(spec.removeprefix(ULTRALYTICS)), classes, task=task)
    if explained_file.is_one(Path(spec)):
        return explained_file.load(Path(spec), classes, task=task)
    return own.load_program(Path(spec), classes, task=task)


def _by_name(spec: str, weights: Path | None, labels: Sequence[str] | None, *, trained: bool) -> Classifier:
    from clarp.models import timm_zoo, zoo

    if spec in zoo.names():
        return zoo.load(spec, weights, labels, trained=trained)
    if spec.startswith("timm:") or timm_zoo.has(spec):
        return timm_zoo.load(spec.removeprefix("timm:"), weights, labels, trained=trained)
    raise ValueError(f"unknown model {spec!r}{_remedy(spec)}")


def _remedy(spec: str) -> str:
    if spec.endswith(".py"):
        return f": a Python file needs the function that builds the model, {spec}:FUNCTION."
    if Path(spec).suffix in _WEIGHTS_SUFFIXES:
        return (
            ": weights alone are not a model; say which one they are for, as in --model resnet50 --weights "
            f"{spec}."
        )
    from clarp.models import timm_zoo

    near = get_close_matches(spec, dict.fromkeys((*names(), *timm_zoo.names())), n=4, cutoff=0.5)
    nearest = f"; the nearest names are {', '.join(near)}" if near else ""
    return (
        f"{nearest}. Expected a name from clarp models, timm:NAME, hf:REPO, ultralytics:FILE, a .pt2 "
        "file, an .onnx file of clarp export, or file.py:function."
    )
