"""A model's logits, also where it ends in a softmax or sigmoid and returns something else."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clarp.capture.link import Link, undone
from clarp.errors import CaptureError
from clarp.network import Network


@dataclass(frozen=True, eq=False)
class Logits:
    """Images (B, C, H, W) to logits (B, N), without gradients; what the model does to them at its very end is undone.

    So its probabilities are those of an explanation, up to rounding.

    Attributes:
        model: what is asked.
        link: what it ends in, None for nothing.
    """

    model: nn.Module
    link: Link | None

    @classmethod
    def of(cls, model: nn.Module, network: Network, image: Tensor) -> "Logits":
        """Look at the captured graph for what the model ends in; for one that can't be captured, that is nothing.

        Args:
            model: returns (B, N).
            network: the same model; it is captured for the image's size if it was not yet.
            image: (C, H, W) as the model will see it.

        Raises:
            ValueError: it is in train mode, or refuses the image.
        """
        network.check_mode()
        dtype = torch.promote_types(network.dtype or image.dtype, torch.float32)  # as an explainer's
        try:
            link = network.graph(tuple(image.shape), dtype).link
        except CaptureError:
            link = None
        return cls(model, link)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, N) where the images are."""
        with torch.no_grad():
            output: Tensor = self.model(images)
        return output if self.link is None else undone(self.link, output)

    def probabilities(self, images: Tensor) -> Tensor:
        """The softmax of the logits, (B, N) float64 on the CPU."""
        return self(images).to("cpu", torch.float64).softmax(dim=1)
