"""The programs of an explainer, one for each size of images, and how one is made of a graph."""

from collections.abc import Callable
from dataclasses import replace

import torch

from clarp.capture import Graph
from clarp.method import Method, check_dual_rule
from clarp.network import KEPT
from clarp.propagation import Program, make_plan


def program_of(
    graph: Graph, method: Method, device: torch.device, dtype: torch.dtype, back: torch.dtype
) -> Program:
    """The program of a graph by a method.

    Args:
        graph: the captured network.
        method: with the composite that it has in this network.
        device: where to run.
        dtype: in which type to go forward.
        back: in which type to go back.

    Raises:
        UnsupportedOperation: the graph has operations that no rule covers.
        ValueError: the rule of the last layer is none for the method's passes.
    """
    plan = make_plan(graph, method.rules)
    if method.passes == "dual":
        check_dual_rule(next(step.rule for step in plan if step.node is plan.head()))
    secants = method.covering is not None
    return Program(plan, device, dtype, back, gradients=bool(method.selections), secants=secants)


class Programs:
    """The programs that were used last, one for each size of images and kind of further inputs."""

    def __init__(self) -> None:
        self._made: dict[object, Program] = {}

    def of(self, key: object, graph: Graph, new: Callable[[Graph], Program]) -> Program:
        """The program of a graph, made anew where there is none, or one of an older graph, at this key."""
        if graph.again is not None:  # of the weights as they are now
            return new(replace(graph.again(), again=graph.again))
        program = self._made.pop(key, None)
        if program is None or program.plan.graph is not graph:
            program = new(graph)
        self._made[key] = program  # now the last used
        while len(self._made) > KEPT:
            del self._made[next(iter(self._made))]
        return program
