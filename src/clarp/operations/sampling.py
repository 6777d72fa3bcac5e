"""Values taken from places that are computed: sampling at a grid, and what a max pooling left behind."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors, over_seeds
from clarp.operations.call import Call, Lowered, Refused, lowers, per_axis
from clarp.operations.contraction import Contraction
from clarp.operations.merge import is_constant
from clarp.operations.pooling import POOLING

aten = torch.ops.aten


@dataclass(frozen=True)
class GridSample(Operation):
    """``torch.nn.functional.grid_sample`` of (N, C, H, W): linear in the samples, at a grid held constant.

    Attributes:
        mode: 0 bilinear, 1 nearest, 2 bicubic.
        padding: 0 zeros, 1 border, 2 reflection.
        align_corners: as in PyTorch.
        grid: the name of a constant grid (1, H', W', 2) among the graph's tensors; None: it is computed from
            the image.
    """

    rule: ClassVar[str] = "Sampled"
    mode: int
    padding: int
    align_corners: bool
    grid: str | None
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        grid = inputs[1] if self.grid is None else tensors[self.grid].expand(inputs[0].shape[0], -1, -1, -1)
        return aten.grid_sampler.default(inputs[0], grid, self.mode, self.padding, self.align_corners), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        x = record.input(0)
        grid = record.input(1) if self.grid is None else tensors[self.grid].expand(x.shape[0], -1, -1, -1)
        found = [self._back(g, x, grid) for g in gradient]
        parts = [torch.stack(part) for part in zip(*found, strict=True)]
        return tuple(parts if self.grid is None else parts[:1])

    def _back(self, g: Tensor, x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        again = torch.is_grad_enabled()
        with torch.inference_mode(mode=False), torch.enable_grad():
            given = [value.clone().requires_grad_() for value in (x, grid)]
            y = aten.grid_sampler.default(*given, self.mode, self.padding, self.align_corners)
            first, second = torch.autograd.grad(y, given, g.clone(), create_graph=again)
        return first, second


@dataclass(frozen=True)
class Unpool(Operation):
    """``torch.nn.functional.max_unpool2d``: each value goes to where a max pooling's winner was, else zeros.

    The second input is what that pooling read, (N, C, H, W).

    Attributes:
        kernel: of the pooling.
        stride: likewise.
        padding: likewise.
        dilation: likewise.
        ceil_mode: likewise.
        size: of the output, (H', W').
    """

    rule: ClassVar[str] = "Chosen"
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool
    size: tuple[int, int]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor]:
        _, places = F.max_pool2d(
            inputs[1],
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=True,
        )
        return aten.max_unpool2d.default(inputs[0].contiguous(), places.contiguous(), self.size), places

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        places = record.remembered().flatten(-2)

        def back(g: Tensor) -> Tensor:
            index = places.repeat(g.shape[0] // places.shape[0], 1, 1)
            return g.flatten(-2).gather(-1, index).unflatten(-1, record.remembered().shape[-2:])

        return over_seeds(back, gradient), gradient.new_zeros(()).expand(
            *gradient.shape[:2], *record.shapes[1][1:]
        )

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return min(inputs[0][0], 0.0), max(inputs[0][1], 0.0)


@lowers(aten.grid_sampler.default, aten.grid_sampler_2d.default, batch="first")
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


@lowers(aten.affine_grid_generator.default, batch="first")
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


@lowers(aten.max_unpool2d.default, batch="channels")
def _max_unpool(call: Call) -> Lowered:
    """With the places that a max pooling of the model remembered."""
    places: Any = call["indices"]
    pooling = places.args[0] if places.target is operator.getitem else None
    if not isinstance(pooling, fx.Node) or pooling.target is not POOLING:
        raise Refused("its indices are not those of a max pooling in the model")
    pool = call.of(pooling)
    kernel, stride, padding, dilation = (
        per_axis(pool[name], 2) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    size = (call.shape()[-2], call.shape()[-1])
    operation = Unpool(kernel, stride or kernel, padding, dilation, pool["ceil_mode"], size)
    return operation, (call.value("self"), pool.value("self"))
