"""Which source a model's name means."""

from difflib import get_close_matches
from pathlib import Path

from clarp.models.classifier import Classifier

DEFAULT = "efficientnet-lite0"
_WEIGHTS_SUFFIXES = {".pt", ".pth", ".safetensors", ".bin", ".ckpt"}


def names() -> tuple[str, ...]:
    """The names that `load` knows: the embedded model, then torchvision's classifiers.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    from clarp.models import zoo

    return (DEFAULT, *zoo.names())


def load(
    spec: str,
    weights: Path | None = None,
    labels: Path | None = None,
    output: str | None = None,
    *,
    trained: bool = True,
) -> Classifier:
    """Load a classifier with its labels and its preprocessing.

    Args:
        spec: ``"efficientnet-lite0"`` (embedded, no download), the name of a torchvision classifier, a
            ``.pt2`` file, or ``"file.py:function"``.
        weights: weights for it, safetensors or a state dict; None for its default weights.
        labels: a text file with one class name a line; None for the model's own names.
        output: which of several results of a function's model are its logits, a key or a number.
        trained: False: a torchvision classifier needs no weights and gets random ones, without a download; for what
            doesn't depend on them.

    Raises:
        ValueError: the name is unknown (the message has the nearest ones), or something does not fit.
        FileNotFoundError: a file is missing.
        ModuleNotFoundError: a package is missing; the message says how to install it.
        ConnectionError: the weights could not be downloaded.
    """
    classes = None if labels is None else _read_labels(labels)
    path, _, function = spec.rpartition(":")
    if path.endswith(".py"):
        from clarp.models import own

        return own.load_function(Path(path), function, weights, classes, output)
    if output is not None:
        raise ValueError(
            f"--output {output} chooses among the results of a file.py:function; leave it out with {spec}."
        )
    if spec.endswith(".pt2"):
        from clarp.models import own

        if weights is not None:
            raise ValueError(f"{spec} has its weights inside; leave out --weights {weights}.")
        return own.load_program(Path(spec), classes)
    if spec == DEFAULT:
        from clarp.models import efficientnet_lite

        return efficientnet_lite.load(weights, classes)
    if spec not in names():
        raise ValueError(f"unknown model {spec!r}{_remedy(spec)}")
    from clarp.models import zoo

    return zoo.load(spec, weights, classes, trained=trained)


def _remedy(spec: str) -> str:
    if spec.endswith(".py"):
        return f": a Python file needs the function that builds the model, {spec}:FUNCTION."
    if Path(spec).suffix in _WEIGHTS_SUFFIXES:
        return f": weights alone are not a model; say which one they are for, as in --model resnet50 --weights {spec}."
    near = get_close_matches(spec, names(), n=4, cutoff=0.5)
    nearest = f"; the nearest names are {', '.join(near)}" if near else ""
    return f"{nearest}. Expected a name from clarp models, a .pt2 file, or file.py:function."


def _read_labels(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such labels file.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8; expected one class name a line.") from error
    classes = [line.strip() for line in lines]
    while classes and not classes[-1]:
        classes.pop()
    if not classes or not all(classes):
        raise ValueError(f"{path}: expected one class name a line, and no empty lines.")
    return classes
