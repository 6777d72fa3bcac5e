"""The plan: every operation of the graph with its rule."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from clarp.capture import Graph, Node
from clarp.operations import Convolution, Dense, Routing, WeightedLinear
from clarp.rules import Rule
from clarp.rules.composites import Composite


@dataclass(frozen=True)
class Step:
    """One operation and its rule.

    Attributes:
        node: the operation at its place in the network.
        rule: how it hands relevance on.
        reads_pixels: whether it is a linear operation that reads the image itself, perhaps reshaped.
        signs: for each input whether it can't be negative.
    """

    node: Node
    rule: Rule
    reads_pixels: bool
    signs: tuple[bool, ...]


@dataclass(frozen=True)
class Plan:
    """All steps in the order of computation; ``str(plan)`` is a table.

    Attributes:
        graph: the captured network.
        composite: where the rules are from.
        steps: one per operation.
    """

    graph: Graph
    composite: Composite
    steps: tuple[Step, ...]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def rows(self) -> list[dict[str, str]]:
        """A row per operation: module, operation, output (shape without batch), rule, source."""
        return [
            {
                "module": step.node.module or "(model)",
                "operation": type(step.node.operation).__name__,
                "output": " x ".join(map(str, step.node.shape)),
                "rule": repr(step.rule),
                "source": step.node.source,
            }
            for step in self.steps
        ]

    def __str__(self) -> str:
        rows = self.rows()
        columns = ("module", "operation", "output", "rule")
        widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in columns}
        lines = ["  ".join(c.ljust(widths[c]) for c in columns), "  ".join("-" * widths[c] for c in columns)]
        lines += ["  ".join(row[c].ljust(widths[c]) for c in columns).rstrip() for row in rows]
        return "\n".join(lines)

    def convolutions(self) -> tuple[Node, ...]:
        """The convolutions in the order of computation."""
        return tuple(step.node for step in self.steps if isinstance(step.node.operation, Convolution))

    def last_spatial(self) -> Node:
        """The last convolution that has more than one position.

        Raises:
            ValueError: there is none.
        """
        found = [node for node in self.convolutions() if prod(node.shape[1:]) > 1]
        if not found:
            raise ValueError(
                "the model has no convolution with more than one position, expected one before its head. "
                "Use a method without selection, for example 'sglrp'."
            )
        return found[-1]

    def features(self) -> Node:
        """The last features: the last value with as many positions as the last convolution's output.

        So behind its normalisation, activation, residual sum or concatenation, and before the head pools.

        Raises:
            ValueError: there is no convolution with more than one position.
        """
        positions = self.last_spatial().shape[1:]
        return next(node for node in reversed(self.graph.nodes) if node.shape[1:] == positions)

    def head(self) -> Node:
        """The linear operation that computes the logits: the last one with weights."""
        return next(s.node for s in reversed(self.steps) if isinstance(s.node.operation, WeightedLinear))


def make_plan(graph: Graph, composite: Composite) -> Plan:
    """Give every operation its rule."""
    moved = {graph.input}
    signs = {graph.input: False}
    steps = []
    for node in graph:
        from_pixels = all(name in moved for name in node.inputs)
        if from_pixels and isinstance(node.operation, Routing):
            moved.add(node.name)
        reads_pixels = from_pixels and isinstance(node.operation, Convolution | Dense)
        rule = composite.rule(node.operation, reads_pixels=reads_pixels)
        steps.append(Step(node, rule, reads_pixels, tuple(signs[name] for name in node.inputs)))
        signs[node.name] = node.non_negative
    return Plan(graph, composite, tuple(steps))
