"""What the forward pass keeps for the way back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Size, Tensor

from clarp.capture import Node
from clarp.operations import Record


@dataclass(frozen=True)
class ForwardCache:
    """What the forward pass kept, by the names of values.

    Attributes:
        logits: (B, N).
        values: the values that rules or gradients will read.
        memos: what operations remember for themselves.
        shapes: of all values.
        image_independent: what was made of further inputs alone, in the type of the forward pass.
    """

    logits: Tensor
    values: Mapping[str, Tensor]
    memos: Mapping[str, Tensor]
    shapes: Mapping[str, Size]
    image_independent: Mapping[str, Tensor] = field(default_factory=dict)

    def record(self, node: Node) -> Record:
        """What was kept of one operation."""
        inputs = tuple(self.values.get(name) for name in node.inputs)
        shapes = tuple(self.shapes[name] for name in node.inputs)
        return Record(inputs, self.values.get(node.name), shapes, self.memos.get(node.name))

    def first(self) -> "ForwardCache":
        """That of the first image alone."""
        return ForwardCache(
            self.logits[:1],
            {name: value[:1] for name, value in self.values.items()},
            {name: memo[:1] for name, memo in self.memos.items()},
            {name: Size((1, *shape[1:])) for name, shape in self.shapes.items()},
            {name: value[:1] for name, value in self.image_independent.items()},
        )
