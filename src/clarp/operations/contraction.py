"""Sums of products of a value with a constant, in Einstein's notation; interpolations along each axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Size, Tensor

from clarp.operations.average import AveragePool, Interpolate
from clarp.operations.base import Tensors
from clarp.operations.call import Call, Lowered, Value, lowers
from clarp.operations.linear import Weight, WeightedLinear

aten = torch.ops.aten


@dataclass(frozen=True)
class Contraction(WeightedLinear):
    """``torch.einsum`` of a value x and a constant w: one matrix for all positions, or one for each.

    Attributes:
        value: the letters of x's axes, the batch's first.
        constant: the letters of w's axes.
        result: the letters of the output's axes, the batch's first; each letter of x is here or in
            ``constant``.
    """

    rule: ClassVar[str] = "dense"
    value: str
    constant: str
    result: str

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return self.apply(inputs[0], tensors[self.weight]), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        return torch.einsum(f"{self.value},{self.constant}->{self.result}", x, weight)

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        return torch.einsum(f"{self.result},{self.constant}->{self.value}", r, weight)


@dataclass(frozen=True)
class Resample(Contraction):
    """New positions along one axis, each a mean of the old ones near it: an image in another size."""

    rule: ClassVar[str] = "average"
    rule_at_pixels: ClassVar[str | None] = "first"


RESIZING = (AveragePool, Interpolate, Resample)
"""What makes an image of another size: its pixels are pixels still."""


@lowers(
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.vec,
    aten.upsample_bicubic2d.vec,
    aten._upsample_bicubic2d_aa.vec,  # noqa: SLF001  an ATen name
    aten._upsample_bilinear2d_aa.vec,  # noqa: SLF001  an ATen name
    batch="channels",
)
def _resample(call: Call) -> Lowered:
    """It becomes a product with a constant matrix along each axis.

    It is dropped where the size stays the same.
    """
    x = call.value("input")
    old, new = call.shape(x), call.shape()
    value: Value = x
    axes = "dhw"[4 - len(old) :]
    steps: list[Resample] = []
    for axis, letter in enumerate(axes):
        name = call.new(f"weight.{axis}", _matrix(call, axis, old[1:], new[1:]))
        steps.append(Resample(name, None, f"bc{axes}", f"i{letter}", f"bc{axes.replace(letter, 'i')}"))
    for axis, operation in enumerate(steps[:-1]):
        value = call.step(operation, (value,), (*new[: axis + 2], *old[axis + 2 :]))
    return steps[-1], (value,)


def _matrix(call: Call, axis: int, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """How the new positions along one axis are made of the old ones, (new, old)."""
    # Two columns, and not one: PyTorch 2.13 resamples a column of width one wrongly where it smooths.
    n, axes = old[axis], len(old)
    others = tuple(2 for _ in range(axes - 1))
    units = torch.eye(n, dtype=torch.float64, device="cpu").view(1, n, n, *(1,) * (axes - 1))
    pixels = units.expand(1, n, n, *others).movedim(2, axis + 2)
    size = [new[a] if a == axis else 2 for a in range(axes)]
    given = call["scale_factors"]
    scales = None if given is None else [given[axis] if a == axis else 1.0 for a in range(axes)]
    target: Any = call.node.target
    resampled: Tensor = target(pixels.contiguous(), None if scales else size, call["align_corners"], scales)
    rows = resampled.movedim(axis + 2, 2).reshape(n, new[axis], -1)[..., 0]
    return rows.t().contiguous()
