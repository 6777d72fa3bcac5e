"""A captured graph becomes simpler and stays the same function.

Batch norms go into the convolution or dense layer beside them, zero paddings into the convolution behind
them, what nobody reads is dropped, and every value is marked with the limits that it can't leave.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

import torch

from clarp.capture import folds
from clarp.capture.graph import Graph, HookPoint, Node
from clarp.operations import Affine
from clarp.operations.base import in_dtype


def simplify(graph: Graph, dtype: torch.dtype) -> Graph:
    """Fold, drop and mark.

    A fold is tried wherever one operation is the only reader of another. Folds compute in float64; dtype is
    the type of the tensors in the end.
    """
    graph = _drop_unread(graph)
    for fold in (folds.affine_twice, folds.affine_behind, folds.affine_before, folds.padding):
        graph = _fold_everywhere(graph, fold)
    used = {name for node in graph for name in _tensor_names(node)} | graph.auxiliary.tensors
    kept = {name: in_dtype(tensor, dtype) for name, tensor in graph.tensors.items() if name in used}
    return _mark_intervals(replace(graph, tensors=kept))


def _fold_everywhere(graph: Graph, fold: folds.NodeFold) -> Graph:
    nodes = {node.name: node for node in graph}
    users, pixels = graph.users(), graph.pixels()
    tensors = dict(graph.tensors)
    outputs = graph.outputs
    for node in graph:
        second = nodes[node.name]
        if len(second.inputs) != 1 or len(users[second.inputs[0]]) != 1 or second.inputs[0] not in nodes:
            continue
        first = nodes[second.inputs[0]]
        if first.name in pixels and isinstance(first.operation, Affine) and second.name not in pixels:
            continue  # pixels in other units are still pixels: what reads them is the first layer
        folded = fold(first, second, tensors)
        if folded is not None:
            nodes[second.name] = folded
            del nodes[first.name]
            outputs = _moved(outputs, first, second, folded)
    return replace(graph, nodes=tuple(nodes.values()), tensors=tensors, outputs=outputs)


Outputs = Mapping[str, tuple[HookPoint | None, ...]]


def _moved(outputs: Outputs, first: Node, second: Node, folded: Node) -> Outputs:
    """Where the modules' outputs are after a fold: the first of two nodes has become a part of the second.

    Where the first was the greater part (a convolution, and a batch norm behind it), its output is what the
    two give. Else (a batch norm before a convolution) it is what the two read: the same relevance, if it has
    the same shape.
    """
    if type(folded.operation) is type(first.operation):
        place: HookPoint | None = HookPoint(second.name)
    else:
        place = HookPoint(folded.inputs[0], second.name) if isinstance(first.operation, Affine) else None
    moves = {HookPoint(first.name): place}
    moves |= {
        point: HookPoint(point.value, second.name)
        for points in outputs.values()
        for point in points
        if point is not None and point.reader == first.name
    }
    return {
        path: tuple(moves.get(point, point) if point else point for point in points)
        for path, points in outputs.items()
    }


def _drop_unread(graph: Graph) -> Graph:
    read = {graph.output}
    kept = []
    for node in reversed(graph.nodes):
        if node.name in read:
            kept.append(node)
            read.update(node.inputs)
    auxiliary = graph.auxiliary.without_unread(frozenset(read))
    return replace(graph, nodes=tuple(reversed(kept)), auxiliary=auxiliary)


def _mark_intervals(graph: Graph) -> Graph:
    known = dict.fromkeys((graph.input, *graph.auxiliary.names), (-inf, inf))
    nodes = []
    for node in graph:
        low, high = node.operation.interval([known[name] for name in node.inputs], graph.tensors)
        known[node.name] = low, high
        nodes.append(replace(node, low=low, high=high))
    return replace(graph, nodes=tuple(nodes))


def _tensor_names(node: Node) -> list[str]:
    """What may name a tensor: the words among an operation's attributes."""
    found: list[str] = []
    for value in vars(node.operation).values():
        found += (
            [value]
            if isinstance(value, str)
            else [one for one in value if isinstance(one, str)]
            if isinstance(value, tuple)
            else []
        )
    return found
