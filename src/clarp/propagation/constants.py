"""A program's constants: the graph's tensors on a device, and the parts of weights that its rules read."""

from collections.abc import Mapping

import torch
from torch import Tensor

from clarp.operations import Convolution, Operation, Resample, WeightedLinear
from clarp.operations.base import in_dtype
from clarp.propagation.plan import Plan
from clarp.rules.parts import Ones, Part, TensorOrFloat

ONEDNN = {torch.float32, torch.bfloat16}
"""The types in which PyTorch's convolutions on a CPU are faster with the channels side by side in memory: 1.5
times for VGG16, 1.2 times for ResNet50."""


class Constants:
    """The graph's tensors in two types, and the parts of weights that rules read.

    Args:
        forward: the tensors by name, as the forward pass reads them.
        back: likewise, as gradients and relevance read them.
        layout: how images and the weights of convolutions lie in memory.

    Attributes:
        forward: as given.
        back: as given.
    """

    def __init__(
        self, forward: Mapping[str, Tensor], back: Mapping[str, Tensor], layout: torch.memory_format
    ) -> None:
        self.forward, self.back = dict(forward), dict(back)
        self._layout = layout
        self._parts: dict[tuple[str, Part], Tensor] = {}

    @classmethod
    def of(cls, plan: Plan, device: torch.device, dtype: torch.dtype, back: torch.dtype) -> "Constants":
        """Those of a plan on a device; each part of a weight is made once."""
        side_by_side = device.type == "cpu" and {dtype, back} <= ONEDNN
        layout = torch.channels_last if side_by_side else torch.contiguous_format
        forward = _loaded(plan, device, dtype, layout)
        found = cls(forward, forward if back == dtype else _loaded(plan, device, back, layout), layout)
        for step in plan:
            operation = step.node.operation
            for part in step.rule.weight_parts(operation, non_negative=step.signs[0]):
                if isinstance(operation, WeightedLinear) and (operation.weight, part) not in found._parts:
                    found._parts[operation.weight, part] = found._part(operation, part)
        return found

    def replaced(self, tensors: Mapping[str, Tensor]) -> "Constants":
        """Others of these names, shapes and types in both types' place; parts are made at each use."""
        return Constants(tensors, tensors, self._layout)

    def laid_out(self, images: Tensor) -> Tensor:
        """Images in the layout of the weights."""
        return _laid_out(images, self._layout)

    def weight(self, operation: Operation, part: Part) -> TensorOrFloat:
        """This part of an operation's weight; of one without a weight, the part of 1."""
        if not isinstance(operation, WeightedLinear):
            return part(1.0)
        prepared = self._parts.get((operation.weight, part))
        return self._part(operation, part) if prepared is None else prepared

    def _part(self, operation: WeightedLinear, part: Part) -> Tensor:
        weight = self.back[operation.weight]
        # A resampling reads what it gives weight to, and not all of the axis that its matrix spans.
        reads = isinstance(operation, Resample) and isinstance(part, Ones)
        made = (weight != 0).to(weight) if reads else part(weight)
        assert isinstance(made, Tensor)
        return made


def _loaded(
    plan: Plan, device: torch.device, dtype: torch.dtype, layout: torch.memory_format
) -> dict[str, Tensor]:
    """The plan's tensors on this device and in this type, convolutions' weights in this layout."""
    convolutions = (step.node.operation for step in plan)
    weights = {c.weight for c in convolutions if isinstance(c, Convolution)}
    tensors = {n: in_dtype(t.to(device), dtype) for n, t in plan.graph.tensors.items()}
    return {n: _laid_out(t, layout) if n in weights else t for n, t in tensors.items()}


def _laid_out(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    return tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor
