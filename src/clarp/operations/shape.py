"""Operations that keep every value: shapes, orders of axes, copies; relevance goes back where it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from clarp.operations.base import Interval, Operation, Record, Tensors, summed_to
from clarp.operations.call import COUNTS, FLOATING, Call, Layout, Lowered, Refused, Value, lowers

aten = torch.ops.aten


class Routing(Operation):
    """Each output element is one input element or a constant."""

    rule: ClassVar[str] = "Transport"

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return min(low for low, _ in inputs), max(high for _, high in inputs)


@dataclass(frozen=True)
class Reshape(Routing):
    """A view of each sample in another shape.

    Attributes:
        shape: the new shape without the batch axis.
    """

    shape: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0].reshape(inputs[0].shape[0], *self.shape), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (gradient.reshape(*gradient.shape[:2], *record.shapes[0][1:]),)


@dataclass(frozen=True)
class Permute(Routing):
    """Axes in another order; the batch stays first.

    Attributes:
        axes: the new order, as in ``Tensor.permute``.
    """

    axes: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0].permute(self.axes), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return (gradient.permute(0, *(axis + 1 for axis in back)),)


@dataclass(frozen=True)
class Expand(Routing):
    """Axes of size one repeated without copying.

    Attributes:
        shape: the new shape without the batch axis, of as many axes.
    """

    shape: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0].expand(inputs[0].shape[0], *self.shape), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (summed_to(gradient, record.shapes[0]),)


NOTHING = (
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.to.other,
    aten.type_as.default,
    aten.lift_fresh.default,
    aten.positive.default,
    aten._to_copy.default,  # noqa: SLF001  an ATen name
    aten.nan_to_num.default,
)


"""In eval mode these return the values of their first argument, where these are finite."""


SHAPES = (
    aten.view.default,
    aten.reshape.default,
    aten.reshape_as.default,
    aten.view_as.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten._unsafe_view.default,  # noqa: SLF001  an ATen name
)


"""Other shapes of the first argument's values, in the same order."""


@lowers(*SHAPES)
def _reshape(call: Call) -> Lowered:
    """Within each sample. It is dropped where the shape stays the same."""
    x = call.value("self")
    same = call.sizes() == call.sizes(x)
    return None if same else Reshape(call.sizes()), (x,)


@lowers(
    aten.permute.default,
    aten.transpose.int,
    aten.swapaxes.default,
    aten.swapdims.default,
    aten.t.default,
    aten.numpy_T.default,
    aten.mT.default,
    aten.movedim.int,
    aten.movedim.intlist,
    aten.moveaxis.int,
    aten.moveaxis.intlist,
)
def _permute(call: Call) -> Lowered:
    """Any order. The batch comes first in clarp's graph, wherever it is in the model's."""
    x = call.value("self")
    layout, count = call.layout(x), len(x.meta["val"].shape)
    # The call itself, made on axes whose size is their number, says what goes where.
    operation: Any = call.node.target
    order = operation(
        torch.empty(tuple(range(count)), device="meta"), *call.node.args[1:], **call.node.kwargs
    ).shape
    inner = [layout.axis + 1] if layout.inner > 1 else []
    axes = [0]
    for axis in order:
        axes += inner if axis == layout.axis else [call.axis(axis, x)]
    return None if axes == sorted(axes) else Permute(tuple(axes)), (x,)


@lowers(aten.expand.default, aten.expand_as.default, aten.broadcast_to.default)
def _expand(call: Call) -> Lowered:
    """Any axes but the batch. It is dropped where the shape stays the same."""
    x = call.value("self")
    if call.sizes() == call.sizes(x):
        return None, (x,)
    return Expand(call.sizes()), (stretched(call, x, call.node),)


def stretched(call: Call, x: fx.Node, like: fx.Node) -> Value:
    """A value with axes of size one in front, so that it broadcasts over another one."""
    old, new = call.layout(x), call.layout(like)
    more = len(like.meta["val"].shape) - len(x.meta["val"].shape)
    if Layout(old.axis + more, old.inner) != new:
        raise Refused("it broadcasts along the batch axis")
    return call.step(Reshape((1,) * more + call.sizes(x)), (x,), (1,) * more + call.sizes(x)) if more else x


@lowers(aten.copy.default)
def _copy(call: Call) -> Lowered:
    """Of a value of the same shape and type, or of another floating type."""
    x = call.value("src")
    _check_type(call, x)
    if call.sizes() != call.sizes(x):
        raise Refused("it copies a value of another shape")
    return None, (x,)


@lowers(aten.repeat.default, aten.tile.default)
def _repeat(call: Call) -> Lowered:
    """Any axes but the batch."""
    x = call.value("self")
    counts: list[int] = list(call.arguments["repeats" if "repeats" in call.arguments else "dims"])
    counts = [1] * (len(call.node.meta["val"].shape) - len(counts)) + counts
    value, sizes = stretched(call, x, call.node), call.sizes()
    old = (1,) * (len(sizes) - len(call.sizes(x))) + call.sizes(x)
    if call.layout().inner != call.layout(x).inner:
        raise Refused("it repeats along the batch axis")
    apart = tuple(size for pair in ((1, o) for o in old) for size in pair)
    wide = tuple(size for pair in ((n // o, o) for n, o in zip(sizes, old, strict=True)) for size in pair)
    value = call.step(Reshape(apart), (value,), apart)
    return Reshape(sizes), (call.step(Expand(wide), (value,), wide),)


@lowers(aten.repeat_interleave.self_int)
def _repeat_interleave(call: Call) -> Lowered:
    """Any axis, a number of repeats.

    Repeats along the batch become windows of each image.
    """
    x = call.value("self")
    if call["dim"] is None:
        raise Refused("it repeats over all axes, expected one, dim=...")
    layout, sizes = call.layout(x), call.sizes(x)
    whole = call["dim"] % len(x.meta["val"].shape) == layout.axis
    axis = layout.axis + (layout.inner > 1) if whole else call.axis(call["dim"], x)
    apart, wide = ((*sizes[:axis], count, *sizes[axis:]) for count in (1, call["repeats"]))
    value = call.step(Reshape(apart), (x,), apart)
    return Reshape(call.sizes()), (call.step(Expand(wide), (value,), wide),)


@lowers(*NOTHING)
def _nothing(call: Call) -> Lowered:
    """Dropped. Dropout is in eval mode, and a cast gives a floating type: the graph computes in one type."""
    x = call.value(next(iter(call.arguments)))
    if call.arguments.get("train"):
        raise Refused(
            "it drops at random: call model.eval() first, or pass training=self.training where the model "
            "calls F.dropout"
        )
    _check_type(call, x)
    return None, (x,)


def _check_type(call: Call, x: fx.Node) -> None:
    """Casts between floating types (a softmax in float32, say) are no part of the function."""
    old, new = x.meta["val"].dtype, call.node.meta["val"].dtype
    # Conditions and counts are computed as zeros, ones and their sums, whatever their type is called.
    if old != new and not (new in FLOATING and (old in FLOATING or old in COUNTS)):
        raise Refused(f"it changes the type from {old} to {new}, expected one floating type or another")
