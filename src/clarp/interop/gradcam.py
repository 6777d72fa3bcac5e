"""An explainer in the place of a CAM of pytorch-grad-cam: its targets in, its kind of map out."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clarp.explainer import Explainer
from clarp.interop.strength import strengths
from clarp.targets import Against

_OF_A_CLASS = (
    "ClassifierOutputTarget",
    "ClassifierOutputSoftmaxTarget",
    "ClassifierOutputReST",
    "BinaryClassifierOutputTarget",
)


class RelevanceCAM:
    """An explainer that is called as pytorch-grad-cam's classes are; it needs no layer, and sets no hook.

    Args:
        explainer: is shared, and so are its captured graphs.

    Example:
        >>> import clarp, torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5)).eval()
        >>> with RelevanceCAM(clarp.Explainer(model, "lrp")) as cam:
        ...     cam(input_tensor=torch.rand(2, 3, 4, 4), targets=None).shape
        (2, 4, 4)
    """

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self.outputs: Tensor | None = None

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Any] | None = None,
        *,
        against: Against = None,
    ) -> NDArray[np.float32]:
        """What speaks for the classes, as ``show_cam_on_image`` takes it.

        Args:
            input_tensor: images (B, C, H, W).
            targets: one for each image, ``ClassifierOutputTarget(281)`` or another of pytorch-grad-cam's
                targets of one class; None: the most probable classes.
            against: the classes that the targets are contrasted with; None: those of the task.

        Returns:
            (B, H, W) within 0 to 1: the positive relevance, in units of what clarp draws in full colour. What
            speaks against a class is 0 here. The logits are in ``outputs`` afterwards.

        Raises:
            TypeError: a target that is none of one class.
            ValueError: another number of targets than images; and as :class:`clarp.Explainer`.
        """
        classes = None if targets is None else [_class_of(target) for target in targets]
        explanation = self.explainer(input_tensor, classes, against)
        self.outputs = explanation.logits
        return strengths(explanation).clip(min=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There are no hooks to remove, and errors go on."""


def _class_of(target: Any) -> int:
    name = type(target).__name__
    if name not in _OF_A_CLASS:
        raise TypeError(
            f"a target is a {name}, expected one that names a class: {', '.join(_OF_A_CLASS)}. Relevance "
            "starts at the logits, so functions of other outputs can't be explained."
        )
    return int(target.category)
