"""From a photo to an explanation in one call."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from clarp import models
from clarp.explanation import Explanation
from clarp.greys import deep_photo, notes_of
from clarp.images import as_rgb, open_photo
from clarp.method import Method
from clarp.models import own
from clarp.models.classifier import Classifier, Preprocess
from clarp.output import Output, check_output
from clarp.rules.composites import Composite
from clarp.session import Session
from clarp.targets import Class
from clarp.task import TaskName

PhotoLike = str | PathLike[str] | Image.Image | NDArray[Any]
"""A file, a PIL photo, or an array (H, W) or (H, W, 3) of uint8, or (H, W) of uint16."""


def explain(
    photo: PhotoLike,
    model: str | nn.Module = "efficientnet-lite0",
    *,
    target: Class | Sequence[Class] | None = None,
    against: Class | Sequence[Class] | None = None,
    method: str | Method = "ssglrp",
    composite: str | Composite | None = None,
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
    task: TaskName | None = None,
    weights: str | PathLike[str] | None = None,
    output: Output = None,
) -> Explanation:
    """Explain what a classifier says of one photo.

    Args:
        photo: the path of a file (DICOM too), a PIL photo, or an array of uint8, (H, W) or (H, W, 3), or of
            uint16, (H, W).
        model: a name as of ``clarp explain --model`` ("resnet50", "timm:NAME", "hf:REPO", "model.pt2",
            "file.py:function"), or a module in eval mode. A .pt2 file or a Python file can execute code when
            it is loaded.
        target: the class to explain, by name or number, or several; None: the most probable one.
        against: the classes that it is contrasted with, by name or number; None: those of the task.
        method: as of :class:`clarp.Explainer`.
        composite: likewise.
        preprocess: from the photo (PIL, RGB) to the float tensor (C, H, W) that the model expects. None: the
            model's own where it is known by name; else the usual one for its number of channels, which
            ``e.notes`` says.
        labels: the names of the classes; None: the model's own.
        task: "multiclass", "binary" or "multilabel"; None: as :class:`clarp.Explainer` finds it.
        weights: a file with weights for a model by name: safetensors, a state dict, a checkpoint; None: its
            own.
        output: which of several results of a module or of a file.py:function are the logits, as of
            :class:`clarp.Explainer`.

    Returns:
        The explanation, a batch of one image: its heatmap is (1, H, W), or (1, K, H, W) for K targets.
        ``e.notes`` has what was assumed.

    Raises:
        FileNotFoundError: there is no such photo or model.
        TypeError, ValueError: the photo or an argument is not of its kind; and as :class:`clarp.Explainer`.

    >>> from importlib.resources import files
    >>> photo = files("clarp") / "assets" / "cat_and_coffee.jpg"
    >>> e = explain(photo, target="Egyptian cat", against="espresso")
    >>> e.predictions(1)[0][0].label, e.heatmap.shape
    ('Egyptian cat', torch.Size([1, 224, 224]))
    """
    opened = _opened(photo)
    file = None if weights is None else Path(weights)
    classifier = _classifier(model, file, preprocess, labels, output, task=task)
    session = Session(classifier)
    explainer = session.explainer(method, composite)
    image = _preprocessed(session, opened).to(session.network.device)
    wanted: Any = [target] if isinstance(target, list | tuple) else target
    e = explainer(image.unsqueeze(0), wanted, against)
    seen = session.framing.seen(opened, image.cpu())
    return replace(
        e, assumed=(*classifier.notes, *notes_of(opened)), model=Path(classifier.name).name, photos=(seen,)
    )


def _opened(photo: PhotoLike) -> Image.Image:
    if isinstance(photo, str | PathLike):
        return open_photo(Path(photo))
    if isinstance(photo, Image.Image):
        return as_rgb(ImageOps.exif_transpose(photo))
    if isinstance(photo, np.ndarray) and photo.dtype == np.uint16 and photo.ndim == 2 and photo.size:
        return deep_photo(photo, None, inverted=False)
    if (
        isinstance(photo, np.ndarray)
        and photo.dtype == np.uint8
        and photo.size
        and photo.shape[2:] in ((), (3,))
    ):
        return Image.fromarray(photo).convert("RGB")
    found = type(photo).__name__
    if isinstance(photo, np.ndarray | Tensor):
        found = f"{found} {tuple(photo.shape)} of {photo.dtype}"
    raise TypeError(
        f"photo is a {found}, expected the path of a file, a PIL photo, or an array (H, W) or (H, W, 3) of "
        "uint8, or (H, W) of uint16. A tensor that is preprocessed already goes to "
        "clarp.Explainer(model)(images)."
    )


def _classifier(
    model: str | nn.Module,
    weights: Path | None,
    preprocess: Preprocess | None,
    labels: Sequence[str] | None,
    output: Output,
    *,
    task: TaskName | None,
) -> Classifier:
    check_output(output)
    if isinstance(model, nn.Module):
        if weights is not None:
            raise ValueError(
                f"weights is {str(weights)!r} for a module, which has its own, expected a model by name. "
                "Load them into the module: model.load_state_dict(...)."
            )
        return own.of_module(model, preprocess, labels, output, task=task)
    if not isinstance(model, str):
        raise TypeError(
            f"model is a {type(model).__name__}, expected a name such as 'resnet50', or a torch.nn.Module "
            "in eval mode."
        )
    found = models.load(model, weights, labels, output, task=task)
    if preprocess is None:
        return found
    notes = tuple(note for note in found.notes if not note.startswith("preprocessing:"))
    return replace(found, preprocess=preprocess, notes=notes)


def _preprocessed(session: Session, photo: Image.Image) -> Tensor:
    image = session.preprocessed(photo)
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
        raise ValueError(
            f"the preprocessing returned a {type(image).__name__}, expected a float tensor (C, H, W)."
        )
    return image
