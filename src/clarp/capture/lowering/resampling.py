"""Interpolations with weights of either sign (products with constant matrices, one along each axis), and folding."""

from typing import Any

import torch
from torch import Tensor

from clarp.capture.lowering.call import Call, Lowered, Refused, Value, channelwise, lowers
from clarp.operations import Fold, Resample

aten = torch.ops.aten


@lowers(
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.vec,
    aten.upsample_bicubic2d.vec,
    aten._upsample_bicubic2d_aa.vec,  # noqa: SLF001  an ATen name
    aten._upsample_bilinear2d_aa.vec,  # noqa: SLF001  an ATen name
)
@channelwise
def _resample(call: Call) -> Lowered:
    """As a product with a constant matrix along each axis; dropped where the size stays the same."""
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


@lowers(aten.col2im.default)
@channelwise
def _fold(call: Call) -> Lowered:
    """Overlapping windows are added up."""
    arguments = (
        tuple(call[name]) for name in ("output_size", "kernel_size", "dilation", "padding", "stride")
    )
    if len(call.shape(call.value("self"))) != 2:
        raise Refused("its input has no batch axis, expected (B, C, windows)")
    return Fold(*arguments), (call.value("self"),)
