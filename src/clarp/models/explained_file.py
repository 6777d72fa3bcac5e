"""A file that ``clarp export`` wrote, as a classifier: it brings its own explanation."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from clarp.exporting.about import in_program
from clarp.exporting.file import ExplainedFile
from clarp.exporting.preprocessing import read
from clarp.models import labels as class_names
from clarp.models.classifier import Classifier
from clarp.models.own import assumed
from clarp.task import TaskName


class LogitsOfFile(nn.Module):
    """The logits (B, N) of a file; it can't be captured, and so not be explained by other methods.

    Args:
        file: of :func:`clarp.export`.
    """

    def __init__(self, file: ExplainedFile) -> None:
        super().__init__()
        self.file = file
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Run the file with any target."""
        if torch.compiler.is_exporting():
            raise ValueError(f"{self.file.path} is a program, and not a model whose operations can be seen.")
        return self.file.logits(images)


def is_one(file: Path) -> bool:
    """Whether it is such a file by its name, and a ``.pt2`` file by its description."""
    return file.suffix == ".onnx" or (file.suffix == ".pt2" and in_program(file) is not None)


def load(file: Path, labels: Sequence[str] | None = None, *, task: TaskName | None = None) -> Classifier:
    """The classifier in a file of :func:`clarp.export`.

    Args:
        file: ``.onnx`` or ``.pt2``.
        labels: class names in place of those in the file.
        task: must be the file's own, or None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it explains nothing, it is damaged, or the task or the labels are not its own.
        ModuleNotFoundError: ONNX Runtime is not installed; the message says how to install it.
    """
    found = ExplainedFile.open(file)
    about = found.about
    if task not in (None, about.task):
        raise ValueError(
            f"the task is {task!r}, and {file} was exported for {about.task!r}. Leave --task out, or export "
            "the model again."
        )
    notes = about.notes
    if about.preprocessing is None:
        channels, *size = about.input_shape
        remedy = "in Python, clarp.exporting.file.ExplainedFile takes tensors that you have preprocessed"
        preprocess, more = assumed(channels, (size[-2], size[-1]), str(file), remedy)
        notes = (*notes, *more)
    else:
        preprocess = read(about.preprocessing)
    if labels is None and about.labels:
        return Classifier(str(file), LogitsOfFile(found), about.labels, preprocess, notes, about.task, found)
    count = 1 if about.task == "binary" else about.classes
    classes, more = class_names.of_classes(labels, count, str(file), about.task)
    return Classifier(str(file), LogitsOfFile(found), classes, preprocess, (*notes, *more), about.task, found)
