"""A model's logits and probabilities, also where it ends in a softmax or a sigmoid."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clarp.errors import CaptureError
from clarp.network import Network
from clarp.output import in_rows
from clarp.task import Binary, Multiclass, Task, TaskName, task_of


@dataclass(frozen=True, eq=False)
class Logits:
    """Images (B, C, H, W) to logits (B, N), without gradients.

    A softmax or sigmoid at the model's end is undone, so the probabilities are those of an explanation, up to
    rounding.

    Attributes:
        model: the model itself.
        inverse: from what it returns (B, C) to logits (B, N).
        task: what its logits mean.
    """

    model: nn.Module
    inverse: Callable[[Tensor], Tensor]
    task: Task

    @classmethod
    def of(cls, model: nn.Module, network: Network, image: Tensor, task: TaskName | None = None) -> "Logits":
        """Read from the captured graph how the model ends; without a graph, it is taken to return logits.

        Args:
            model: returns (B, N), or (B,) for one logit.
            network: the same model; it is captured for the image's size if it was not yet.
            image: (C, H, W) as the model will see it.
            task: as of :class:`clarp.Explainer`.

        Raises:
            ValueError: it is in train mode, refuses the image, or can't have that task.
        """
        network.check_mode()
        dtype = torch.promote_types(network.dtype or image.dtype, torch.float32)  # as an explainer's
        try:
            graph = network.graph(tuple(image.shape), dtype)
        except CaptureError:
            source = "assumed: the model can't be captured"
            with torch.no_grad():
                count = in_rows(model(image[None].to(network.device))).shape[1]
            found = Binary(source) if count == 1 else Multiclass(source, count)
            return cls(model, _unchanged, found)
        return cls(model, graph.inverse(), task_of(graph, task, network.task))

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, N) where the images are."""
        with torch.no_grad():
            return self.inverse(in_rows(self.model(images)))

    def scores(self, images: Tensor) -> Tensor:
        """A value for each class, (B, classes): the greater, the more probable."""
        return self.task.scores(self(images))

    def probabilities(self, images: Tensor) -> Tensor:
        """Of each class as the task has it, (B, classes) float64 on the CPU."""
        return self.task.probabilities(self(images).to("cpu", torch.float64))


def _unchanged(output: Tensor) -> Tensor:
    return output
