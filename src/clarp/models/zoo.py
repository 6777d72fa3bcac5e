"""torchvision's classifiers by name: weights, labels and preprocessing from its own weights enums."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clarp.models._torchvision import torchvision
from clarp.models.checkpoint import SavedWeights, read_state
from clarp.models.classifier import Classifier
from clarp.models.weights import load_weights

# The published DenseNet files still have the names of an old release.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def names() -> tuple[str, ...]:
    """The names of torchvision's classifiers."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def load(
    name: str, weights: Path | None = None, labels: Sequence[str] | None = None, *, trained: bool = True
) -> Classifier:
    """Load one of torchvision's classifiers.

    Args:
        name: one of `names`.
        weights: a file with its weights; None for torchvision's default ones, downloaded when first used.
        labels: the class names, if they are not those of the default weights; with ``weights``, their
            number is the number of logits.
        trained: False: random weights in place of the default ones, always the same, and no download.

    Raises:
        ConnectionError: the weights could not be downloaded.
        FileNotFoundError: there is no such weights file.
        ValueError: the weights or the labels don't fit.
    """
    default = torchvision.models.get_model_weights(name).DEFAULT
    classes = tuple(labels or default.meta["categories"])
    loaded: tuple[str, ...] = ()
    if weights is not None:
        module = _built(name, default, len(classes))
        loaded = load_weights(module, _renamed(name, read_state(weights)), weights.name)
        note = (
            f"weights: {weights}; preprocessing and class names (unless given): those of torchvision's "
            f"{default}"
        )
    elif trained:
        module = _downloaded(name, default, len(classes))
        note = f"weights: torchvision's {default}"
    else:
        module = _built(name, default, len(classes))
        note = "weights: random ones, without a download"
    return Classifier(name, module.eval(), classes, default.transforms(), (note, *loaded))


def _downloaded(name: str, default: Any, classes: int) -> nn.Module:
    own = len(default.meta["categories"])
    if classes != own:
        raise ValueError(
            f"{classes} labels were given, but {name} has {own} classes; a model of one's own needs its "
            "weights as well (--weights FILE)."
        )
    try:
        module: nn.Module = torchvision.models.get_model(name, weights=default)
    except OSError as error:
        raise ConnectionError(
            f"the weights of {name} could not be downloaded from {default.url} ({_reason(error)}): give "
            "them as a file (--weights FILE), or take the embedded model, which needs no download (--model "
            "efficientnet-lite0)."
        ) from error
    return module


def _built(name: str, default: Any, classes: int) -> nn.Module:
    """The architecture, with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = torchvision.models.get_model(
            name, weights=None, num_classes=classes, **_arguments(name, default)
        )
    return module


def _arguments(name: str, default: Any) -> dict[str, Any]:
    """What torchvision's own loading of the default weights sets when it builds the model."""
    if name in {"googlenet", "inception_v3"}:
        return {"transform_input": True, "init_weights": False}
    if name.startswith("vgg"):
        return {"init_weights": False}
    if name.startswith("vit"):
        return {"image_size": default.meta["min_size"][0]}
    return {}


def _renamed(name: str, state: SavedWeights) -> SavedWeights:
    if not name.startswith("densenet"):
        return state
    tensors = {_OLD_DENSENET.sub(r"\1\2.", key): value for key, value in state.tensors.items()}
    return SavedWeights(tensors, state.notes)


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error)
