"""Interpolations with weights of either sign (products with constant matrices, one along each axis), and folding."""

from typing import Any

import torch
from torch import Tensor

from clarp.capture.lowering.call import Call, Lowered, Refused, lowers
from clarp.operations import Fold, Resample

aten = torch.ops.aten


@lowers(
    aten.upsample_bicubic2d.vec,
    aten._upsample_bicubic2d_aa.vec,  # noqa: SLF001  an ATen name
    aten._upsample_bilinear2d_aa.vec,  # noqa: SLF001  an ATen name
)
def _resample(call: Call) -> Lowered:
    """As a product with a constant matrix along either axis."""
    x = call.value("input")
    channels, *old = call.shape(x)
    new = call.shape()[1:]
    rows, columns = (call.new(f"weight.{axis}", _matrix(call, axis, old[axis], new[axis])) for axis in (0, 1))
    narrow = call.step(Resample(rows, None, "bchw", "ih", "bciw"), (x,), (channels, new[0], old[1]))
    return Resample(columns, None, "bchw", "jw", "bchj"), (narrow,)


def _matrix(call: Call, axis: int, old: int, new: int) -> Tensor:
    """How the new positions along one axis are made of the old ones, (new, old)."""
    # Two columns, and not one: PyTorch 2.13 resamples a column of width one wrongly where it smooths.
    units = torch.eye(old, dtype=torch.float64)
    pairs = (
        units.view(1, old, old, 1).expand(-1, -1, -1, 2)
        if axis == 0
        else units.view(1, old, 1, old).expand(-1, -1, 2, -1)
    )
    size = [new, 2] if axis == 0 else [2, new]
    given = call["scale_factors"]
    scales = None if given is None else [given[axis] if a == axis else 1.0 for a in (0, 1)]
    target: Any = call.node.target
    resampled: Tensor = target(pairs.contiguous(), None if scales else size, call["align_corners"], scales)
    return resampled.select(3 - axis, 0).view(old, new).t().contiguous()


@lowers(aten.col2im.default)
def _fold(call: Call) -> Lowered:
    """Overlapping windows are added up."""
    arguments = (
        tuple(call[name]) for name in ("output_size", "kernel_size", "dilation", "padding", "stride")
    )
    if len(call.shape(call.value("self"))) != 2:
        raise Refused("its input has no batch axis, expected (B, C, windows)")
    return Fold(*arguments), (call.value("self"),)
