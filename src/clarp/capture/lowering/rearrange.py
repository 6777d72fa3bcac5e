"""What moves values and has no operation of its own: the call itself, made on numbered places, says what goes where."""

from math import prod
from typing import Any

import torch
from torch import fx

from clarp.capture.lowering.call import FLOATING, Call, Lowered, Refused, Value, anywhere, lowers
from clarp.operations import Concatenate, Rearrange, Slice

aten = torch.ops.aten


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
@anywhere
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
@anywhere
def _slice_scatter(call: Call) -> Lowered:
    """Any axis but the batch, without gaps: what was there before, the new part, and what was there behind."""
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
