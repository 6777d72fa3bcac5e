"""Regions that are graphs of their own (``with torch.autocast``) become part of an exported program."""

import operator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

REGIONS: dict[Any, int] = {
    torch.ops.higher_order.wrap_with_autocast: 4,
    torch.ops.higher_order.wrap_with_set_grad_enabled: 1,
}
"""The position of the region's graph among the arguments; the values that it reads follow."""


def inlined(program: ExportedProgram, *, own: bool) -> ExportedProgram:
    """The same program without regions.

    Args:
        program: any program.
        own: whether its graph is ours to change.
    """
    if not any(node.target in REGIONS for node in program.graph.nodes):
        return program
    program = program if own else program.run_decompositions({})
    for node in list(program.graph.nodes):
        if node.target in REGIONS:
            _inline(program, node)
    program.graph.lint()
    return program


def _inline(program: ExportedProgram, region: fx.Node) -> None:
    position = REGIONS[region.target]
    graph = region.args[position]
    assert isinstance(graph, fx.Node)
    inner = getattr(program.graph_module, str(graph.target)).graph
    values = dict(zip(inner.find_nodes(op="placeholder"), region.args[position + 1 :], strict=True))
    with program.graph.inserting_before(region):
        results = program.graph.graph_copy(inner, values)
    assert isinstance(results, tuple | list)
    for user in list(region.users):
        assert user.target is operator.getitem
        index = user.args[1]
        assert isinstance(index, int)
        user.replace_all_uses_with(results[index])
        program.graph.erase_node(user)
    program.graph.erase_node(region)
