"""Parts of values, values side by side or in other places: relevance goes back to where a value was."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from clarp.operations.base import Interval, Operation, Record, Tensors, over_seeds
from clarp.operations.call import FLOATING, Call, Lowered, Refused, Value, lowers
from clarp.operations.shape import Reshape, Routing

aten = torch.ops.aten


@dataclass(frozen=True)
class Slice(Routing):
    """Every ``step``-th element from ``start`` to ``end`` along one axis (not the batch)."""

    axis: int
    start: int
    end: int
    step: int

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return torch.ops.aten.slice.Tensor(inputs[0], self.axis, self.start, self.end, self.step), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:

        def back(g: Tensor) -> Tensor:
            sizes = [g.shape[0], *record.shapes[0][1:]]
            placed: Tensor = torch.ops.aten.slice_backward.default(
                g, sizes, self.axis, self.start, self.end, self.step
            )
            return placed

        return (over_seeds(back, gradient),)


@dataclass(frozen=True)
class Pad(Routing):
    """Constant padding, or cropping where an amount is negative.

    Attributes:
        amounts: in the order of ``torch.nn.functional.pad``.
        value: what is put around.
    """

    amounts: tuple[int, ...]
    value: float

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return F.pad(inputs[0], self.amounts, value=self.value), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (F.pad(gradient, [-amount for amount in self.amounts]),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return min(inputs[0][0], self.value), max(inputs[0][1], self.value)


@dataclass(frozen=True)
class Concatenate(Routing):
    """Several values side by side along one axis (not the batch)."""

    axis: int

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return torch.cat(tuple(inputs), self.axis), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        sizes = [shape[self.axis] for shape in record.shapes]
        return torch.split(gradient, sizes, self.axis + 1)


@dataclass(frozen=True)
class Extend(Operation):
    """A value between constants along one axis (not the batch): a class token and the patches.

    Attributes:
        axis: along which.
        before: the name of a constant (1, ...) among the graph's tensors, or None.
        behind: likewise.
    """

    rule: ClassVar[str] = "Crop"
    axis: int
    before: str | None
    behind: str | None

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        before, behind = (
            () if name is None else (tensors[name].expand(inputs[0].shape[0], *tensors[name].shape[1:]),)
            for name in (self.before, self.behind)
        )
        return torch.cat((*before, inputs[0], *behind), self.axis), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        start = 0 if self.before is None else tensors[self.before].shape[self.axis]
        return (gradient.narrow(self.axis + 1, start, record.shapes[0][self.axis]),)


@dataclass(frozen=True)
class Roll(Routing):
    """Shifted around along some axes (not the batch), as ``torch.roll`` does."""

    shifts: tuple[int, ...]
    axes: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0].roll(self.shifts, self.axes), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (gradient.roll([-shift for shift in self.shifts], [axis + 1 for axis in self.axes]),)


@dataclass(frozen=True)
class Flip(Routing):
    """The other way round along some axes (not the batch)."""

    axes: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0].flip(self.axes), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (gradient.flip([axis + 1 for axis in self.axes]),)


@dataclass(frozen=True)
class Rearrange(Routing):
    """Values taken from anywhere in the sample: pixel shuffles, mirrored padding, windows side by side.

    Attributes:
        index: the name of the places in the flat sample, counted from 1, among the graph's tensors; 0 gives
            zero.
        shape: the new shape without the batch axis.
    """

    index: str
    shape: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        flat = F.pad(inputs[0].flatten(1), (1, 0))
        return flat.index_select(1, tensors[self.index]).reshape(-1, *self.shape), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        shape = record.shapes[0]
        back = gradient.new_zeros(*gradient.shape[:2], 1 + shape[1:].numel())
        back.index_add_(2, tensors[self.index], gradient.flatten(2))
        return (back[..., 1:].reshape(*gradient.shape[:2], *shape[1:]),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return min(inputs[0][0], 0.0), max(inputs[0][1], 0.0)


@lowers(aten.slice.Tensor, aten.narrow.default)
def _slice(call: Call) -> Lowered:
    """Any axis but the batch; dropped where it takes everything."""
    x, narrows = call.value("self"), "length" in call.arguments
    start, step = call["start"] or 0, call.arguments.get("step", 1)
    if not narrows and start == 0 and step == 1 and call["end"] in (None, torch.iinfo(torch.int64).max):
        return None, (x,)
    axis, size = call.axis(call["dim"], x), x.meta["val"].shape[call["dim"]]
    if narrows:  # a negative start counts from the end, and the length goes on from there
        start %= size
    end = start + call["length"] if narrows else call["end"]
    start, end, step = slice(start, end, step).indices(size)
    return (None if (start, end, step) == (0, size, 1) else Slice(axis, start, end, step)), (x,)


@lowers(aten.select.int)
def _select(call: Call) -> Lowered:
    """Any axis but the batch."""
    x = call.value("self")
    index = call["index"] % x.meta["val"].shape[call["dim"]]
    return Reshape(call.sizes()), (piece(call, x, call["dim"], index, index + 1),)


def piece(call: Call, x: fx.Node, dim: int, start: int, end: int) -> str:
    """The elements from start to end along an axis of the exported value."""
    axis, sizes = call.axis(dim, x), list(call.sizes(x))
    sizes[axis - 1] = end - start
    return call.step(Slice(axis, start, end, 1), (x,), tuple(sizes))


@lowers(aten.roll.default)
def _roll(call: Call) -> Lowered:
    """Any axes but the batch."""
    x = call.value("self")
    if not call["dims"]:
        raise Refused("it rolls over all axes, expected some, dims=...")
    return Roll(tuple(call["shifts"]), tuple(call.axis(axis, x) for axis in call["dims"])), (x,)


@lowers(aten.flip.default)
def _flip(call: Call) -> Lowered:
    """Any axes but the batch."""
    x = call.value("self")
    return Flip(tuple(call.axis(axis, x) for axis in call["dims"])), (x,)


@lowers(aten.pad.default, aten.constant_pad_nd.default)
def _pad(call: Call) -> Lowered:
    """With a constant, mirrored or repeated values, not the batch; zeros before a convolution are folded."""
    if call.arguments.get("mode", "constant") != "constant":
        return rearranged(call)
    x, amounts = call.value("self"), tuple(call["pad"])
    behind = len(x.meta["val"].shape) - 1 - call.layout(x).axis
    if any(amounts[2 * behind :]):
        raise Refused("it pads the batch, or an axis before it")
    amounts = amounts[: 2 * behind]
    return Pad(amounts, float(call["value"] or 0)) if any(amounts) else None, (x,)


@lowers(aten.cat.default, aten.concat.default, aten.concatenate.default, aten.hstack.default)
def _concatenate(call: Call) -> Lowered:
    """Any axis but the batch; constants (a class token) before, between and behind computed values."""
    axis = call.axis(call.arguments.get("dim", 1))  # of hstack, whose values have several axes
    values: list[fx.Node] = []
    around: list[list[Tensor]] = [[]]
    for part in call["tensors"]:
        if part.name in call.constants:
            around[-1].append(call.aligned(call.constants[part.name]))
        else:
            values.append(part)
            around.append([])
    extended = [
        _extended(call, x, axis, around[0] if i == 0 else [], around[i + 1]) for i, x in enumerate(values)
    ]
    return (Concatenate(axis) if len(values) > 1 else None), tuple(extended)


def _extended(call: Call, x: fx.Node, axis: int, before: list[Tensor], behind: list[Tensor]) -> Value:
    """A value with constants at its ends."""
    if not before and not behind:
        return x
    sizes = list(call.sizes(x))
    sizes[axis - 1] += sum(constant.shape[axis] for constant in before + behind)
    first, last = (
        call.new(f"{end}.{len(call.steps)}", torch.cat(constants, axis)) if constants else None
        for end, constants in (("before", before), ("behind", behind))
    )
    return call.step(Extend(axis, first, last), (x,), tuple(sizes))


@lowers(aten.stack.default)
def _stack(call: Call) -> Lowered:
    """Along any new axis; values computed from the image."""
    axis = call.axis(call["dim"])
    sizes = list(call.sizes())
    sizes[axis - 1] = 1
    if any(part.name in call.constants for part in call["tensors"]):
        raise Refused("one of its parts is a constant, expected values computed from the image")
    parts = [call.step(Reshape(tuple(sizes)), (part,), tuple(sizes)) for part in call["tensors"]]
    return Concatenate(axis), tuple(parts)


@lowers(
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.im2col.default,
    aten.unfold.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.take_along_dim.default,
    aten.gather.default,
    aten.diagonal.default,
    aten.rot90.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest3d.vec,
    aten._upsample_nearest_exact1d.vec,  # noqa: SLF001  an ATen name
    aten._upsample_nearest_exact3d.vec,  # noqa: SLF001  an ATen name
    aten.tril.default,
    aten.triu.default,
)
def rearranged(call: Call) -> Lowered:
    """Places that do not depend on the image; each sample on its own, the batch in front."""
    x = call.value(next(iter(call.arguments)))
    if x.meta["val"].dtype not in FLOATING:
        raise Refused("it moves whole numbers computed from the image")
    others = [node for node in call.node.all_input_nodes if node is not x and node.name not in call.constants]
    if others:
        raise Refused(f"where it takes its values from is computed from the image ({others[0].name})")
    for node in (x, call.node):
        if call.layout(node).axis:
            call.shape(node)  # refuses any other batch axis
    sizes, batch = call.sizes(x), call.batch if isinstance(call.batch, int) else 2  # as constants have it
    size, shape = prod(sizes), (batch * call.layout(x).inner, *x.meta["val"].shape[1:])
    places = torch.arange(1.0, batch * size + 1, dtype=torch.float64).reshape(shape)
    # On the CPU, wherever the model is: every device counts places alike, but not every one knows float64.
    args, kwargs = fx.map_arg(
        (call.node.args, call.node.kwargs),
        lambda node: places if node is x else call.constants[node.name].cpu(),
    )
    operation: Any = call.node.target
    moved = operation(*args, **kwargs).long().reshape(batch, *call.sizes())
    first = moved[0]
    if any(not torch.equal(row, first + index * size * (first > 0)) for index, row in enumerate(moved)):
        raise Refused("it moves values from one image to another")
    return Rearrange(call.new("index", first.flatten()), call.sizes()), (x,)


@lowers(aten.slice_scatter.default)
def _slice_scatter(call: Call) -> Lowered:
    """Any axis but the batch, without steps.

    It becomes the part before, the new part and the part behind, side by side.
    """
    x, part = call.value("self"), call.value("src")
    if call["step"] != 1:
        raise Refused(f"it writes to every {call['step']}th place, expected neighbours")
    if not call["start"] and call["end"] in (None, torch.iinfo(torch.int64).max):
        return None, (part,)
    axis, sizes = call.axis(call["dim"]), call.sizes()
    size = sizes[axis - 1]
    start, end, _ = slice(call["start"], call["end"]).indices(size)

    def kept(first: int, last: int) -> list[Value]:
        shape = (*sizes[: axis - 1], last - first, *sizes[axis:])
        return [call.step(Slice(axis, first, last, 1), (x,), shape)] if last > first else []

    parts = (*kept(0, start), part, *kept(end, size))
    return (Concatenate(axis) if len(parts) > 1 else None), parts
