"""Integrals of gradients along a path from no image to the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clarp.evaluation.baselines import checked_module, copied
from clarp.method import RIVALS
from clarp.models.logits import Logits
from clarp.network import Network
from clarp.output import LogitsOf
from clarp.task import TaskName

_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class DecisionGradients:
    """IDGI on the straight path from zeros: each step's change, shared by squared gradients.

    ``R_i = sum_j (f(x_j+1) - f(x_j)) g_ij^2 / sum_i' g_i'j^2`` with the path ``x_j = j / n x``, ``g_ij =
    df(x_j) / dx_ij``, f the target's probability and n = 50 steps (Yang, Wang and Bilgic, CVPR 2023, arXiv
    2303.14242, algorithm 1), summed over the channels. A step without any gradient is left out.
    Where every step has one, the map sums to ``f(x) - f(0)``.

    Bias: squares have no sign, so within a step all pixels get the same one, and a map has almost nothing
    that speaks against the class. Zeros are the mean colour of normalised photos, so pixels of that colour
    have no path and yet get a share. It costs 51 forward and backward passes.

    Attributes:
        name: ``idgi``.
        network: the model.
        task: what the last layer means; None: as the model ends.
        module: a copy of the model without in-place operations.
        steps: n.
    """

    name: str
    network: Network
    task: TaskName | None
    module: LogitsOf
    steps: int = 50
    coarse: bool = False
    layered: bool = False

    @classmethod
    def of(cls, name: str, network: Network, task: TaskName | None = None) -> "DecisionGradients":
        """For a captured model, which is copied.

        Raises:
            TypeError: the model is an exported program.
        """
        return cls(name, network, task, LogitsOf(copied(checked_module(name, network)), network.output))

    @property
    def definition(self) -> str:
        return f"{self.name}: {RIVALS[self.name]}, task {self.task}"

    def on(self, network: Network) -> "DecisionGradients":
        return self.of(self.name, network, self.task)

    def __call__(self, images: Tensor, targets: Tensor, ids: Sequence[str] = ()) -> Tensor:
        """Heatmaps (B, H, W) of images (B, C, H, W) for targets (B,); the ids are not used."""
        del ids
        assert isinstance(self.network.model, nn.Module)  # it was copied
        said = Logits.of(self.network.model, self.network, images[0], self.task)
        return torch.stack(
            [self._map(said, image, int(target)) for image, target in zip(images, targets, strict=True)]
        )

    def _map(self, said: Logits, image: Tensor, target: int) -> Tensor:
        shares = torch.arange(self.steps + 1, dtype=image.dtype, device=image.device) / self.steps
        values, squares = [], []
        for part in shares.split(_AT_ONCE):
            with torch.enable_grad():
                points = (part.view(-1, *(1,) * image.ndim) * image).requires_grad_()
                returned = self.module(points)
                assert isinstance(returned, Tensor)
                f = said.task.probabilities(said.inverse(returned))[:, target]
                (gradient,) = torch.autograd.grad(f.sum(), points)
            values.append(f.detach())
            squares.append(gradient.square())
        changes, weights = torch.cat(values).diff(), torch.cat(squares)[:-1]
        sums = weights.flatten(1).sum(1)
        factors = torch.where(sums > 0, changes / sums.where(sums > 0, 1), 0)
        return torch.einsum("s,schw->hw", factors, weights)
