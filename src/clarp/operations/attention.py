"""What attention is made of: products of two values, and the softmax."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from string import ascii_lowercase
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from clarp.operations.average import reduced
from clarp.operations.base import Interval, Kept, Operation, Record, Tensors, summed_to, unsqueezed
from clarp.operations.call import Call, Lowered, Refused, Value, lowers
from clarp.operations.condition import Where
from clarp.operations.contraction import Contraction
from clarp.operations.linear import Affine, Dense, scaled
from clarp.operations.merge import Add, Shift
from clarp.operations.shape import Expand, Permute, Reshape, stretched

aten = torch.ops.aten


@dataclass(frozen=True)
class MatMul(Operation):
    """``a @ b`` of two values, (B, ..., N, D) and (B, ..., D, M); the axes between broadcast."""

    rule: ClassVar[str] = "product"
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0] @ inputs[1], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        a, b = record.input(0), record.input(1)
        return summed_to(gradient @ b.mT, record.shapes[0]), summed_to(a.mT @ gradient, record.shapes[1])

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return (0.0 if all(low >= 0 for low, _ in inputs) else -inf), inf


@dataclass(frozen=True)
class Softmax(Operation):
    """``s_i = exp(x_i) / sum_j exp(x_j)`` along one axis.

    Attributes:
        axis: negative, counted from the end.
    """

    rule: ClassVar[str] = "softmax"
    axis: int
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"output"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0].softmax(self.axis), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``s_i (g_i - sum_j s_j g_j)``."""
        s = record.result().expand_as(gradient)
        back = aten._softmax_backward_data.default  # noqa: SLF001  an ATen name
        return (back(gradient, s, self.axis, s.dtype),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return 0.0, 1.0


@dataclass(frozen=True)
class LogSumExp(Operation):
    """``y = log sum_i exp(x_i)`` over these axes (negative): a maximum with soft edges."""

    rule: ClassVar[str] = "Transport"
    axes: tuple[int, ...]
    keepdim: bool
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return torch.logsumexp(inputs[0], self.axes, keepdim=self.keepdim), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g exp(x_i - y)``, the softmax's shares of one."""
        x = record.input()
        shares = (x - torch.logsumexp(x, self.axes, keepdim=True)).exp()
        return (unsqueezed(gradient, self.axes, keepdim=self.keepdim) * shares,)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return inputs[0][0], inf


INSIDE = "_"
"""A letter, which no equation has, for the heads that lie in the batch's axis."""


@lowers(aten.softmax.int, aten._softmax.default)  # noqa: SLF001  an ATen name
def _softmax(call: Call) -> Lowered:
    """Along any axis but the batch."""
    x = call.value("self")
    return Softmax(call.axis(call["dim"], x) - len(call.sizes(x)) - 1), (x,)


@lowers(aten.matmul.default, aten.bmm.default, aten.mm.default)
def _matmul(call: Call) -> Lowered:
    """Two values, or a value and a constant, of at least two axes each."""
    a, b = (call[name] for name in list(call.arguments)[:2])
    first = call.constants.get(a.name)
    if first is not None and first.ndim == 2 and b.name not in call.constants and _batch_last(call, b):
        return Dense(call.new("weight", first), None), (b,)  # the transposed product, as CLIP writes it
    if b.name in call.constants and call.constants[b.name].ndim == 2:
        return Dense(call.new("weight", call.constants[b.name].t().contiguous()), None), (a,)
    if a.name not in call.constants and b.name not in call.constants:
        return MatMul(), _factors(call, a, b)
    axes = len(call.node.meta["val"].shape)
    if any(len(x.meta["val"].shape) < 2 for x in (a, b)):
        raise Refused("it multiplies by a constant vector, expected a matrix")
    letters = ascii_lowercase[: axes - 2]
    terms = (f"{letters}xy"[-a.meta["val"].ndim :], f"{letters}yz"[-b.meta["val"].ndim :])
    return _contraction(call, terms, (a, b), f"{letters}xz")


def _batch_last(call: Call, x: fx.Node) -> bool:
    """Whether a value is a matrix with a column for each image."""
    return x.meta["val"].ndim == 2 and (call.layout(x).axis, call.layout(x).inner) == (1, 1)


def _contraction(call: Call, terms: Sequence[str], operands: Sequence[fx.Node], result: str) -> Lowered:
    """The product of a value and a constant that has no axis of the batch's."""
    first = operands[0].name in call.constants
    (constant, value), (w, x) = (terms if first else terms[::-1]), (operands if first else operands[::-1])
    weight, layout, out = call.constants[w.name], call.layout(x), call.layout()
    batch = value[layout.axis]
    if result[out.axis] != batch or layout.inner != out.inner:
        raise Refused("it mixes the batch with other axes")
    if value[0] in constant and layout.inner == 1:  # a token for each image, say, the same for all
        rows = weight.movedim(constant.index(value[0]), 0)
        if torch.equal(rows[:1].expand_as(rows), rows):
            weight, constant = rows[0], constant.replace(value[0], "")
    # An axis of size one broadcasts; in Einstein's notation it isn't there.
    broadcast = [
        axis
        for axis, size in enumerate(weight.shape)
        if size == 1 and constant[axis] in value and constant[axis] in result
    ]
    kept = "".join(letter for axis, letter in enumerate(constant) if axis not in broadcast)
    weight = weight.squeeze(broadcast) if broadcast else weight
    if batch in kept or not set(value) <= set(kept + result):
        raise Refused("it is no product of each sample by itself with a constant")
    inner = "W" if layout.inner > 1 else ""  # the windows in the batch's axis
    value, result = (
        f"{batch}{term[: place.axis]}{inner}{term[place.axis + 1 :]}"
        for term, place in ((value, layout), (result, out))
    )
    return Contraction(call.new("weight", weight.contiguous()), None, value, kept, result), (x,)


def _factors(call: Call, a: fx.Node, b: fx.Node) -> tuple[Value, ...]:
    """Both values with as many axes as the result."""
    axes = len(call.node.meta["val"].shape)
    if any(len(x.meta["val"].shape) < 2 for x in (a, b)) or call.layout().axis >= axes - 2:
        raise Refused("it is no product of matrices, each sample's by itself")
    return stretched(call, a, call.node), stretched(call, b, call.node)


@lowers(aten.baddbmm.default)
def _baddbmm(call: Call) -> Lowered:
    """A product of two values plus a constant, beta = alpha = 1."""
    summand = call["self"]
    if call["beta"] != 1 or call["alpha"] != 1 or summand.name not in call.constants:
        raise Refused(f"beta={call['beta']} and alpha={call['alpha']}, expected 1, 1 and a constant summand")
    factors = _factors(call, call.value("batch1"), call.value("batch2"))
    product = call.step(MatMul(), factors, call.sizes())
    return Shift(call.new("constant", call.aligned(call.constants[summand.name]))), (product,)


@lowers(aten.scaled_dot_product_attention.default)
def _attention(call: Call) -> Lowered:
    """Without dropout. It becomes scores ``q k^T scale``, a mask or bias, a softmax, and a product with v."""
    if call["dropout_p"]:
        raise Refused("it drops at random: call model.eval() first")
    query, key, value = (call.value(name) for name in ("query", "key", "value"))
    q, k, v = (call.sizes(x) for x in (query, key, value))
    if call["enable_gqa"] or call.layout(query).axis != 0 or not len(q) == len(k) == len(v):
        raise Refused("its queries, keys and values have different axes, or no batch in front")
    scale = call["scale"] or 1 / sqrt(q[-1])
    weight = call.new("scale", torch.tensor(scale, dtype=torch.float64))
    scaled = call.step(Affine(weight, None), (query,), q)
    axes = len(k) + 1
    swapped = (*range(axes - 2), axes - 1, axes - 2)
    transposed = call.step(Permute(swapped), (key,), (*k[:-2], k[-1], k[-2]))
    shape = (*torch.broadcast_shapes(q[:-2], k[:-2]), q[-2], k[-2])
    scores = call.step(MatMul(), (scaled, transposed), shape)
    bias = call["attn_mask"]
    if bias is not None and bias.name not in call.constants:
        return MatMul(), (
            call.step(Softmax(-1), (_beside_computed(call, scores, bias, shape),), shape),
            value,
        )
    if (mask := _mask(call, query, shape)) is not None:
        scores = call.step(Shift(call.new("mask", mask)), (scores,), shape)
    weights = call.step(Softmax(-1), (scores,), shape)
    return MatMul(), (weights, value)


def _beside_computed(call: Call, scores: Value, bias: fx.Node, shape: tuple[int, ...]) -> Value:
    """The scores with a bias, or a mask, that is computed from the image or from a further input."""
    if len(call.sizes(bias)) != len(shape):
        raise Refused("its mask or bias has other axes than the scores")
    whole: Value = bias if call.sizes(bias) == shape else call.step(Expand(shape), (bias,), shape)
    if bias.meta["val"].dtype != torch.bool:
        return call.step(Add(), (scores, whole), shape)
    nothing = call.new("nothing", torch.full((1,) * (len(shape) + 1), -torch.inf, dtype=torch.float64))
    return call.step(Where(None, None, nothing), (whole, scores), shape)


def _mask(call: Call, query: fx.Node, shape: tuple[int, ...]) -> Tensor | None:
    """What is added to the scores: a constant bias, or minus infinity where a mask or causality forbids."""
    if call["is_causal"]:
        allowed = torch.ones(shape[-2:], dtype=torch.bool).tril()
        return torch.zeros(1, *allowed.shape).masked_fill(~allowed, -torch.inf)
    if call["attn_mask"] is None:
        return None
    mask = call.aligned(call.constants[call["attn_mask"].name], query)
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)
    return mask


@lowers(aten.einsum.default)
def _einsum(call: Call) -> Lowered:
    """Of two values, or a value and a constant; the batch's letter first, each letter once in an operand."""
    equation: str = call["equation"].replace(" ", "")
    operands: list[Any] = call["tensors"]
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    result = result if arrow else _implicit(terms)
    if "." in equation or len(terms) != 2 or any(len(set(term)) < len(term) for term in (*terms, result)):
        raise Refused(f"{equation!r}, expected two operands with every letter once")
    if any(operand.name in call.constants for operand in operands):
        return _contraction(call, terms, operands, result)
    a, b = terms
    batch = result[:1]
    if not batch or not a[:1] == b[:1] == batch:
        raise Refused(f"{equation!r}, expected the batch's letter in front")
    layouts = {call.layout(), *map(call.layout, operands)}
    if len(layouts) > 1 or next(iter(layouts)).axis != 0:
        raise Refused(f"{equation!r} mixes the batch with other axes")
    if next(iter(layouts)).inner > 1:  # heads or windows in the batch's axis
        a, b, result = (f"{batch}{INSIDE}{term[1:]}" for term in (a, b, result))
    shared = [letter for letter in a if letter in b and letter in result and letter != batch]
    inner = [letter for letter in a if letter in b and letter not in result]
    rows = [letter for letter in a if letter not in b]
    columns = [letter for letter in b if letter not in a]
    if set(result) != {batch, *shared, *rows, *columns}:
        raise Refused(f"{equation!r}, expected no sum over a letter of one operand alone")
    size = {
        letter: n
        for term, x in zip((a, b), operands, strict=True)
        for letter, n in zip(term[1:], call.sizes(x), strict=True)
    }
    first = _grouped(call, operands[0], a, (shared, rows, inner), size)
    second = _grouped(call, operands[1], b, (shared, inner, columns), size)
    flat = _flat((shared, rows, columns), size)
    product = call.step(MatMul(), (first, second), flat)
    apart = tuple(size[letter] for letter in (*shared, *rows, *columns))
    product = call.step(Reshape(apart), (product,), apart)
    letters = [batch, *shared, *rows, *columns]
    return Permute(tuple(letters.index(letter) for letter in result)), (product,)


def _implicit(terms: list[str]) -> str:
    """What an equation without an arrow means: the letters that occur once, in alphabetical order."""
    letters = "".join(terms)
    return "".join(sorted(letter for letter in letters if letters.count(letter) == 1))


def _flat(groups: tuple[list[str], ...], size: dict[str, int]) -> tuple[int, ...]:
    """The number of elements of each group of letters."""
    return tuple(int(torch.Size([size[letter] for letter in group]).numel()) for group in groups)


def _grouped(call: Call, x: Value, term: str, groups: tuple[list[str], ...], size: dict[str, int]) -> str:
    """A value with its axes in the order of groups of letters, an axis for each group."""
    order = [letter for group in groups for letter in group]
    axes = (0, *(term.index(letter) for letter in order))
    value = call.step(Permute(axes), (x,), tuple(size[letter] for letter in order))
    flat = _flat(groups, size)
    return call.step(Reshape(flat), (value,), flat)


@lowers(aten.logsumexp.default, aten.special_logsumexp.default)
def _logsumexp(call: Call) -> Lowered:
    """Over any axes but the batch."""
    return LogSumExp(reduced(call), call["keepdim"]), (call.value("self"),)


@lowers(aten.log_softmax.int, aten._log_softmax.default)  # noqa: SLF001  an ATen name
def _log_softmax(call: Call) -> Lowered:
    """Inside the model. It becomes the value minus its ``logsumexp``."""
    x: fx.Node = call.value("self")
    shape = call.sizes()
    axis = call.axis(call["dim"], x)
    kept = (*shape[: axis - 1], 1, *shape[axis:])
    total = call.step(LogSumExp((axis - len(shape) - 1,), keepdim=True), (x,), kept)
    wide = call.step(Expand(shape), (total,), shape)
    return Add(), (x, scaled(call, wide, -1.0))
