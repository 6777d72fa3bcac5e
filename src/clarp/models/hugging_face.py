"""Image classifiers of transformers, from the Hugging Face hub or a folder: ``hf:REPO``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from clarp.models import labels as class_names
from clarp.models.classifier import Classifier
from clarp.optional import optional
from clarp.output import LogitsOf
from clarp.task import TaskName


@dataclass(frozen=True, eq=False)
class Processed:
    """A checkpoint's own image processor, as a preprocessing.

    Attributes:
        processor: transformers' image processor.
    """

    processor: Any

    def __call__(self, photo: Image.Image) -> Tensor:
        """An RGB photo to (C, H, W)."""
        pixels: Tensor = self.processor(images=photo, return_tensors="pt")["pixel_values"][0]
        return pixels


def load(
    repo: str, labels: Sequence[str] | None = None, *, task: TaskName | None = None, trained: bool = True
) -> Classifier:
    """Load an image classifier with its image processor. No code of the repository is executed.

    Args:
        repo: a repository of the hub (``microsoft/resnet-50``, downloaded when first used), or a folder that
            ``save_pretrained`` wrote.
        labels: the class names; None for those of its configuration.
        task: what its last layer means; None: what its configuration says (``problem_type``).
        trained: False: random weights, always the same; only the configuration is read.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        FileNotFoundError: there is no such folder.
        ConnectionError: the repository could not be downloaded.
        ValueError: it is no image classifier that transformers knows, its weights are damaged or hold code,
            or the labels don't fit.
    """
    auto = _transformers()
    spec = f"hf:{repo}"
    if repo.startswith(("/", "./", "../", "~")) and not Path(repo).is_dir():
        raise FileNotFoundError(
            f"{spec}: there is no folder {repo}; expected one that save_pretrained wrote."
        )
    try:
        processor = auto.AutoImageProcessor.from_pretrained(repo, trust_remote_code=False)
        if trained:
            model = auto.AutoModelForImageClassification.from_pretrained(repo, trust_remote_code=False)
            notes: tuple[str, ...] = (f"weights: {spec}",)
        else:
            model = _random(auto, repo)
            notes = ("weights: random ones, without a download of them",)
    except OSError as error:
        raise ConnectionError(
            f"{spec} could not be downloaded ({str(error).splitlines()[0]}): give the folder of a checkpoint "
            "(hf:FOLDER), or take the embedded model, which needs no download (--model efficientnet-lite0)."
        ) from error
    except (UnpicklingError, SafetensorError) as error:
        raise ValueError(
            f"{spec}: its weights are damaged, or a pickle that holds more than weights, which is not "
            "loaded, because that may execute code; expected what save_pretrained of transformers writes."
        ) from error
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{spec} is no image classifier that transformers {auto.__version__} knows: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return of_parts(model.eval(), processor, spec, labels, notes, task=task)


def of_parts(
    model: Any,
    processor: Any,
    spec: str,
    labels: Sequence[str] | None = None,
    notes: tuple[str, ...] = (),
    *,
    task: TaskName | None = None,
) -> Classifier:
    """A classifier of a model of transformers, in eval mode, and its image processor.

    Args:
        model: as ``AutoModelForImageClassification`` loads it.
        processor: as ``AutoImageProcessor`` does.
        spec: what it is called.
        labels: the class names; None for those of its configuration.
        notes: what the user should know.
        task: what its last layer means; None: what its configuration says.

    Raises:
        ValueError: the labels don't fit.
    """
    own = [str(model.config.id2label[k]) for k in range(model.config.num_labels)]
    classes, _ = class_names.of_classes(own if labels is None else labels, len(own), spec, task)
    return Classifier(spec, LogitsOf(model, "logits"), classes, Processed(processor), notes, task)


def _random(auto: Any, repo: str) -> Any:
    config = auto.AutoConfig.from_pretrained(repo, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return auto.AutoModelForImageClassification.from_config(config, trust_remote_code=False)


def _transformers() -> Any:
    from clarp.models import _torchvision  # noqa: F401  makes transformers' import of it work

    return optional("transformers", "A model of Hugging Face", "transformers")
