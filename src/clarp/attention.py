"""Attention between the tokens of a vision transformer, as methods for transformers read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from clarp.capture import Graph, HookPoint, Node
from clarp.operations import Add, Convolution, Softmax
from clarp.propagation import Program
from clarp.propagation.plan import make_plan
from clarp.rules import Halves, Taylor, ZPlus
from clarp.rules.composites import Composite

_RULES = Composite("chefer-lrp", ZPlus(), ZPlus(), product=Halves(), softmax=Taylor())
"""z+ in linear layers, sums by size, products in halves, the softmax linearised; near to Chefer et al."""


@dataclass(frozen=True, eq=False)
class TokenAttention:
    """Where a captured vision transformer computes its attention.

    n tokens: those of a grid of patches, in rows, and in front of them any number of others (a class token,
    registers).

    Attributes:
        graph: the captured network.
        weights: the names of the attention weights (B, heads, n, n) of each block, the first block first.
        ends: the names of the tokens (B, n, width) behind each block.
        grid: the patches, (rows, columns).
    """

    graph: Graph
    weights: tuple[str, ...]
    ends: tuple[str, ...]
    grid: tuple[int, int]

    @classmethod
    def of(cls, graph: Graph, model: str) -> "TokenAttention":
        """Find it.

        Args:
            graph: the captured network.
            model: its name, for the errors.

        Raises:
            ValueError: there is no attention, it is not between all tokens of one grid, or the model has
                further inputs.
        """
        softmaxes = [node for node in graph if _is_attention(node)]
        if not softmaxes:
            raise ValueError(f"{model} has no attention between tokens, which this method reads.")
        if graph.auxiliary.names:
            raise ValueError(f"{model} has inputs beside the images, expected images alone.")
        sizes = {node.shape[-2:] for node in softmaxes}
        grid = _grid(graph)
        ends = _block_ends(graph, softmaxes)
        short = grid is not None and softmaxes[0].shape[-1] < grid[0] * grid[1]
        if len(sizes) > 1 or grid is None or short or len(ends) < len(softmaxes):
            raise ValueError(
                f"{model} has attention of the sizes {', '.join(map(str, sorted(sizes)))}, expected one "
                "size, n x n over the patches of one convolution and the tokens in front of them, as in ViT, "
                "DeiT and DINO; windows (Swin) and attention from a single token have other sizes."
            )
        return cls(graph, tuple(node.name for node in softmaxes), ends, grid)

    @property
    def in_front(self) -> int:
        """How many tokens are in front of the patches."""
        count = next(node.shape[-1] for node in self.graph if node.name == self.weights[0])
        return count - self.grid[0] * self.grid[1]

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        """All values of images (B, C, H, W) by their names, as autograd records them."""
        values = {self.graph.input: images.detach().clone().requires_grad_()}
        with torch.enable_grad():
            for node in self.graph:
                values[node.name] = self._value(node, values)
        return values

    def logits_behind(self, block: int, values: Mapping[str, Tensor]) -> Tensor:
        """The logits (B, N) that the model's own last norm, pooling and head give of a block's tokens."""
        changed = {self.ends[-1]: values[self.ends[block]]}
        with torch.enable_grad():
            for node in self.graph:
                if any(name in changed for name in node.inputs):
                    changed[node.name] = self._value(node, {**values, **changed})
        return changed[self.graph.output]

    def relevance(self, images: Tensor, seed: Tensor) -> list[Tensor]:
        """The relevance of the attention weights (B, heads, n, n) of each block, by z+ rules.

        Args:
            images: (B, C, H, W).
            seed: the initial relevance of the logits, (B, N).
        """
        program, points = self._program, [HookPoint(name) for name in self.weights]
        with torch.no_grad():
            found = program.relevance(
                program.forward(images), seed[None], bounds=(images, images), wanted=points
            )
        return [found.kept[point][0] for point in points]

    def drawn(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """A value for each token, (B, n), as maps (B, H, W): the patches', interpolated bilinearly."""
        cells = tokens[:, None, self.in_front :].unflatten(2, self.grid)
        return F.interpolate(cells, size, mode="bilinear")[:, 0]

    @cached_property
    def _program(self) -> Program:
        some = next(iter(self.graph.tensors.values()))
        plan = make_plan(self.graph, _RULES)
        return Program(plan, some.device, some.dtype, some.dtype, gradients=False)

    def _value(self, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        return node.operation.forward([values[name] for name in node.inputs], self.graph.tensors)[0]


def _is_attention(node: Node) -> bool:
    """Whether it is a softmax over the rows of matrices."""
    return isinstance(node.operation, Softmax) and node.operation.axis == -1 and len(node.shape) in (2, 3)


def _grid(graph: Graph) -> tuple[int, int] | None:
    """Rows and columns of the patches: of the first convolution that reads pixels."""
    pixels = graph.pixels()
    convolutions = (node for node in graph if isinstance(node.operation, Convolution))
    shape = next((node.shape for node in convolutions if pixels.issuperset(node.inputs)), ())
    return (shape[1], shape[2]) if len(shape) == 3 else None


def _block_ends(graph: Graph, softmaxes: list[Node]) -> tuple[str, ...]:
    """The last sum of branches over all tokens before each further attention, and before the head."""
    tokens = softmaxes[0].shape[-1]
    ends, last = list[str](), ""
    for node in graph:
        if node in softmaxes[1:] and last and last not in ends:
            ends.append(last)
        elif isinstance(node.operation, Add) and len(node.shape) == 2 and node.shape[0] == tokens:
            last = node.name
    return (*ends, last) if last and last not in ends else tuple(ends)
