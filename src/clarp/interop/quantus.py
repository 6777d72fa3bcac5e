"""An explainer as the ``explain_func`` of Quantus: of arrays, and of whatever model Quantus hands over."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clarp.explainer import Explainer
from clarp.network import Network
from clarp.targets import Against


class ExplainFunction:
    """An explainer as Quantus calls one: ``metric(model, x, y, explain_func=ExplainFunction(explainer))``.

    Metrics that randomise parameters hand over changed copies of the model. They are explained in the same
    way, and captured anew after each change.

    Args:
        explainer: is shared, and so are its captured graphs.

    Example:
        >>> import clarp
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval()
        >>> explain = ExplainFunction(clarp.Explainer(model, "lrp"))
        >>> explain(model, np.random.rand(2, 3, 4, 4).astype("float32"), np.array([1, 4])).shape
        (2, 3, 4, 4)
    """

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = self._last = explainer

    def __call__(
        self,
        model: nn.Module,
        inputs: NDArray[Any],
        targets: NDArray[Any],
        *,
        against: Against = None,
        **_: object,
    ) -> NDArray[Any]:
        """The relevance of the images.

        Args:
            model: as Quantus hands it over.
            inputs: images (B, C, H, W).
            targets: their classes (B,).
            against: from ``explain_func_kwargs``; the classes that the targets are contrasted with.
            **_: what Quantus adds of its own, such as the device.

        Returns:
            (B, C, H, W), of the type of the images.

        Raises:
            ValueError: as :class:`clarp.Explainer`.
        """
        explainer = self._of(model)
        parameter = next(model.parameters(), None)
        images = torch.as_tensor(inputs)
        images = images.float() if parameter is None else images.to(parameter)
        relevance = explainer(images, torch.as_tensor(targets).long().view(-1), against).relevance
        return np.asarray(relevance.cpu(), dtype=inputs.dtype)

    def _of(self, model: nn.Module) -> Explainer:
        if model is not self._last.network.model:
            self._last = copy.copy(self.explainer)
            self._last.network = Network(model, self.explainer.network.output)
        return self._last
