"""A user's model and its graphs, captured once for each size of image, anew when the model changes."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from clarp.cache import GraphCache
from clarp.capture import (
    Graph,
    capture_exported,
    capture_module,
    example_shape,
)
from clarp.capture.check import own_logits
from clarp.capture.exporting import quiet
from clarp.capture.further import NOTHING, Further, WithInputs
from clarp.capture.wrappers import check_kind, shared_copy, unwrapped
from clarp.errors import CaptureError, UnsupportedOperation
from clarp.model_state import State, StateKey, changed, state_of
from clarp.output import LogitsOf, Output, check_output
from clarp.task import TaskName

CAPTURING = RLock()
"""``torch.export`` changes state of the whole process while it traces: one thread at a time."""

KEPT = 8
"""How many sizes of images keep their graph, and their program in an explainer; the last used."""

Model = nn.Module | ExportedProgram | str | Path
Key = tuple[tuple[int, ...], torch.dtype, tuple[object, ...]]
"""The shape of an image, the type of the graph's tensors, and what further inputs there are."""


def load_exported(file: Path) -> ExportedProgram:
    """The program in a .pt2 file.

    Loading executes code that the file may have in it: PyTorch reads parts of it as pickles, also of a file
    that it then refuses.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what ``torch.export.save`` wrote.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such model file.")
    try:
        with quiet():
            return torch.export.load(file)
    except Exception as error:  # torch.export documents none; whatever it is, the file is at fault
        raise ValueError(
            f"{file}: not a program that torch.export.save wrote, or damaged ({type(error).__name__}). "
            "Loading a .pt2 file can execute code that is in it, even one that is refused, so take none "
            "from somebody whom you would not let run a program. --weights (safetensors, a state dict or a "
            "checkpoint) executes nothing."
        ) from error


class Network:
    """A model and the graphs captured of it; the model itself is never changed.

    Args:
        model: a module that returns logits (B, N), an exported program, or the path of a .pt2 file, which can
            execute code when it is loaded.
        output: which of several results are the logits: a key, an attribute, a place in a tuple, or a path of
            these. None: the only tensor, or the one called "logits".
        cache: a folder where the graphs of modules are kept for other processes (docs/performance.md); None:
            nothing is written.
        differentiable: for :class:`clarp.Explainer` with ``differentiable=True``. Other values of parameters
            and buffers don't capture it anew, and nothing is kept in the cache.

    Raises:
        TypeError: something else.
        ValueError: the path is no .pt2 file, or a damaged one; or an exported program that is to be
            differentiable.
    """

    def __init__(
        self,
        model: Model,
        output: Output = None,
        *,
        cache: str | Path | None = None,
        differentiable: bool = False,
    ) -> None:
        check_output(output)
        if isinstance(model, LogitsOf):
            output = model.output if output is None else output
            model = model.model
        self.model = _loaded(model)
        self.output = output
        if differentiable and not isinstance(self.model, nn.Module):
            raise ValueError(
                "differentiable=True was given with an exported program, expected a torch.nn.Module. Pass "
                "the module that was exported."
            )
        self.differentiable = differentiable
        self._cache = None if cache is None or differentiable else GraphCache(Path(cache))
        self._lock = RLock()
        self._captured: dict[Key, _Captured] = {}
        self._alike: set[Key] = set()

    @property
    def cache(self) -> Path | None:
        """The folder where graphs are kept for other processes, or None."""
        return None if self._cache is None else self._cache.folder

    @property
    def name(self) -> str:
        """The name of the model's class."""
        return type(self.model).__name__

    @property
    def task(self) -> TaskName | None:
        """What the model's configuration says (transformers' ``problem_type``), or None."""
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
                f"the model is on several devices ({', '.join(devices)}), expected one. Move it: "
                f"model.to({devices[0]!r})."
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
                f"the model is in train mode ({len(training)} module(s), first: {training[0]}), expected "
                "eval mode, where it is deterministic. Call model.eval() first."
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
        """The graph for images (C, H, W) with tensors of this type; the same object until the model changes.

        Looked at are parameters, buffers, which modules there are, their attributes, what objects in them
        hold (three deep, but not below a name with an underscore in front), plain attributes of their
        classes, and their forward hooks; not globals, nor what functions have closed over.

        Args:
            shape: of an image.
            dtype: of the graph's tensors.
            further: inputs beside the images. The graph is made for their shapes, and for the values of those
                that are one for all images.

        Raises:
            CaptureError: the model can't be captured.
            ValueError: the model does not take such images.
        """
        with self._lock:
            key = shape, dtype, further.signature
            before = self._state()
            captured = self._captured.pop(key, None)
            if captured is None or changed(captured.state, before) - captured.changing:
                captured = self._recaptured(shape, dtype, before, further)
            self._captured[key] = captured  # now the last used
            while len(self._captured) > KEPT:
                del self._captured[next(iter(self._captured))]
            return captured.graph

    def settled(self, shape: tuple[int, ...], dtype: torch.dtype, further: Further) -> tuple[Graph, Further]:
        """The graph, and the inputs as the model takes them: a row for each image, or else one for all.

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

    def _state(self) -> State:
        """Whose change captures the model anew."""
        values = not self.differentiable
        return state_of(self.model, weights=values, buffers=values)

    def _recaptured(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        before: State,
        further: Further,
    ) -> "_Captured":
        with (
            CAPTURING,
            torch.device(self.device),
            torch.inference_mode(mode=False),
            torch.no_grad(),
            torch.autocast(self.device.type, enabled=False),
        ):
            graph, changing = self._capture(shape, dtype, further)
        after = self._state()
        return _Captured(graph, after, changing | changed(before, after))

    def _capture(
        self, shape: tuple[int, ...], dtype: torch.dtype, further: Further
    ) -> tuple[Graph, frozenset[StateKey]]:
        """The graph, and what of a copy of the model its own forward changed."""
        own = self.dtype or dtype
        if isinstance(self.model, nn.Module):
            return self._twin_graph(self.model, self._example((2, *shape), own), dtype, further)
        expected = example_shape(self.model)
        if len(expected) != len(shape) + 1 or any(
            a not in (None, b) for a, b in zip(expected[1:], shape, strict=True)
        ):
            raise ValueError(
                f"images has the shape (B, {', '.join(map(str, shape))}), and the exported program takes "
                f"{expected} (None: any). Resize the images, or export the model for this size."
            )
        example = self._example((expected[0] or 2, *shape), own)
        return capture_exported(self.model, example, dtype, self.output, further), frozenset()

    def _twin_graph(
        self, model: nn.Module, example: Tensor, dtype: torch.dtype, further: Further
    ) -> tuple[Graph, frozenset[StateKey]]:
        """Captured of a copy where that is possible, so that the model can be used beside it."""
        twin = shared_copy(model)
        before = state_of(twin, weights=False)
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
        return graph, changed(before, state_of(twin, weights=False))

    def _module_graph(self, model: nn.Module, example: Tensor, dtype: torch.dtype, further: Further) -> Graph:
        """From the cache where it may be, else captured."""
        cache = self._cache
        circumstances = (tuple(example.shape), example.dtype, dtype, self.output, further.signature)
        path = None if cache is None else cache.path(model, *circumstances, _device_name(example.device))
        rows = further.example(example.dtype)
        called = WithInputs(model, further, example.dtype) if further else model
        if cache is None or path is None:
            return capture_module(called, example, dtype, self.output, rows, live=self.differentiable)

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


@dataclass(frozen=True)
class _Captured:
    """A graph, and the state of the model that it was made from.

    Attributes:
        graph: the captured network.
        state: of the model.
        changing: what the model's own forward changes, the last attention map it keeps, say: no change of the
            model.
    """

    graph: Graph
    state: State
    changing: frozenset[StateKey]


def _device_name(device: torch.device) -> str:
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def _loaded(model: object) -> nn.Module | ExportedProgram:
    if isinstance(model, str | Path):
        path = Path(model)
        if path.suffix != ".pt2" or not path.is_file():
            raise ValueError(
                f"model is the path {str(path)!r}, expected an existing .pt2 file, a module or an exported "
                "program."
            )
        return load_exported(path)
    if isinstance(model, nn.Module):
        return unwrapped(model)
    if not isinstance(model, ExportedProgram):
        raise TypeError(
            f"model is a {type(model).__name__}, expected a torch.nn.Module, an ExportedProgram, or the "
            "path of a .pt2 file."
        )
    return model
