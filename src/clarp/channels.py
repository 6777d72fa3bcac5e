"""Which axis of the images holds the channels: the first of volumes, the second of several views."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clarp.capture import Graph
from clarp.operations import (
    Affine,
    Average,
    Contraction,
    Convolution,
    Dense,
    Elementwise,
    Extend,
    Normalisation,
    Operation,
    Resample,
    Routing,
    Shift,
)

SAME = 0.01
"""How far apart two places may be and still be one: resizing rounds, and neighbours are 1 apart."""
PHOTO = 3
"""Axes of one photo."""
PLACED = (Affine, Shift, Elementwise, Normalisation)
MOVED = (Routing, Average, Resample, Extend)


def check_channels(channels: object) -> int | None:
    """What was given as ``channels``.

    Raises:
        TypeError: neither a whole number nor None.
        ValueError: the batch's axis, or one counted from the end.
    """
    if channels is None:
        return None
    if isinstance(channels, bool) or not isinstance(channels, int):
        raise TypeError(
            f"channels is {channels!r}, expected the axis of the images that holds them, or None."
        )
    if channels < 1:
        raise ValueError(
            f"channels is {channels}, expected an axis behind the batch's: 1 for (B, C, ...), 2 for (B, V, "
            "C, H, W)."
        )
    return channels


@dataclass(frozen=True)
class Channels:
    """Where the channels are.

    Attributes:
        axis: of the images (B, ...).
        note: what was assumed, a sentence or nothing.
    """

    axis: int
    note: str = ""


def channels_of(graph: Graph, given: int | None = None) -> Channels:
    """The axis of the images (B, ...) that a heatmap is summed over, and that has bounds of its own.

    It is the axis that the model's first convolution, or of other images than photos dense layer, adds up as
    channels, and axis 1 wherever that one is among them or can't be followed: slices that a model reads as
    channels are slices still.

    Args:
        graph: of images of one size.
        given: what the user says.

    Raises:
        ValueError: the images have no such axis.
    """
    axes = len(graph.input_shape)
    if given is not None:
        if given > axes:
            raise ValueError(
                f"channels is {given}, and images (B, {', '.join(map(str, graph.input_shape))}) have no "
                "axis of this number."
            )
        return Channels(given)
    others = [axis for axis in range(2, axes + 1) if graph.input_shape[axis - 1] > 1]
    read = list(_reads(graph, 1))
    if any(_spread(values) for _, values in read):
        return Channels(1, _assumed(graph, others) if axes == 4 else "")
    if not _differ([values for _, values in read]):
        return Channels(1)
    # A dense layer along the last axis of a photo may be one over its columns as well; that of a sequence is
    # one over its features.
    kinds = Convolution if axes == PHOTO else Operation
    return Channels(
        next(
            (
                axis
                for axis in others
                if any(_spread(v) for operation, v in _reads(graph, axis) if isinstance(operation, kinds))
            ),
            1,
        )
    )


def _assumed(graph: Graph, others: list[int]) -> str:
    """The note where a convolution reads another axis of volumes as channels too: it may be several views."""
    for axis in others:
        reads = _reads(graph, axis)
        if any(_spread(values) for operation, values in reads if isinstance(operation, Convolution)):
            return (
                f"channels: the first convolution reads the axes 1 and {axis} of the images as its "
                f"channels, and the heatmap is summed over axis 1; channels={axis} says that axis 1 has "
                "views or frames"
            )
    return ""


def _reads(graph: Graph, axis: int) -> Iterator[tuple[Operation, Tensor]]:
    """The places along an axis of the image that the first layers sum over, (..., channels); 0 for none."""
    like = next((t for t in graph.tensors.values() if t.is_floating_point()), torch.zeros(()))
    places = torch.arange(1, graph.input_shape[axis - 1] + 1, dtype=like.dtype, device=like.device)
    shape = [1] * (len(graph.input_shape) + 1)
    shape[axis] = -1
    known = {graph.input: places.view(shape).expand(1, *graph.input_shape)}
    for node in graph:
        if not known.keys() >= set(node.inputs):
            continue
        x = known[node.inputs[0]]
        if isinstance(node.operation, PLACED):
            known[node.name] = x
        elif isinstance(node.operation, MOVED):
            constants = {name: graph.tensors[name] for name in graph.tensors}
            if isinstance(node.operation, Extend):
                constants = {name: torch.zeros_like(tensor) for name, tensor in constants.items()}
            known[node.name], _ = node.operation.forward([known[name] for name in node.inputs], constants)
        else:
            values = _added(node.operation, x)
            if values is not None:
                yield node.operation, values


def _added(operation: Operation, x: Tensor) -> Tensor | None:
    """Its input with the axis that one output sums over last; None for a layer without weights."""
    if isinstance(operation, Convolution):
        axis = -1 - len(operation.stride)
        groups = (
            1 if operation.groups == x.shape[axis] else operation.groups
        )  # depthwise: each is one of the channels
        return x.unflatten(axis, (groups, -1)).movedim(axis, -1)
    if isinstance(operation, Dense):
        return x
    if isinstance(operation, Contraction):
        summed = [axis for axis, letter in enumerate(operation.value) if letter not in operation.result]
        return x.movedim(summed, list(range(-len(summed), 0))).flatten(-len(summed)) if summed else None
    return None


def _spread(values: Tensor) -> bool:
    """Whether what one output adds up comes from several places."""
    return bool((values.amax(-1) - values.amin(-1) > SAME).any())


def _differ(read: list[Tensor]) -> bool:
    """Whether several places of the axis are read at all."""
    ends = [
        (float(values[values > 0].amin()), float(values.amax()))
        for values in read
        if bool((values > 0).any())
    ]
    return bool(ends) and max(high for _, high in ends) - min(low for low, _ in ends) > SAME
