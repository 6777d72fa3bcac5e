"""The user's model as the engine sees it: captured once for each size of image, anew when its parameters change.

Or taken from the cache on disk, where an earlier process left the same model's graph.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from clarp.cache import GraphCache
from clarp.capture import (
    Graph,
    LogitsOf,
    Output,
    capture_exported,
    capture_module,
    example_shape,
    load_exported,
)
from clarp.capture.check import own_logits
from clarp.capture.further import NOTHING, Further, WithInputs
from clarp.capture.output import check_output
from clarp.capture.wrappers import check_kind, shared_copy, unwrapped
from clarp.errors import CaptureError, UnsupportedOperation
from clarp.task import TaskName

CAPTURING = RLock()
"""``torch.export`` changes what belongs to the whole process while it traces, so one thread captures at a time."""

DEPTH = 3
"""How many objects deep (a module's attribute, what that holds, and so on) a change is looked for."""

KEPT = 8
"""Sizes of images whose graphs (and whose programs, in an explainer) are kept; beyond, what was used longest ago goes."""

Model = nn.Module | ExportedProgram | str | Path
Key = tuple[tuple[int, ...], torch.dtype, tuple[object, ...]]
"""The shape of an image, the type of the graph's tensors, and what further inputs there are."""


class Network:
    """A model and the graphs captured of it; the model itself is never changed.

    Args:
        model: a module that returns logits (B, N), an exported program, or the path of a .pt2 file, which can execute code when it
            is loaded.
        output: which of several results are the logits: a key, an attribute, a place in a tuple, or a path of these. None: the only
            tensor, or the one called "logits".
        cache: a folder where the graphs of modules are kept for other processes (docs/performance.md); None: nothing is written.

    Raises:
        TypeError: something else.
        ValueError: the path is no .pt2 file, or a damaged one.
    """

    def __init__(self, model: Model, output: Output = None, *, cache: str | Path | None = None) -> None:
        check_output(output)
        if isinstance(model, LogitsOf):
            output = model.output if output is None else output
            model = model.model
        self.model = _loaded(model)
        self.output = output
        self._cache = None if cache is None else GraphCache(Path(cache))
        self._lock = RLock()
        self._captured: dict[Key, _Captured] = {}
        self._alike: set[Key] = set()

    @property
    def name(self) -> str:
        """The name of the model's class."""
        return type(self.model).__name__

    @property
    def task(self) -> TaskName | None:
        """What the model says of itself, in the words of transformers' configurations; None where it says nothing."""
        said = getattr(getattr(self.model, "config", None), "problem_type", None)
        tasks: dict[object, TaskName] = {
            "single_label_classification": "multiclass",
            "multi_label_classification": "multilabel",
        }
        return tasks.get(said)

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of the model's first floating parameter or buffer; None if it has none."""
        return next((t.dtype for t in self._tensors() if t.is_floating_point()), None)

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters and buffers.

        Raises:
            ValueError: they are on several.
        """
        devices = sorted({str(tensor.device) for tensor in self._tensors()})
        if len(devices) > 1:
            raise ValueError(
                f"the model is on several devices ({', '.join(devices)}), expected one. Move it: model.to({devices[0]!r})."
            )
        return torch.device(devices[0] if devices else "cpu")

    def check_mode(self) -> None:
        """Refuse a model in train mode, and one that can't be captured whatever it computes.

        Raises:
            ValueError: a module is in train mode.
            CaptureError: TorchScript, quantised or sharded modules, or parameters without values.
        """
        if not isinstance(self.model, nn.Module):
            return
        if not self._captured:
            check_kind(self.model)
        training = [
            name or "the model itself" for name, module in self.model.named_modules() if module.training
        ]
        if training:
            raise ValueError(
                f"the model is in train mode ({len(training)} module(s), first: {training[0]}), expected eval mode, where it "
                "is deterministic. Call model.eval() first."
            )

    def input_shape(self) -> tuple[int, ...] | None:
        """(C, H, W) where it is known: an exported program's own, or that of the last capture."""
        if self._captured:
            return list(self._captured)[-1][0]
        if isinstance(self.model, ExportedProgram):
            shape = example_shape(self.model)[1:]
            return tuple(size for size in shape if size is not None) if None not in shape else None
        return None

    def graph(self, shape: tuple[int, ...], dtype: torch.dtype, further: Further = NOTHING) -> Graph:
        """The graph for images (C, H, W) with tensors of this type; the same object as long as the model stays what it is.

        Looked at are parameters, buffers, which modules there are, their attributes, what objects in them hold (three deep, but not
        below a name with an underscore in front), plain attributes of their classes, and their forward hooks; not globals, nor what
        functions have closed over.

        Args:
            shape: of an image.
            dtype: of the graph's tensors.
            further: inputs beside the images. The graph is made for their shapes, and for the values of those that are one for all images.

        Raises:
            CaptureError: the model can't be captured.
            ValueError: the model does not take such images.
        """
        with self._lock:
            key = shape, dtype, further.signature
            before = _state(self.model)
            captured = self._captured.pop(key, None)
            if captured is None or _changed(captured.state, before) - captured.restless:
                captured = self._recaptured(shape, dtype, before, further)
            self._captured[key] = captured  # now the last used
            while len(self._captured) > KEPT:
                del self._captured[next(iter(self._captured))]
            return captured.graph

    def settled(self, shape: tuple[int, ...], dtype: torch.dtype, further: Further) -> tuple[Graph, Further]:
        """The graph, and the inputs as the model takes them: with a row for each image, or where that is refused one for all.

        As many rows as images may be chance: three means for three channels, beside three images.

        Raises:
            CaptureError: the model can't be captured.
            ValueError: the model does not take such images or inputs.
        """
        if not any(further.rows):
            return self.graph(shape, dtype, further), further
        key = shape, dtype, further.signature
        with self._lock:
            if key not in self._alike:
                try:
                    return self.graph(shape, dtype, further), further
                except (CaptureError, ValueError):
                    with suppress(CaptureError, ValueError):
                        graph = self.graph(shape, dtype, further.alike())
                        self._alike.add(key)
                        return graph, further.alike()
                    raise
            return self.graph(shape, dtype, further.alike()), further.alike()

    def _recaptured(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        before: Mapping[tuple[str, str], object],
        further: Further,
    ) -> "_Captured":
        with (
            CAPTURING,
            torch.device(self.device),
            torch.inference_mode(mode=False),
            torch.no_grad(),
            torch.autocast(self.device.type, enabled=False),
        ):
            graph, restless = self._capture(shape, dtype, further)
        after = _state(self.model)
        return _Captured(graph, after, restless | _changed(before, after))

    def _capture(
        self, shape: tuple[int, ...], dtype: torch.dtype, further: Further
    ) -> tuple[Graph, frozenset[tuple[str, str]]]:
        """The graph, and what of a copy of the model its own forward changed."""
        own = self.dtype or dtype
        if isinstance(self.model, nn.Module):
            return self._twin_graph(self.model, self._example((2, *shape), own), dtype, further)
        expected = example_shape(self.model)
        if len(expected) != len(shape) + 1 or any(
            a not in (None, b) for a, b in zip(expected[1:], shape, strict=True)
        ):
            raise ValueError(
                f"images has the shape (B, {', '.join(map(str, shape))}), and the exported program takes {expected} "
                "(None: any). Resize the images, or export the model for this size."
            )
        example = self._example((expected[0] or 2, *shape), own)
        return capture_exported(self.model, example, dtype, self.output, further), frozenset()

    def _twin_graph(
        self, model: nn.Module, example: Tensor, dtype: torch.dtype, further: Further
    ) -> tuple[Graph, frozenset[tuple[str, str]]]:
        """Captured of a copy where that is possible, so that the model can be used beside it."""
        twin = shared_copy(model)
        before = _state(twin, weights=False)
        try:
            try:
                graph = self._module_graph(twin, example, dtype, further)
            except ValueError:  # a forward may check that its pixels lie between zero and one
                graph = self._module_graph(twin, example.sigmoid(), dtype, further)
        except UnsupportedOperation:
            raise
        except (CaptureError, ValueError):
            if twin is model:
                raise
            # What functions have closed over may be the original's.
            return self._module_graph(model, example, dtype, further), frozenset()
        return graph, _changed(before, _state(twin, weights=False))

    def _module_graph(self, model: nn.Module, example: Tensor, dtype: torch.dtype, further: Further) -> Graph:
        """From the cache where it may be, else captured."""
        cache = self._cache
        circumstances = (tuple(example.shape), example.dtype, dtype, self.output, further.signature)
        path = None if cache is None else cache.path(model, *circumstances, _device_name(example.device))
        rows = further.example(example.dtype)
        called = WithInputs(model, further, example.dtype) if further else model
        if cache is None or path is None:
            return capture_module(called, example, dtype, self.output, rows)

        def own(rows: Sequence[Tensor]) -> Tensor:
            with torch.random.fork_rng([example.device] if example.is_cuda else []):
                return own_logits(called, example, self.output, rows).logits

        graph = cache.load(path, model, example, own)
        if graph is None:
            graph = capture_module(called, example, dtype, self.output, rows)
            cache.save(path, model, graph, own(rows), rows)
        return graph

    def _example(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Random images for the check of the captured graph; the global random state stays as it is."""
        generator = torch.Generator(device="cpu").manual_seed(0)
        values = torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")
        return values.to(self.device, dtype)

    def _tensors(self) -> list[Tensor]:
        if isinstance(self.model, ExportedProgram):
            return list(self.model.state_dict.values())
        return [*self.model.parameters(), *self.model.buffers()]

    def __getstate__(self) -> dict[str, object]:
        """Without graphs, which belong to the very objects of this model: a copy captures its own."""
        return {**vars(self), "_captured": {}, "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=RLock())


def _state(model: nn.Module | ExportedProgram, *, weights: bool = True) -> dict[tuple[str, str], object]:
    """All that makes the model what it is: another weight, module, stride or flag, or a new hook is another model.

    Without ``weights`` only which parameters there are, and not their values.
    """
    if isinstance(model, ExportedProgram):
        return {("", name): _values(tensor) for name, tensor in model.state_dict.items()}
    state: dict[tuple[str, str], object] = {}
    kinds = set[type]()
    for path, module in model.named_modules():
        state[path, ""] = _Same(module)
        for name, value in _own(module):
            known = not weights and isinstance(value, nn.Parameter)
            state[path, name] = (
                _Same(value) if known else _attribute(value, 1 if name.startswith("_") else DEPTH)
            )
        kinds.update(
            kind for kind in type(module).__mro__ if not kind.__module__.startswith(("torch.", "builtins"))
        )
    for kind in kinds:
        for name, value in vars(kind).items():
            if isinstance(value, str | bool | int | float | tuple | list | dict) and not name.startswith(
                "__"
            ):
                state[f"class {kind.__qualname__}", name] = _attribute(value)
    return state


@dataclass(frozen=True)
class _Captured:
    """A graph, and the state of the model that it was made from.

    Attributes:
        graph: the captured network.
        state: of the model.
        restless: what the model's own forward changes, the last attention map it keeps, say: no change of the model.
    """

    graph: Graph
    state: Mapping[tuple[str, str], object]
    restless: frozenset[tuple[str, str]]


def _changed(
    before: Mapping[tuple[str, str], object], after: Mapping[tuple[str, str], object]
) -> frozenset[tuple[str, str]]:
    return frozenset(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _device_name(device: torch.device) -> str:
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_NO_OWN = frozenset(vars(nn.Module()))


def _own(module: nn.Module) -> Iterator[tuple[str, object]]:
    """A module's parameters, buffers, hooks and attributes by name, but for what every module has besides."""
    own = vars(module)
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)
    yield from ((name, own[name]) for name in (*_HOOKS, *(own.keys() - _NO_OWN)))


def _attribute(value: object, depth: int = DEPTH) -> object:
    """What changes when an attribute does: its value where it is plain, what is in it, or which object it is."""
    if isinstance(value, Tensor):
        return _values(value)
    if isinstance(value, dict):
        return [(key, _attribute(part, depth)) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [_attribute(part, depth) for part in value]
    if value is None or isinstance(value, str | bytes | bool | int | float | complex):
        return type(value), repr(value) if isinstance(value, float | complex) else value
    inside = getattr(value, "__dict__", None)
    if (
        depth > 1
        and isinstance(inside, dict)
        and not isinstance(value, nn.Module | type)
        and not callable(value)
    ):
        return _Same(value), [(name, _attribute(part, depth - 1)) for name, part in list(inside.items())]
    return type(value), _Same(value)


@dataclass(frozen=True, eq=False)
class _Same:
    """An object that equals only itself, and lives as long as it may be asked."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _values(tensor: Tensor) -> tuple[Any, ...]:
    """What changes when a tensor does: its memory, the count of its in-place changes, and a sum over it.

    The count misses changes through ``.data``, and tensors made in inference mode have none; the sum sees those.
    """
    version = 0 if tensor.is_inference() else tensor._version  # noqa: SLF001  there is no public name
    plain = tensor.detach()
    total = _weighted_sum(plain) if plain.is_floating_point() and plain.numel() else plain.sum()
    # A NaN equals no NaN, its name does.
    return (tensor.data_ptr(), version, tensor.dtype, tensor.device, tensor.shape, repr(total.item()))


def _weighted_sum(tensor: Tensor) -> Tensor:
    """With another weight at each place of a row, and for each row, so that values that change places are seen too."""
    if tensor.ndim < 2:
        return tensor.flatten().dot(_weights(tensor.numel(), tensor.dtype, tensor.device))
    rows = tensor.reshape(len(tensor), -1)
    first, second = (_weights(n, rows.dtype, rows.device) for n in rows.shape)
    return first.dot(rows.mv(second))


@lru_cache(maxsize=256)
def _weights(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return (torch.arange(count, device=device) * 0.618 % 1 + 0.5).to(dtype)


def _loaded(model: object) -> nn.Module | ExportedProgram:
    if isinstance(model, str | Path):
        path = Path(model)
        if path.suffix != ".pt2" or not path.is_file():
            raise ValueError(
                f"model is the path {str(path)!r}, expected an existing .pt2 file, a module or an exported program."
            )
        return load_exported(path)
    if isinstance(model, nn.Module):
        return unwrapped(model)
    if not isinstance(model, ExportedProgram):
        raise TypeError(
            f"model is a {type(model).__name__}, expected a torch.nn.Module, an ExportedProgram, or the path of a .pt2 file."
        )
    return model
