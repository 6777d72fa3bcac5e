"""The plan: every operation of the graph with its rule."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import TYPE_CHECKING

from clarp.capture import Graph, Node
from clarp.operations import (
    Add,
    Affine,
    Convolution,
    Dense,
    GridSample,
    MatMul,
    Multiply,
    Shift,
    Softmax,
    Unpool,
    WeightedLinear,
)
from clarp.operations.contraction import RESIZING
from clarp.rules import Gate, Hold, Rule
from clarp.rules.composites import Composite, settled
from clarp.rules.merge import product_rule
from clarp.table import data_frame, table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Step:
    """One operation and its rule.

    Attributes:
        node: the operation at its place in the network.
        rule: how it hands relevance on.
        reads_pixels: whether it is a linear operation that reads the image itself, perhaps reshaped, resized
            or normalised.
        signs: for each input whether it can't be negative.
        constant: for each input whether it is held constant, because its rule or those of all that it is
            made of say so.
    """

    node: Node
    rule: Rule
    reads_pixels: bool
    signs: tuple[bool, ...]
    constant: tuple[bool, ...]

    @property
    def receivers(self) -> tuple[str, ...]:
        """The inputs that may get relevance: not what is a gate, or says where values are placed."""
        inputs = self.node.inputs
        if isinstance(self.rule, Hold):
            return ()
        if isinstance(self.rule, Gate):
            return (inputs[self.rule.signal],)
        return inputs[:1] if isinstance(self.node.operation, GridSample | Unpool) else inputs


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

    def to_frame(self) -> "DataFrame":
        """A pandas data frame of :meth:`rows`.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        return data_frame(self.rows())

    def __str__(self) -> str:
        return "\n".join(table(self.rows(), ["module", "operation", "output", "rule"]))

    def reached(self) -> frozenset[str]:
        """The values that relevance can arrive at; what only makes gates is held constant."""
        found = {self.graph.output}
        for step in reversed(self.steps):
            if step.node.name in found:
                found.update(step.receivers)
        return frozenset(found)

    def convolutions(self) -> tuple[Node, ...]:
        """The convolutions that relevance can arrive at, in the order of computation."""
        reached = self.reached()
        nodes = (step.node for step in self.steps)
        return tuple(n for n in nodes if isinstance(n.operation, Convolution) and n.name in reached)

    def head(self) -> Node:
        """The linear operation with weights that computes the logits.

        Raises:
            ValueError: there are several, whose results are put together, or parts of the logits that none
                computes.
        """
        makers, image_independent = {node.name: node for node in self.graph}, self.graph.image_independent()
        names, found = [self.graph.output], dict[str, Node | None]()
        for name in names:  # grows while it is read
            node = makers.get(name)
            if name in image_independent:
                continue
            if node is None or (
                isinstance(node.operation, WeightedLinear) and not isinstance(node.operation, Affine)
            ):
                found[name] = node
            else:
                names.extend(input_ for input_ in node.inputs if input_ not in names)
        first, *others = found.values()
        if others or first is None:
            heads = ", ".join(
                "the images" if node is None else node.module or "(model)" for node in found.values()
            )
            raise ValueError(
                f"the logits are made of several results ({heads}), expected one last layer with weights, "
                "whose weights passes='dual' negates. Use passes='two_pass', for example the method "
                "'clrp1'."
            )
        return first


def positions(node: Node) -> int:
    """At how many positions of an image a dense layer acts, or a convolution, in each window of it."""
    if isinstance(node.operation, Convolution):
        return prod(node.shape[-len(node.operation.stride) :])
    return prod(node.shape[:-1])


def last_spatial(nodes: Sequence[Node]) -> Node:
    """The last of these that acts at more than one position, where none does the last of all.

    What comes after it is no place to look for objects: the layers of a squeeze-and-excitation gate, or those
    behind the pooling.
    """
    return next((node for node in reversed(nodes) if positions(node) > 1), nodes[-1])


def make_plan(graph: Graph, composite: Composite) -> Plan:
    """Give every operation its rule."""
    pixels = graph.pixels()
    image_independent = graph.image_independent()
    intervals = dict.fromkeys((graph.input, *graph.auxiliary.names), (-inf, inf))
    constant = {graph.input: False, **dict.fromkeys(image_independent, True)}
    weighing = _weighing(graph)
    steps = []
    for node in graph:
        reading = isinstance(node.operation, (Convolution, Dense, Affine, Shift, *RESIZING))
        reads_pixels = reading and pixels.issuperset(node.inputs)
        signal = next((i for i, name in enumerate(node.inputs) if name not in image_independent), 0)
        ends = [intervals[name] for name in node.inputs]
        inputs_constant = tuple(constant[name] for name in node.inputs)
        if isinstance(node.operation, Add) and node.name in pixels:
            rule: Rule = Gate(signal)  # pixels to which a further input was added are pixels still
        elif isinstance(node.operation, Multiply):
            rule = product_rule(ends, inputs_constant)
        else:
            rule = composite.rule(
                node.operation,
                reads_pixels=reads_pixels,
                only_weighs=node.name in weighing,
                depthwise=_is_depthwise(node, graph),
                at_tokens=_at_tokens(node),
            )
        steps.append(Step(node, rule, reads_pixels, tuple(low >= 0 for low, _ in ends), inputs_constant))
        intervals[node.name] = (node.low, node.high)
        constant[node.name] = isinstance(rule, Hold) or all(inputs_constant)
    return Plan(graph, composite, tuple(steps))


def composite_on(composite: Composite, graph: Graph) -> Composite:
    """The composite that a default gives way to in this network; one that was asked for stays.

    Depthwise convolutions have as many groups as channels, and more than one. A transformer has attention (a
    softmax that only weighs, in a product of two values) and more dense layers that act at every position
    than convolutions; a convolutional network with an attention at its end is none.
    """
    weighing = _weighing(graph)
    attends = any(isinstance(node.operation, Softmax) and node.name in weighing for node in graph)
    kinds = Counter(type(node.operation) for node in graph)
    at_tokens = sum(map(_at_tokens, graph))
    return settled(
        composite,
        depthwise=any(_is_depthwise(node, graph) for node in graph),
        transformer=attends and kinds[MatMul] > 0 and at_tokens > kinds[Convolution],
    )


def _at_tokens(node: Node) -> bool:
    """Whether it is a dense layer that acts at every position."""
    return isinstance(node.operation, Dense) and len(node.shape) > 1


def _is_depthwise(node: Node, graph: Graph) -> bool:
    operation = node.operation
    return (
        isinstance(operation, Convolution)
        and operation.groups > 1
        and graph.tensors[operation.weight].shape[1] == 1
    )


def _weighing(graph: Graph) -> set[str]:
    """The values that are read as factors of products only, perhaps after more operations on them alone."""
    users = graph.users()
    found: set[str] = set()
    for node in reversed(graph.nodes):
        readers = users.get(node.name, ())
        if node.name != graph.output and all(
            isinstance(reader.operation, MatMul | Multiply) or reader.name in found for reader in readers
        ):
            found.add(node.name)
    return found
