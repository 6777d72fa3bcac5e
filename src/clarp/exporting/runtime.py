"""Explanations in ONNX Runtime: forward and backward pass, each recorded once, for one image at a time."""

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from clarp.cache.programs import ProgramCache, program_key
from clarp.compiled import CARRIERS
from clarp.errors import CaptureError
from clarp.exporting.packing import Packing
from clarp.optional import optional
from clarp.propagation import Program
from clarp.tree import filled, mapped, tensors

Result = TypeVar("Result")
logger = logging.getLogger("clarp.engine")

EXTRA = "onnx"
WRONG = 0.2
"""From this difference on, summed and relative to the sum of all values, a result is no rounding of PyTorch's.
Selection by the sign of gradients turns rounding into differences of up to some percent."""
SHOWN = 3
"""Axes from which on a result is compared: those of values and maps, not of sums."""
_TYPES: dict[str, tuple[torch.dtype, Any]] = {
    "tensor(float)": (torch.float32, np.float32),
    "tensor(int64)": (torch.int64, np.int64),
    "tensor(bool)": (torch.bool, np.bool_),
}


@dataclass(frozen=True)
class _Stored:
    """What is kept on disk of one function.

    Attributes:
        model: an ONNX model without its weights.
        weights: which of its constants are which of the program's tensors.
        packing: of its results.
    """

    model: bytes
    weights: dict[str, str]
    packing: Packing

    def to_bytes(self) -> bytes:
        """The content of a file: a line of JSON, then the model."""
        head = {"weights": self.weights, "packing": asdict(self.packing)}
        return json.dumps(head).encode() + b"\n" + self.model

    @classmethod
    def from_bytes(cls, content: bytes) -> "_Stored":
        """What :meth:`to_bytes` wrote."""
        head, _, model = content.partition(b"\n")
        said = json.loads(head)
        packing = said["packing"]
        groups = tuple(tuple(group) for group in packing["groups"])
        return cls(model, said["weights"], Packing(groups, tuple((a, b) for a, b in packing["places"])))


class _Loaded:
    """One function at work.

    Args:
        stored: the function.
        program: whose tensors it reads.
        result: what it gave in PyTorch, for so many targets.
        targets: K.
    """

    def __init__(self, stored: _Stored, program: Program, result: object, targets: int) -> None:
        self._session = _session(stored, program)
        self._packing = stored.packing
        self._inputs = [value.name for value in self._session.get_inputs()]
        flat = tensors(result, CARRIERS)
        packed = stored.packing.pack(flat)
        self._outputs = [
            (value.name, *_TYPES[value.type], _sizes(value.shape, one.shape, targets))
            for value, one in zip(self._session.get_outputs(), packed, strict=True)
        ]
        # Without values: an explanation is large.
        self._result = mapped(lambda value: value.to("meta"), result, CARRIERS)

    def __call__(self, given: Sequence[Tensor], targets: int) -> Any:
        """The function's result, for K targets."""
        binding = self._session.io_binding()
        held = [value.contiguous() for value in given]  # until it has run
        for name, value in zip(self._inputs, held, strict=True):
            kind = next(number for known, number in _TYPES.values() if known == value.dtype)
            binding.bind_input(name, "cpu", 0, kind, tuple(value.shape), value.data_ptr())
        found = []
        for name, dtype, kind, sizes in self._outputs:
            shape = tuple(count if fixed else count * targets for count, fixed in sizes)
            value = torch.empty(shape, dtype=dtype)
            binding.bind_output(name, "cpu", 0, kind, shape, value.data_ptr())
            found.append(value)
        self._session.run_with_iobinding(binding)
        return filled(self._result, iter(self._packing.unpack(found)), CARRIERS)


def _sizes(said: Sequence[object], shape: Sequence[int], targets: int) -> list[tuple[int, bool]]:
    """Each axis of a result: its size and True, or how many times the targets it is and False."""
    return [
        (size, True) if isinstance(one, int) else (size // targets, False)
        for one, size in zip(said, shape, strict=True)
    ]


def _session(stored: _Stored, program: Program) -> Any:
    runtime = optional("onnxruntime", "The engine onnxruntime", EXTRA)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    weights = {own: program.tensors[name].contiguous().numpy() for own, name in stored.weights.items()}
    values = [runtime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
    options.add_external_initializers(list(weights), values)
    return runtime.InferenceSession(stored.model, options, providers=["CPUExecutionProvider"])


class OnnxRuntime:
    """Runs functions of a program's tensors in ONNX Runtime, one image at a time, with any number of targets.

    A function is recorded and converted once for each program, which takes a minute for a large network. The
    first result is compared with PyTorch's.

    Args:
        folder: where converted functions are kept for other processes; None: nothing is written.

    Raises:
        ModuleNotFoundError: ONNX Runtime is not installed; the message says how to install it.
    """

    def __init__(self, folder: Path | None) -> None:
        optional("onnxruntime", "The engine onnxruntime", EXTRA)
        self._cache = None if folder is None else ProgramCache(folder)
        self._lock = RLock()
        self._loaded: WeakKeyDictionary[Program, dict[object, _Loaded]] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type, tuple[Path | None]]:
        """What was loaded stays in its process."""
        return type(self), (None if self._cache is None else self._cache.folder,)

    def run(
        self,
        program: Program,
        what: str,
        function: Callable[..., Result],
        arguments: Sequence[object],
        per_target: Sequence[Tensor] = (),
    ) -> Result:
        """``function(program, *arguments, *per_target)`` for one image.

        Args:
            program: for which; when it goes, what was loaded for it goes.
            what: tells the function from others of the same program, and from itself in other circumstances.
            function: of tensors, and of what holds them; nothing that it does may depend on their values.
            arguments: for it, of one image.
            per_target: for it, (K, ...) each.

        Raises:
            CaptureError: the function can't be recorded, or is another one in ONNX Runtime.
            UnsupportedOperation: ONNX has not what it needs.
            ModuleNotFoundError: what converts is not installed; the message says how to install it.
        """
        fixed = tensors(arguments, CARRIERS)
        targets = len(per_target[0]) if per_target else 1
        sizes = [(tuple(v.shape), v.dtype) for v in fixed] + [
            (tuple(v.shape[1:]), v.dtype) for v in per_target
        ]
        key = what, tuple(sizes)
        with self._lock:
            of_program = self._loaded.setdefault(program, {})
            if key not in of_program:
                return self._first(program, key, function, arguments, per_target, targets)
            loaded = of_program[key]
        found: Result = loaded([*fixed, *per_target], targets)
        return found

    def _first(
        self,
        program: Program,
        key: tuple[str, object],
        function: Callable[..., Result],
        arguments: Sequence[object],
        per_target: Sequence[Tensor],
        targets: int,
    ) -> Result:
        """The first result of a function, which shows that the runtime computes what PyTorch computes."""
        expected = function(program, *arguments, *per_target)  # refuses what can't be, in its own words
        stored = self._stored(program, key, function, arguments, per_target)
        loaded = _Loaded(stored, program, expected, targets)
        found: Result = loaded([*tensors(arguments, CARRIERS), *per_target], targets)
        _check(found, expected)
        self._loaded[program][key] = loaded
        return found

    def _stored(
        self,
        program: Program,
        key: tuple[str, object],
        function: Callable[..., Any],
        arguments: Sequence[object],
        per_target: Sequence[Tensor],
    ) -> _Stored:
        """From disk where it is there, else converted."""
        cache, name = self._cache, None
        if cache is not None and (name := program_key(program.plan, *key)) is not None:
            content = cache.load(name)
            if content is not None:
                return _Stored.from_bytes(content)
        optional("onnxscript", "The engine onnxruntime", EXTRA)
        from clarp.exporting.recording import converted  # noqa: PLC0415  needs onnxscript

        kept = "for this process" if cache is None or name is None else f"kept in {cache.folder}"
        logger.info(
            "converting the %s pass for ONNX Runtime, once for each model, method and size of image (%s); "
            "it takes up to a minute ...",
            "backward" if per_target else "forward",
            kept,
        )
        began = time.monotonic()
        stored = _Stored(*converted(program, function, arguments, per_target))
        logger.info("converted in %.0f s", time.monotonic() - began)
        if cache is not None and name is not None:
            cache.save(name, stored.to_bytes())
        return stored


def _check(found: object, expected: object) -> None:
    """Refuse what is no rounding of PyTorch's result.

    Raises:
        CaptureError: it is not.
    """
    pairs = zip(tensors(found, CARRIERS), tensors(expected, CARRIERS), strict=True)
    for ours, theirs in pairs:
        # The balance of a contrast is of the size of its rounding; the maps say enough.
        if ours.ndim < SHOWN or not ours.is_floating_point() or not bool(theirs.isfinite().all()):
            continue
        apart = float(
            (ours - theirs).abs().sum() / theirs.abs().sum().clamp(min=torch.finfo(theirs.dtype).tiny)
        )
        if not apart < WRONG:
            raise CaptureError(
                f"ONNX Runtime's result is {apart:.0%} apart from PyTorch's, expected a difference of rounding: "
                "it can't compute this explanation. Leave engine out."
            )
