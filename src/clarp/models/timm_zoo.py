"""timm's classifiers by name: weights, labels and preprocessing as timm configures them."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clarp.models import labels as class_names
from clarp.models.checkpoint import read_state
from clarp.models.classifier import Classifier
from clarp.models.weights import load_weights
from clarp.optional import optional


def has(name: str) -> bool:
    """Whether timm is installed and has this architecture, ``resnet18`` or ``resnet18.a1_in1k``."""
    return find_spec("timm") is not None and bool(_timm().is_model(name))


def names() -> tuple[str, ...]:
    """The names of timm's architectures; none where it is not installed."""
    return tuple(_timm().list_models()) if find_spec("timm") is not None else ()


def load(
    name: str, weights: Path | None = None, labels: Sequence[str] | None = None, *, trained: bool = True
) -> Classifier:
    """Load one of timm's classifiers.

    Args:
        name: ``resnet18``, or with the name of its weights, ``resnet18.a1_in1k``.
        weights: a file with its weights; None for timm's own, downloaded when first used.
        labels: the class names, if they are not those of the weights; with ``weights``, their number is the
            number of logits.
        trained: False: random weights, always the same, and no download.

    Raises:
        ModuleNotFoundError: timm is not installed.
        ConnectionError: the weights could not be downloaded.
        FileNotFoundError: there is no such weights file.
        ValueError: timm has no such model or no weights for it, or the weights or the labels don't fit.
    """
    timm = _timm()
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=4, cutoff=0.0)
        raise ValueError(f"timm has no model {name!r}; the nearest of its names are {', '.join(near)}.")
    spec = f"timm:{name}"
    loaded: tuple[str, ...] = ()
    if weights is not None:
        module = _built(name, None if labels is None else len(labels))
        loaded = load_weights(module, read_state(weights), weights.name)
        note = f"weights: {weights}; preprocessing: that of timm's {name}"
    elif trained:
        module = _downloaded(name)
        note = (
            f"weights: timm's {module.pretrained_cfg.get('architecture')}.{module.pretrained_cfg.get('tag')}"
        )
    else:
        module = _built(name, None if labels is None else len(labels))
        note = "weights: random ones, without a download"
    count = int(module.num_classes)
    classes, notes = class_names.of_classes(labels or _own_labels(count), count, spec)
    config = timm.data.resolve_model_data_config(module)
    preprocess = timm.data.create_transform(**config, is_training=False)
    return Classifier(spec, module.eval(), classes, preprocess, (note, *loaded, *notes))


def _timm() -> Any:
    from clarp.models import _torchvision  # noqa: F401  makes timm's import of it work

    optional("timm.data", "A model of timm", "timm")
    return optional("timm", "A model of timm", "timm")


def _built(name: str, classes: int | None) -> Any:
    """The architecture, with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = _timm().create_model(name, pretrained=False, num_classes=classes)
    return module


def _downloaded(name: str) -> Any:
    try:
        return _timm().create_model(name, pretrained=True)
    except OSError as error:
        raise ConnectionError(
            f"the weights of timm's {name} could not be downloaded ({str(error).splitlines()[0]}): give "
            "them as a file (--weights FILE), or take the embedded model, which needs no download (--model "
            "efficientnet-lite0)."
        ) from error
    except RuntimeError as error:  # timm's for a model or a tag without weights
        tagged = _timm().list_pretrained(f"{name.partition('.')[0]}.*")
        those = f"It has weights for {', '.join(tagged)}; or give" if tagged else "Give"
        raise ValueError(f"timm: {error} {those} weights as a file (--weights FILE).") from error


def _own_labels(count: int) -> Sequence[str] | None:
    """The names of the ImageNet subset with so many classes, where it is not the one of 1000."""
    data = _timm().data
    subset = data.infer_imagenet_subset({"num_classes": count})
    if count == 1000 or subset is None:
        return None
    info = data.ImageNetInfo(subset)
    return [info.index_to_description(k) for k in range(count)]
