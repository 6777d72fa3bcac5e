"""The one place that imports torchvision: ``from clarp.models._torchvision import torchvision``.

torchvision's compiled operations don't load everywhere (a build for CUDA beside a PyTorch for the CPU,
say). The classifiers don't need them, but the import then fails while it describes two detection
operations that were never declared. Declaring their signatures first is all it takes.
"""

from typing import Any

import torch

try:
    import torchvision
except ModuleNotFoundError as error:
    if error.name != "torchvision":
        raise
    raise ModuleNotFoundError(
        'this needs torchvision, which is not installed: pip install "clarp[models]".', name="torchvision"
    ) from error
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    # Kept alive by this module: PyTorch forgets the declarations with the object.
    _library: Any = torch.library.Library
    _declarations = _library("torchvision", "DEF")
    _declarations.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declarations.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
