"""Fourier transforms: what is between them is complex, and as a whole one linear function of real values.

A product in the Fourier domain is a circular convolution, and becomes one (GFNet's filters, spectral
convolutions, low passes). Any other linear function (FNet's real part, the transforms of a Fourier unit,
between which there are activations) becomes its matrix, if that is small.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from clarp.operations.call import Call, Lowered, Refused, Value, lowers
from clarp.operations.indexing import Rearrange
from clarp.operations.linear import Convolution, Dense
from clarp.operations.shape import Reshape

aten = torch.ops.aten


LARGEST = 1 << 24
"""Elements of a matrix or of a filter's weights, at most."""
EXACT = 1e-9
DOUBLE = {torch.float32: torch.float64, torch.float16: torch.float64, torch.complex64: torch.complex128}
TRANSFORMS = "fft_"

Function = Callable[[Tensor], Tensor]


ENDS = (
    aten.fft_irfft.default,
    aten.fft_irfft2.default,
    aten.fft_irfftn.default,
    aten.fft_hfft.default,
    aten.real.default,
    aten.imag.default,
    aten.view_as_real.default,
)
"""What makes real values of complex ones."""


@lowers(*ENDS, batch="first")
def _from_complex(call: Call) -> Lowered:
    """The last operation of a linear function of one real value that goes through complex values.

    The whole function becomes a convolution with a filter, or a dense layer with a small matrix.
    """
    entry, function, axes = _through_complex(call)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(2, *call.shape(entry), generator=generator, dtype=torch.float64)
    result = function(probe)
    if call.shape(entry) == call.shape() and axes:
        for weight in _filters(function, call.shape(), axes):
            if _close(_circular(probe, weight, axes), result):
                return _convolved(call, entry, weight, axes)
    size, count = prod(call.shape(entry)), prod(call.shape())
    if size * count > LARGEST:
        raise Refused(
            "it ends a function through Fourier transforms that is no filter, and whose matrix would have "
            f"{count} x {size} elements"
        )
    matrix = _matrix(function, call.shape(entry)).reshape(size, count)
    if not _close(probe.flatten(1) @ matrix, result.flatten(1)):
        raise Refused(
            "what lies between the Fourier transforms is not linear in the value that they transform"
        )
    flat = call.step(Reshape((size,)), (entry,), (size,))
    mapped = call.step(Dense(call.new("weight", matrix.t().contiguous()), None), (flat,), (count,))
    return Reshape(call.shape()), (mapped,)


def is_complex(node: fx.Node) -> bool:
    """Whether a value of the exported graph is complex."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_complex()


def _through_complex(call: Call) -> tuple[fx.Node, Function, tuple[int, ...]]:
    """The real value that complex ones are made of, the function from it to the result, and its axes."""
    region, entries = _region(call)
    if len(entries) != 1:
        raise Refused(
            f"complex values are made of {len(entries)} values computed from the image, expected one"
        )
    order = [node for node in call.node.graph.nodes if node in region]

    def function(values: Tensor) -> Tensor:
        known: dict[fx.Node, Any] = {entries[0]: values}

        def value(node: fx.Node) -> Any:
            if node in known:
                return known[node]
            constant = call.constants.get(node.name)
            if constant is None:
                return _number(node.meta["val"], call, len(values))
            return constant.cpu().to(DOUBLE.get(constant.dtype, constant.dtype))

        for node in order:
            target: Any = node.target
            arguments = fx.map_arg((node.args, node.kwargs), value)
            args, kwargs = pytree.tree_map(_in_double, arguments)
            known[node] = target(*args, **kwargs)
        result: Tensor = known[call.node]
        return result

    return entries[0], function, _axes(order)


def _region(call: Call) -> tuple[set[fx.Node], list[fx.Node]]:
    """The complex values that a real one is made of, and the real values that they are made of."""
    region, waiting, entries = {call.node}, [call.node], dict[fx.Node, None]()
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source.name in call.constants or not isinstance(source.meta.get("val"), Tensor):
                continue
            if not is_complex(source):
                entries[source] = None
            elif source not in region:
                region.add(source)
                waiting.append(source)
    return region, list(entries)


def _in_double(argument: object) -> object:
    return DOUBLE.get(argument, argument) if isinstance(argument, torch.dtype) else argument


def _number(value: Any, call: Call, batch: int) -> Any:
    if not isinstance(value, torch.SymInt):
        return value
    return int(value.node.expr.subs({call.batch.node.expr: batch}))


def _axes(order: list[fx.Node]) -> tuple[int, ...]:
    """Which axes are transformed, of a value with the batch first; () where that can't be told."""
    found = set[tuple[int, ...]]()
    for node in order:
        name = str(node.target).removeprefix("aten.").partition(".")[0]
        if not name.startswith(TRANSFORMS) or "shift" in name:
            continue
        ndim = node.meta["val"].ndim
        given = node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else None)
        if given is None:
            given = list(range(ndim)) if name.endswith("n") else [-2, -1] if name.endswith("2") else -1
        axes = given if isinstance(given, list | tuple) else [given]
        found.add(tuple(sorted(int(axis) % ndim for axis in axes if isinstance(axis, int))))
    together = tuple(sorted({axis for axes in found for axis in axes}))
    return () if 0 in together else together


def _filters(function: Function, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """What one place gives to all others, (C', C / groups, ...): of each channel alone, or each for all."""
    sizes = [shape[axis - 1] for axis in axes]
    channels = prod(shape) // prod(sizes)
    delta = torch.zeros(channels, *sizes, dtype=torch.float64)
    delta.flatten(1)[:, 0] = 1
    yield _channels_first(function(torch.stack([_back(delta, shape, axes)] * 2))[:1], axes)[0].unsqueeze(1)
    if channels > 1 and channels * channels * prod(sizes) <= LARGEST:
        one = torch.eye(channels, dtype=torch.float64).view(channels, channels, *(1,) * len(sizes)) * delta
        given = torch.stack([function(torch.stack([_back(row, shape, axes)] * 2))[0] for row in one])
        yield _channels_first(given, axes).transpose(0, 1)


def _channels_first(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """(B, *shape) as (B, C, ...), the transformed axes last."""
    others = [axis for axis in range(1, x.ndim) if axis not in axes]
    return x.permute(0, *others, *axes).reshape(len(x), -1, *(x.shape[axis] for axis in axes))


def _back(x: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """(C, ...) as one sample of this shape."""
    others = [axis for axis in range(1, len(shape) + 1) if axis not in axes]
    order = [*others, *axes]
    wide = x.reshape([shape[axis - 1] for axis in order])
    return wide.permute([order.index(axis) for axis in range(1, len(shape) + 1)])


def _circular(x: Tensor, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Each sample convolved around its edges, by the definition of a product of transforms."""
    rows, along = _channels_first(x, axes), tuple(range(-len(axes), 0))
    spectrum, response = torch.fft.fftn(rows, dim=along), torch.fft.fftn(weight, dim=along)
    if weight.shape[1] == 1 and rows.shape[1] == weight.shape[0]:
        found = spectrum * response[:, 0]
    else:
        found = torch.einsum("bc...,oc...->bo...", spectrum, response)
    rows = torch.fft.ifftn(found, dim=along).real
    return torch.stack([_back(row, tuple(x.shape[1:]), axes) for row in rows])


def _convolved(call: Call, entry: Value, weight: Tensor, axes: tuple[int, ...]) -> Lowered:
    """The same as a convolution of the values repeated around the edges."""
    shape, sizes = call.shape(), tuple(weight.shape[2:])
    channels, along = weight.shape[0], tuple(range(-len(sizes), 0))
    places = torch.arange(1, prod(shape) + 1).view(1, *shape)
    wide = _channels_first(places, axes)[0]
    for axis, size in zip(along, sizes, strict=True):
        wide = wide.index_select(axis, torch.arange(1 - size, size) % size)
    around = call.step(
        Rearrange(call.new("around", wide.flatten()), tuple(wide.shape)), (entry,), tuple(wide.shape)
    )
    nothing, ones = (0,) * len(sizes), (1,) * len(sizes)
    kernel = call.new("weight", weight.flip(along).contiguous())
    operation = Convolution(kernel, None, ones, nothing, ones, 1 if weight.shape[1] > 1 else channels)
    filtered = call.step(operation, (around,), (channels, *sizes))
    order = _back(torch.arange(1, prod(shape) + 1).view(channels, *sizes), shape, axes)
    return Rearrange(call.new("back", order.flatten()), shape), (filtered,)


def _matrix(function: Function, shape: tuple[int, ...]) -> Tensor:
    """A row for each element of the input."""
    rows = torch.eye(prod(shape), dtype=torch.float64).view(-1, *shape)
    return torch.cat([function(part) for part in rows.split(256)])


def _close(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) <= EXACT * max(float(b.abs().max()), 1e-30)
