"""Sampling at a grid, and max unpooling: where values go is held constant."""

import operator
from typing import Any

import torch
from torch import fx

from clarp.capture.lowering.call import Call, Lowered, Refused, channelwise, lowers
from clarp.capture.lowering.merge import is_constant
from clarp.capture.lowering.shape import POOLING
from clarp.operations import Contraction, GridSample, Unpool

aten = torch.ops.aten


@lowers(aten.grid_sampler.default, aten.grid_sampler_2d.default)
def _grid_sample(call: Call) -> Lowered:
    """(B, C, H, W), at a constant grid or one computed from the image, which is held constant."""
    x = call.value("input")
    if len(call.shape(x)) != 3:
        raise Refused("it samples volumes, expected (B, C, H, W)")
    modes = (call["interpolation_mode"], call["padding_mode"], call["align_corners"])
    if not is_constant(call, "grid"):
        return GridSample(*modes, None), (x, call.value("grid"))
    given: Any = call["grid"]
    return GridSample(*modes, call.new("grid", call.aligned(call.constants[given.name]).contiguous())), (x,)


@lowers(aten.affine_grid_generator.default)
def _affine_grid(call: Call) -> Lowered:
    """Of a matrix (B, 2, 3) that is computed from the image."""
    theta, size = call.value("theta"), call["size"]
    if len(size) != 4:
        raise Refused("it makes a grid for volumes, expected (B, C, H, W)")
    # At each position, what the numbers of a row of the matrix are multiplied by.
    rows = torch.zeros(3, 2, 3, dtype=torch.float64)
    rows[:, 0] = torch.eye(3, dtype=torch.float64)
    grid = aten.affine_grid_generator.default(rows, [3, 1, *size[2:]], call["align_corners"])
    base = grid[..., 0].permute(1, 2, 0).contiguous()
    return Contraction(call.new("base", base), None, "bij", "hwj", "bhwi"), (theta,)


@lowers(aten.max_unpool2d.default)
@channelwise
def _max_unpool(call: Call) -> Lowered:
    """With the places that a max pooling of the model remembered."""
    places: Any = call["indices"]
    pooling = places.args[0] if places.target is operator.getitem else None
    if not isinstance(pooling, fx.Node) or pooling.target is not POOLING:
        raise Refused("its indices are not those of a max pooling in the model")
    pool = Call(pooling, call.constants, call.tensors, call.batch)
    kernel, stride, padding, dilation = (
        tuple(pool[name]) * (2 if len(pool[name]) == 1 else 1)
        for name in ("kernel_size", "stride", "padding", "dilation")
    )
    size = (call.shape()[-2], call.shape()[-1])
    operation = Unpool(kernel, stride or kernel, padding, dilation, pool["ceil_mode"], size)
    return operation, (call.value("self"), pool.value("self"))
