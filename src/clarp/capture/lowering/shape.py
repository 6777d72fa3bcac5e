"""What moves values and changes none."""

import operator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx

from clarp.capture.lowering.call import (
    COUNTS,
    FLOATING,
    Call,
    Layout,
    Lowered,
    Refused,
    Value,
    anywhere,
    lowers,
)
from clarp.capture.lowering.rearrange import rearranged
from clarp.capture.lowering.recurrent import CELLS, last_state
from clarp.operations import Concatenate, Expand, Extend, Flip, Pad, Permute, Reshape, Roll, Slice

aten = torch.ops.aten

POOLING, UNPOOLING = aten.max_pool2d_with_indices.default, aten.max_unpool2d.default
SPLITS = (
    aten.unbind.int,
    aten.chunk.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.split.sizes,
    aten.tensor_split.sections,
)
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
@anywhere
def _reshape(call: Call) -> Lowered:
    """Each sample on its own; dropped where the shape stays the same."""
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
@anywhere
def _permute(call: Call) -> Lowered:
    """Any order; the batch comes first here wherever it is there."""
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


@lowers(aten.slice.Tensor, aten.narrow.default)
@anywhere
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
@anywhere
def _select(call: Call) -> Lowered:
    """Any axis but the batch."""
    x = call.value("self")
    index = call["index"] % x.meta["val"].shape[call["dim"]]
    return Reshape(call.sizes()), (_piece(call, x, call["dim"], index, index + 1),)


@lowers(*SPLITS)
@anywhere
def _parts(call: Call) -> Lowered:
    """Any axis but the batch; each part is a slice."""
    return None, (call.value("self"),)


@lowers(operator.getitem)
@anywhere
def _item(call: Call) -> Lowered:
    """A part of a split value; the first result of an operation; a recurrent layer's last states; a max pooling's places, to unpool."""
    source, index = call.value(0), call[1]
    if source.target not in SPLITS:
        if index == 1 and source.target in CELLS:
            return None, (last_state(source),)
        if (
            index == 1
            and source.target is POOLING
            and all(user.target is UNPOOLING for user in call.node.users)
        ):
            return None, (Call(source, call.constants, call.tensors, call.batch).value("self"),)
        if index != 0:
            raise Refused(f"it takes result number {index} of an operation, expected the first")
        return None, (source,)
    whole = Call(source, call.constants, call.tensors, call.batch)
    x, axis = whole.value("self"), whole["dim"]
    if source.target is aten.unbind.int:
        return Reshape(call.sizes()), (_piece(call, x, axis, index, index + 1),)
    ends = [0, *accumulate(part.shape[axis] for part in source.meta["val"])]
    return Slice(call.axis(axis, x), ends[index], ends[index + 1], 1), (x,)


def _piece(call: Call, x: fx.Node, dim: int, start: int, end: int) -> str:
    """The elements from start to end along an axis of the exported value."""
    axis, sizes = call.axis(dim, x), list(call.sizes(x))
    sizes[axis - 1] = end - start
    return call.step(Slice(axis, start, end, 1), (x,), tuple(sizes))


@lowers(aten.expand.default, aten.expand_as.default, aten.broadcast_to.default)
@anywhere
def _expand(call: Call) -> Lowered:
    """Any axes but the batch; dropped where the shape stays the same."""
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
@anywhere
def _copy(call: Call) -> Lowered:
    """Of a value of the same shape and type, or of another floating type."""
    x = call.value("src")
    _check_type(call, x)
    if call.sizes() != call.sizes(x):
        raise Refused("it copies a value of another shape")
    return None, (x,)


@lowers(aten.repeat.default, aten.tile.default)
@anywhere
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
@anywhere
def _repeat_interleave(call: Call) -> Lowered:
    """Any axis, a number of repeats; repeats of an image are windows inside the batch's axis."""
    x = call.value("self")
    if call["dim"] is None:
        raise Refused("it repeats over all axes, expected one, dim=...")
    layout, sizes = call.layout(x), call.sizes(x)
    whole = call["dim"] % len(x.meta["val"].shape) == layout.axis
    axis = layout.axis + (layout.inner > 1) if whole else call.axis(call["dim"], x)
    apart, wide = ((*sizes[:axis], count, *sizes[axis:]) for count in (1, call["repeats"]))
    value = call.step(Reshape(apart), (x,), apart)
    return Reshape(call.sizes()), (call.step(Expand(wide), (value,), wide),)


@lowers(aten.roll.default)
@anywhere
def _roll(call: Call) -> Lowered:
    """Any axes but the batch."""
    x = call.value("self")
    if not call["dims"]:
        raise Refused("it rolls over all axes, expected some, dims=...")
    return Roll(tuple(call["shifts"]), tuple(call.axis(axis, x) for axis in call["dims"])), (x,)


@lowers(aten.flip.default)
@anywhere
def _flip(call: Call) -> Lowered:
    """Any axes but the batch."""
    x = call.value("self")
    return Flip(tuple(call.axis(axis, x) for axis in call["dims"])), (x,)


@lowers(aten.pad.default, aten.constant_pad_nd.default)
@anywhere
def _pad(call: Call) -> Lowered:
    """With a constant, mirrored or repeated values, not the batch; dropped where it adds nothing, zeros before a convolution are folded."""
    if call.arguments.get("mode", "constant") != "constant":
        return rearranged(call)
    x, amounts = call.value("self"), tuple(call["pad"])
    behind = len(x.meta["val"].shape) - 1 - call.layout(x).axis
    if any(amounts[2 * behind :]):
        raise Refused("it pads the batch, or an axis before it")
    amounts = amounts[: 2 * behind]
    return Pad(amounts, float(call["value"] or 0)) if any(amounts) else None, (x,)


@lowers(aten.cat.default, aten.concat.default, aten.concatenate.default, aten.hstack.default)
@anywhere
def _concatenate(call: Call) -> Lowered:
    """Any axis but the batch; constants (a class token) before, between and behind values computed from the image."""
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
@anywhere
def _stack(call: Call) -> Lowered:
    """Along any new axis; values computed from the image."""
    axis = call.axis(call["dim"])
    sizes = list(call.sizes())
    sizes[axis - 1] = 1
    if any(part.name in call.constants for part in call["tensors"]):
        raise Refused("one of its parts is a constant, expected values computed from the image")
    parts = [call.step(Reshape(tuple(sizes)), (part,), tuple(sizes)) for part in call["tensors"]]
    return Concatenate(axis), tuple(parts)


@lowers(*NOTHING)
@anywhere
def _nothing(call: Call) -> Lowered:
    """Dropped; in eval mode, and a floating type stays one, whichever: the graph computes in one type."""
    x = call.value(next(iter(call.arguments)))
    if call.arguments.get("train"):
        raise Refused(
            "it drops at random: call model.eval() first, or pass training=self.training where the model calls F.dropout"
        )
    _check_type(call, x)
    return None, (x,)


def _check_type(call: Call, x: fx.Node) -> None:
    """Casts between floating types (a softmax in float32 in a model in half precision) are no part of the function."""
    old, new = x.meta["val"].dtype, call.node.meta["val"].dtype
    # Conditions and counts are computed as zeros, ones and their sums, whatever their type is called.
    if old != new and not (new in FLOATING and (old in FLOATING or old in COUNTS)):
        raise Refused(f"it changes the type from {old} to {new}, expected one floating type or another")
