"""The user's own models: a Python function that builds one, or an exported ``.pt2`` file."""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from clarp.errors import CaptureError
from clarp.models import labels as class_names
from clarp.models.checkpoint import read_state
from clarp.models.classifier import Classifier, Preprocess
from clarp.models.weights import load_weights
from clarp.network import load_exported
from clarp.output import LogitsOf, Output, assumption, in_rows, pick, settled
from clarp.task import TaskName

_ASSUMED = (
    "preprocessing: {usual} was assumed (shorter side to {resize}, middle {height} x {width}, {scale}); if "
    "it was trained with another, {remedy}"
)
_ASSUMED_OF = {
    3: ("ImageNet's usual one", "ImageNet's mean and deviation"),
    1: (
        "one for greys, because the model takes 1 channel,",
        "0 for black to 1 for white, no mean or deviation",
    ),
}
"""By the number of channels."""
_SIDE = 224  # of models for any size
_UNTRAINED = (
    "weights: none were given, and the model's norms are as they begin, so it looks untrained; name their "
    "file (--weights), or load them in the function"
)
_BATCH_NORM = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  PyTorch's only name for all of them
_NORMS = (_BATCH_NORM, nn.LayerNorm, nn.GroupNorm)


def load_function(
    file: Path,
    function: str,
    weights: Path | None = None,
    labels: Sequence[str] | None = None,
    output: Output = None,
    *,
    task: TaskName | None = None,
) -> Classifier:
    """Build a model with a function from a Python file, which is executed.

    If the file also has ``preprocess`` (RGB photo to a float tensor (C, H, W)) and ``labels`` (a list, or a
    function that returns one), they are used. Else ImageNet's are assumed, and the notes say so; for a model
    of one channel greys from 0 to 1.

    Args:
        file: the Python file; modules beside it can be imported from it.
        function: its name in the file; called without arguments, returns the model in eval mode.
        weights: a file with weights to put into the model; None if the function does that itself, and a note
            says so where it evidently doesn't.
        labels: class names that take precedence over the file's.
        output: which of several results of the model are its logits, as of :class:`clarp.Explainer`; a
            number may be written in digits.
        task: what the last layer means; None: as the model ends.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or the function fails, or what it returns can't be used.
        TypeError: the function does not return a module.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such Python file.")
    spec = f"{file}:{function}"
    with _importable(file.parent):
        source = _imported(file)
        build = getattr(source, function, None)
        if build is None:
            near = get_close_matches(function, [name for name in vars(source) if not name.startswith("_")])
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise ValueError(f"{file} has no function {function!r}{hint}")
        module = _called(spec, build)
        own_labels = getattr(source, "labels", None)
        if labels is None and own_labels is not None:
            labels = _called(f"{file}:labels", own_labels) if callable(own_labels) else own_labels
    if not isinstance(module, nn.Module):
        raise TypeError(f"{spec} returned a {type(module).__name__}, expected a torch.nn.Module.")
    if module.training:
        raise ValueError(f"{spec} returned a model in training mode, expected return model.eval().")
    if weights is not None:
        loaded = load_weights(module, read_state(weights), weights.name)
    else:
        loaded = (_UNTRAINED,) if _looks_untrained(module) else ()
    chosen = int(output) if isinstance(output, str) and output.isdecimal() else output
    preprocess = getattr(source, "preprocess", None)
    remedy = (
        f"write preprocess(photo), which returns the float tensor (C, H, W) of a PIL photo, into {file.name}"
    )
    found = of_module(module, preprocess, labels, chosen, task=task, spec=spec, remedy=remedy)
    return replace(found, notes=(*loaded, *found.notes))


def of_module(
    module: nn.Module,
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
    output: Output = None,
    *,
    task: TaskName | None = None,
    spec: str | None = None,
    remedy: str = "pass preprocess=, a function of a PIL photo that returns the float tensor (C, H, W)",
) -> Classifier:
    """A classifier of a module.

    Args:
        module: in eval mode.
        preprocess: None: assumed by the number of channels that it takes, and noted.
        labels: the class names; None for ImageNet's if there are 1000 classes, else numbers.
        output: which of several results of the model are its logits; None for the only tensor, or the one
            called "logits".
        task: what the last layer means; None: as the model ends.
        spec: what it is called; None: the name of its class.
        remedy: what to do where no preprocessing can be assumed.

    Raises:
        ValueError: it fails on a black picture, or what it returns, or the labels, can't be used.
    """
    spec = type(module).__name__ if spec is None else spec
    notes: tuple[str, ...] = ()
    if preprocess is None:
        preprocess, notes = assumed(_channels(module, spec, remedy), (_SIDE, _SIDE), spec, remedy)
    count, alone, output, chosen = _outputs(module, preprocess, spec, output)
    classes, label_notes = class_names.of_classes(labels, count, spec, task)
    module = module if alone else LogitsOf(module, output)
    return Classifier(spec, module, classes, preprocess, (*notes, *chosen, *label_notes), task)


def load_program(
    file: Path, labels: Sequence[str] | None = None, *, task: TaskName | None = None
) -> Classifier:
    """Load a model that ``torch.export.save`` wrote; it takes photos of the size it was exported with.

    Loading can execute code that is in the file.

    Args:
        file: the ``.pt2`` file.
        labels: the class names; None for ImageNet's if there are 1000 classes, else numbers.
        task: what the last layer means; None: as the program ends.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an exported program, or not one from one image tensor to one tensor of logits.
    """
    program = load_exported(file)
    values: dict[str, Any] = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = [values[name] for name in program.graph_signature.user_inputs if isinstance(name, str)]
    outputs = [values[name] for name in program.graph_signature.user_outputs if isinstance(name, str)]
    taken, returned = ([_dimensions(value) for value in several] for several in (inputs, outputs))
    if taken != [4] or returned not in ([1], [2]):
        remedy = (
            " For volumes, clips, views and signals: clarp.Explainer(torch.export.load(file))(tensor) in "
            "Python."
        )
        raise ValueError(
            f"{file}: expected a program from one tensor (B, C, H, W) to logits (B, N), or (B,) for "
            f"one.{remedy if taken in ([3], [5]) else ''}"
        )
    channels, height, width = inputs[0].shape[1:]
    if not (isinstance(height, int) and isinstance(width, int)):
        height = width = _SIDE  # a program for any size
    remedy = "in Python, clarp.Explainer(torch.export.load(file)) takes tensors that you have preprocessed"
    preprocess, notes = assumed(
        channels if isinstance(channels, int) else 3, (height, width), str(file), remedy
    )
    count = int(outputs[0].shape[1]) if outputs[0].ndim == 2 else 1
    classes, label_notes = class_names.of_classes(labels, count, str(file), task)
    return Classifier(str(file), program, classes, preprocess, notes + label_notes, task)


def _dimensions(value: Any) -> int | None:
    return value.ndim if isinstance(value, Tensor) else None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _imported(file: Path) -> ModuleType:
    name = f"clarp_own_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file}: not a Python file.")
    source = importlib.util.module_from_spec(spec)
    sys.modules[name] = source  # dataclasses and pickle look their module up there
    _called(str(file), spec.loader.exec_module, source)
    return source


def _called(what: str, function: Any, *arguments: Any) -> Any:
    try:
        try:
            return function(*arguments)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            import clarp.models._torchvision  # noqa: F401  makes the import of torchvision work

            return function(*arguments)
    except Exception as error:  # the user's code may raise anything
        raise ValueError(f"{what} failed with {type(error).__name__}: {error}") from error


def _looks_untrained(module: nn.Module) -> bool:
    """Whether all norms scale by one and shift by zero, as before training; False without norms."""
    norms = [layer for layer in module.modules() if isinstance(layer, _NORMS) and layer.weight is not None]
    return bool(norms) and all(
        bool((layer.weight == 1).all()) and not (layer.bias is not None and bool(layer.bias.any()))
        for layer in norms
    )


def _channels(module: nn.Module, spec: str, remedy: str) -> int:
    """How many channels a model takes, by trial: 3, else 1, else those of its first convolution.

    The first layer does not tell: a model may change the number of channels before it.
    """
    declared = [
        layer.in_channels for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    failures: dict[int, Exception] = {}
    for channels in dict.fromkeys((3, 1, *declared[:1], 2, 4)):
        try:
            with torch.no_grad():
                module(torch.zeros(1, channels, _SIDE, _SIDE))
        except Exception as error:  # noqa: BLE001  the user's model may raise anything
            failures[channels] = error
        else:
            return channels
    channels = declared[0] if declared else 3
    failure = failures[channels]
    _check_axes(module, spec, failure)
    raise ValueError(
        f"{spec} failed on an image ({channels}, {_SIDE}, {_SIDE}) with {type(failure).__name__}: "
        f"{failure}. If it takes images of another size, {remedy}."
    ) from failure


def _check_axes(module: nn.Module, spec: str, failure: Exception) -> None:
    """Refuse a model whose first convolution is over one or three axes, once it failed on a photo."""
    kinds = {nn.Conv3d: "volumes or clips (B, C, D, H, W)", nn.Conv1d: "signals (B, C, L)", nn.Conv2d: ""}
    first = next((layer for layer in module.modules() if isinstance(layer, tuple(kinds))), None)
    takes = "" if first is None else next(words for kind, words in kinds.items() if isinstance(first, kind))
    if takes:
        raise ValueError(
            f"{spec} takes {takes}: its first convolution is a {type(first).__name__}, and only photos can "
            "be given here. In Python, clarp.Explainer(model)(tensor) explains it."
        ) from failure


def assumed(
    channels: int, size: tuple[int, int], spec: str, remedy: str
) -> tuple[Preprocess, tuple[str, ...]]:
    """A default preprocessing for so many channels, and a note of it."""
    from clarp.models import imagenet

    if channels not in _ASSUMED_OF:
        raise ValueError(
            f"{spec} takes images of {channels} channels, and for want of its own preprocessing one is "
            f"assumed for 3 (colours) and for 1 (greys) only: {remedy}."
        )
    usual, scale = _ASSUMED_OF[channels]
    resize = max(size) * 8 // 7
    note = _ASSUMED.format(
        usual=usual, resize=resize, height=size[0], width=size[1], scale=scale, remedy=remedy
    )
    grey = channels == 1
    return imagenet.GreyEvaluation(resize, size) if grey else imagenet.preprocessing(size), (note,)


def _outputs(
    module: nn.Module, preprocess: Preprocess, spec: str, output: Output
) -> tuple[int, bool, Output, tuple[str, ...]]:
    """From one forward pass of a black picture.

    Returns:
        How many logits, whether they are all results, which results they are, and a note of what was assumed
        of that.
    """
    image = _called("preprocess", preprocess, Image.new("RGB", (320, 320)))
    if not (isinstance(image, Tensor) and image.ndim == 3 and image.is_floating_point()):
        tensor = isinstance(image, Tensor)
        got = f"a tensor {tuple(image.shape)} of {image.dtype}" if tensor else type(image).__name__
        raise ValueError(f"preprocess of {spec} returned {got}, expected a float tensor (C, H, W).")
    with torch.no_grad():
        try:
            result = _called(spec, module, image[None])
        except ValueError as error:
            _check_axes(module, spec, error)
            raise
    try:
        named, output = output is not None, settled(result, output)
        logits = pick(result, output)
    except CaptureError as error:
        message = str(error).replace(", Explainer(model, output=...): ", ": ").replace("output=", "--output ")
        raise ValueError(f"{spec}: {message}") from error
    rows = in_rows(logits) if isinstance(logits, Tensor) and logits.shape[:1] == (1,) else logits
    if not (isinstance(rows, Tensor) and rows.ndim == 2):
        got = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model of {spec} returned {got}, expected logits (B, N), or (B,) for one.")
    note = "" if named else assumption(result, output)
    return rows.shape[1], rows is result, output, (note,) if note else ()
