"""Which of an operation's several results is read."""

import operator
from itertools import accumulate

import torch

from clarp.operations.call import Call, Lowered, Refused, lowers
from clarp.operations.indexing import Slice, piece
from clarp.operations.pooling import POOLING
from clarp.operations.recurrent import CELLS, last_state
from clarp.operations.shape import Reshape

aten = torch.ops.aten

SPLITS = (
    aten.unbind.int,
    aten.chunk.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.split.sizes,
    aten.tensor_split.sections,
)


@lowers(*SPLITS)
def _parts(call: Call) -> Lowered:
    """Any axis but the batch; each part is a slice."""
    return None, (call.value("self"),)


@lowers(operator.getitem)
def _item(call: Call) -> Lowered:
    """A part of a split value; the first result; a recurrent layer's last states; a max pooling's places."""
    source, index = call.value(0), call[1]
    if source.target not in SPLITS:
        if index == 1 and source.target in CELLS:
            return None, (last_state(source),)
        unpooled = all(user.target is aten.max_unpool2d.default for user in call.node.users)
        if index == 1 and source.target is POOLING and unpooled:
            return None, (call.of(source).value("self"),)
        if index != 0:
            raise Refused(f"it takes result number {index} of an operation, expected the first")
        return None, (source,)
    whole = call.of(source)
    x, axis = whole.value("self"), whole["dim"]
    if source.target is aten.unbind.int:
        return Reshape(call.sizes()), (piece(call, x, axis, index, index + 1),)
    ends = [0, *accumulate(part.shape[axis] for part in source.meta["val"])]
    return Slice(call.axis(axis, x), ends[index], ends[index + 1], 1), (x,)
