"""The names of a model's classes: from a file, from the model, or ImageNet's."""

from collections.abc import Sequence
from pathlib import Path

from clarp.task import Binary, TaskName


def read(path: Path) -> list[str]:
    """Class names from a text file, one a line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text in UTF-8, or has empty lines.
    """
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


def of_classes(
    labels: Sequence[str] | None, count: int, spec: str, task: TaskName | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A name for each of a model's classes, and notes of what was assumed.

    Args:
        labels: what is known; None: ImageNet's names for 1000 classes, else numbers. One name of two classes
            is that of class 1.
        count: how many columns the model returns; one is two classes, unless it is a single finding of a
            multi-label model.
        spec: the model, for messages.
        task: what the last layer means, if known.

    Raises:
        ValueError: there are more or fewer labels than classes.
    """
    classes = 2 if count == 1 and task != "multilabel" else count
    if labels is not None:
        if len(labels) == 1 and classes == 2 and task != "multilabel":
            return Binary("").labels(labels), ()
        if len(labels) != classes:
            given = "1 label was" if len(labels) == 1 else f"{len(labels)} labels were"
            both = (
                "; it has one logit: name class 0 (it is not so) and class 1, or class 1 alone"
                if (count, classes) == (1, 2)
                else ""
            )
            raise ValueError(f"{spec} has {classes} classes, but {given} given{both}.")
        return tuple(map(str, labels)), ()
    if classes == 1000:
        from clarp.models import imagenet

        return imagenet.labels(), ("labels: ImageNet's were assumed",)
    return tuple(f"class {k}" for k in range(classes)), (
        "labels: none were given, so the classes have numbers only",
    )
