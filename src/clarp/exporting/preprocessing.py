"""A preprocessing as a few numbers, so that whoever has the file alone can prepare photos."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from clarp.models.classifier import Preprocess
from clarp.models.imagenet import Evaluation, GreyEvaluation

_KINDS: dict[str, type[Evaluation | GreyEvaluation]] = {"colours": Evaluation, "greys": GreyEvaluation}
_TRIED = ((320, 260), (190, 301))
"""Width and height of the pictures on which two preprocessings are compared."""
SAME = 1e-5


def written(preprocess: Preprocess) -> dict[str, Any] | None:
    """The preprocessing as numbers, None where it is none of the usual ones."""
    found = evaluation(preprocess)
    if found is None:
        return None
    kind = next(name for name, known in _KINDS.items() if isinstance(found, known))
    return {"kind": kind, **asdict(found)}


def read(given: Mapping[str, Any]) -> Preprocess:
    """The preprocessing that :func:`written` described.

    Raises:
        KeyError, TypeError: it did not.
    """
    values: dict[str, Any] = {name: v for name, v in given.items() if name != "kind"}
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return _KINDS[given["kind"]](**values)


def evaluation(preprocess: Preprocess) -> Evaluation | GreyEvaluation | None:
    """The usual transform that a preprocessing is, compared on two pictures; None where it is another."""
    if isinstance(preprocess, Evaluation | GreyEvaluation):
        return preprocess
    return next((found for found in _candidates(preprocess) if _alike(found, preprocess)), None)


def resized(preprocess: Evaluation | GreyEvaluation, side: int) -> Evaluation | GreyEvaluation:
    """The same transform to images of another side, and with the same part of the photo."""
    ratio = side / max(preprocess.size)
    return replace(preprocess, resize=round(preprocess.resize * ratio), size=(side, side))


def _candidates(preprocess: Preprocess) -> Iterator[Evaluation]:
    """By the attributes of torchvision's presets, and of chains of its transforms, as timm makes them."""
    steps = list(getattr(preprocess, "transforms", ())) or [preprocess]
    found: dict[str, Any] = {}
    for step in steps:
        name = type(step).__name__
        for mine, theirs in (("mean", "mean"), ("std", "std"), ("interpolation", "interpolation")):
            if hasattr(step, theirs):
                found[mine] = getattr(step, theirs)
        for mine, theirs in (("resize", "resize_size"), ("size", "crop_size")):
            if hasattr(step, theirs):
                found[mine] = getattr(step, theirs)
        if hasattr(step, "size") and name in ("Resize", "CenterCrop"):
            found["resize" if name == "Resize" else "size"] = step.size
    try:
        size = found["size"]
        rows, columns = (size * 2)[:2] if isinstance(size, list | tuple) else (size, size)
        resize = found["resize"]
        short = resize[0] if isinstance(resize, list | tuple) else resize
        mean, std = (tuple(torch.as_tensor(found[name]).flatten().tolist()) for name in ("mean", "std"))
        way = str(getattr(found["interpolation"], "value", found["interpolation"]))
        yield Evaluation(int(short), (int(rows), int(columns)), mean, std, way)
    except (KeyError, TypeError, ValueError):
        return


def _alike(one: Evaluation, other: Preprocess) -> bool:
    drawn = np.random.default_rng(0)
    try:
        for width, height in _TRIED:
            photo = Image.fromarray(drawn.integers(0, 256, (height, width, 3), dtype=np.uint8))
            first, second = one(photo), other(photo)
            if first.shape != second.shape or not torch.allclose(first, second, rtol=0, atol=SAME):
                return False
    except Exception:  # noqa: BLE001  the user's own may raise anything
        return False
    return True
