"""Explanations in ONNX Runtime: forward and backward pass, each recorded once, for one image at a time."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from clarp.arguments import ENGINE_LOG
from clarp.cache.programs import ProgramCache
from clarp.compiled import CARRIERS
from clarp.errors import CaptureError
from clarp.exporting.explained import buffer_names
from clarp.optional import optional
from clarp.passes import Maps, is_empty
from clarp.propagation import ForwardCache, Program
from clarp.runner import Computation, Result
from clarp.tree import distinct, filled, mapped, tensors

logger = logging.getLogger(ENGINE_LOG)

WHAT, EXTRA = "The engine onnxruntime", "onnx"


class OnnxRuntime:
    """Runs functions of a program's tensors in ONNX Runtime, for one image, with any number of targets.

    A function is recorded once for each program, which takes up to a minute for a large network. The first
    result is compared with PyTorch's. ONNX Runtime takes as many threads as PyTorch has then.

    Args:
        folder: where recorded functions are kept for other processes; None: nothing is written.

    Raises:
        ModuleNotFoundError: ONNX Runtime is not installed; the message says how to install it.
    """

    def __init__(self, folder: Path | None) -> None:
        optional("onnxruntime", WHAT, EXTRA)
        self._folder = folder
        self._lock = RLock()
        self._loaded: WeakKeyDictionary[Program, dict[object, _Loaded]] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type, tuple[Path | None]]:
        """What was loaded stays in its process."""
        return type(self), (self._folder,)

    def run(self, computation: Computation[Result]) -> Result:
        """The result of a computation with one image, as of :class:`~clarp.runner.Runner`."""
        program, per_target = computation.program, computation.per_target
        given, targets = tensors(computation.arguments, CARRIERS), len(per_target[0]) if per_target else 1
        sizes = [(*v.shape, v.dtype) for v in given] + [(*v.shape[1:], v.dtype) for v in per_target]
        key = f"{computation.what} {sizes}"
        with self._lock:
            of_program = self._loaded.setdefault(program, {})
            loaded = of_program.get(key)
            if loaded is None:
                expected = computation()  # refuses what can't be, in its own words
                loaded = _Loaded(self._model(computation, key), program, expected, targets)
                _check(loaded([*given, *per_target], targets), expected)
                of_program[key] = loaded
        found: Result = loaded([*given, *per_target], targets)
        return found

    def _model(self, computation: Computation[Any], key: str) -> bytes:
        """From disk where it is there, else recorded."""
        cache = ProgramCache.of(self._folder, computation.program.plan, key)
        stored = None if cache is None else cache.load()
        if stored is not None:
            return stored
        optional("onnxscript", WHAT, EXTRA)
        from clarp.exporting.recording import recorded_function  # noqa: PLC0415  needs onnxscript

        logger.info(
            "recording the %s pass for ONNX Runtime, once for each model, method and size of image (%s); it "
            "takes up to a minute",
            "backward" if computation.per_target else "forward",
            "for this process" if cache is None else f"kept in {self._folder}",
        )
        began = time.monotonic()
        model = recorded_function(computation)
        logger.info("recorded in %.0f s", time.monotonic() - began)
        if cache is not None:
            cache.save(model)
        return model


class _Loaded:
    """One function at work.

    Args:
        model: the function.
        program: whose tensors it reads.
        result: what it gave in PyTorch, for so many targets.
        targets: K.
    """

    def __init__(self, model: bytes, program: Program, result: object, targets: int) -> None:
        self._constants = _constants(model, program)  # the session owns none
        self.session = _session(model, self._constants)
        self._inputs = [value.name for value in self.session.get_inputs()]
        flat = tensors(result, CARRIERS)
        once = distinct(flat)
        self._outputs = [
            (value.name, one.dtype, _sizes(value.shape, one.shape, targets))
            for value, one in zip(self.session.get_outputs(), once.values(), strict=True)
        ]
        places = {key: place for place, key in enumerate(once)}
        self._places = [places[id(value)] for value in flat]
        # Without values: an explanation is large.
        self._result = mapped(lambda value: value.to("meta"), result, CARRIERS)

    def __call__(self, given: Sequence[Tensor], targets: int) -> Any:
        """The function's result, for K targets."""
        binding = self.session.io_binding()
        held = [value.contiguous() for value in given]  # until it has run
        for name, value in zip(self._inputs, held, strict=True):
            binding.bind_input(name, *_place(value))
        # In PyTorch's memory: what ONNX Runtime allocates would be copied.
        found = [
            torch.empty([size + more * targets for size, more in sizes], dtype=kind)
            for _, kind, sizes in self._outputs
        ]
        for (name, _, _), value in zip(self._outputs, found, strict=True):
            binding.bind_output(name, *_place(value))
        self.session.run_with_iobinding(binding)
        return filled(self._result, (found[place] for place in self._places), CARRIERS)


def _place(value: Tensor) -> tuple[Any, ...]:
    """Where a tensor lies, as ONNX Runtime takes it."""
    return "cpu", 0, value.numpy().dtype.type, tuple(value.shape), value.data_ptr()


def _sizes(said: Sequence[object], shape: Sequence[int], targets: int) -> list[tuple[int, int]]:
    """Each axis of a result: a constant, and what each target adds to it."""
    return [
        (size, 0) if isinstance(one, int) else (0, size // targets)
        for one, size in zip(said, shape, strict=True)
    ]


def _constants(model: bytes, program: Program) -> dict[str, Tensor]:
    """The program's constants that a model without them reads, by their names in it."""
    onnx = optional("onnx", WHAT, EXTRA)
    read = onnx.load_model_from_string(model).graph.initializer
    missing = {one.name for one in read if one.data_location == onnx.TensorProto.EXTERNAL}
    names = buffer_names(program.tensors).items()
    return {own: program.tensors[name].contiguous() for name, own in names if own in missing}


def _session(model: bytes, constants: Mapping[str, Tensor]) -> Any:
    """An ``onnxruntime.InferenceSession``, which reads the constants where they lie."""
    runtime = optional("onnxruntime", WHAT, EXTRA)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    values = [runtime.OrtValue.ortvalue_from_numpy(value.numpy()) for value in constants.values()]
    options.add_external_initializers(list(constants), values)
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _check(found: object, expected: object) -> None:
    """Refuse what is no rounding of PyTorch's result.

    Raises:
        CaptureError: it is not.
    """
    for what, most, ours, theirs in _compared(found, expected):
        if not bool(theirs.isfinite().all()):
            continue
        least = torch.finfo(theirs.dtype).tiny
        apart = float((ours - theirs).abs().sum() / theirs.abs().sum().clamp(min=least))
        if not apart < most:
            raise CaptureError(
                f"the {what} of ONNX Runtime are {apart:.0%} apart from PyTorch's, expected a difference of "
                "rounding: it can't compute this explanation. Leave engine out."
            )


def _compared(found: object, expected: object) -> Iterator[tuple[str, float, Tensor, Tensor]]:
    """What tells whether two results are the same, and the difference from which on they are not.

    It is summed, and relative to the sum of all values. Selection by the sign of gradients turns rounding
    into differences of up to some percent.
    """
    if isinstance(found, ForwardCache) and isinstance(expected, ForwardCache):
        yield "logits", 1e-2, found.logits, expected.logits
        ours, theirs = (
            torch.cat([value.flatten() for value in one.values.values() if value.is_floating_point()])
            for one in (found, expected)
        )
        yield "activations", 1e-2, ours, theirs
    elif isinstance(found, Maps) and isinstance(expected, Maps):
        shown = ~is_empty(expected.relevance, expected.ledger.size)  # else it is nothing but rounding
        yield "maps", 0.2, found.relevance[shown], expected.relevance[shown]
