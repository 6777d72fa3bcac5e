"""Explanations by ``torch.compile``: forward and backward pass are each recorded once and compiled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from clarp.errors import CaptureError
from clarp.passes import Maps
from clarp.propagation import Entry, ForwardCache, Ledger, Program
from clarp.runner import Computation, Result
from clarp.tree import filled, tensors

CARRIERS = (ForwardCache, Maps, Ledger, Entry)
"""Whose fields hold tensors; what else is in them stays as it was when the program was recorded."""

OVERWRITING = {"cudagraphs"}
"""Backends whose next call overwrites the results, which an explanation still reads."""


@dataclass(frozen=True)
class Recorded(Generic[Result]):
    """One function of tensors for one size of its arguments.

    Attributes:
        program: from the tensors in the arguments to those in the result.
        result: that of the recording, its tensors without values.
    """

    program: Callable[..., Sequence[Tensor]]
    result: Result

    @classmethod
    def of(
        cls, function: Callable[..., Result], arguments: Sequence[object], backend: str
    ) -> "Recorded[Result]":
        """Run a function once, write down every operation that it does on tensors, and compile the list."""
        results: list[Result] = []

        def flat(*values: Tensor) -> list[Tensor]:
            results.append(function(*filled(arguments, iter(values), CARRIERS)))
            return tensors(results[-1], CARRIERS)

        try:
            program = make_fx(flat)(*tensors(arguments, CARRIERS))
        except RuntimeError as error:
            raise CaptureError(
                f"the explanation can't be compiled: {str(error).splitlines()[0]} An operation or a rule of "
                "your own that looks at values in Python may be the reason. Leave compile out."
            ) from error
        shapes = [tensor.to("meta") for tensor in tensors(results[-1], CARRIERS)]
        return cls(torch.compile(program, backend=backend), filled(results[-1], iter(shapes), CARRIERS))

    def __call__(self, arguments: Sequence[object]) -> Result:
        """The function's result for other tensors of the same sizes."""
        return filled(self.result, iter(self.program(*tensors(arguments, CARRIERS))), CARRIERS)


class Compiler:
    """Runs functions of a program's tensors compiled, once for each program, function and size.

    Args:
        backend: a name from ``torch.compiler.list_backends()``.

    Raises:
        ValueError: there is no such backend.
    """

    def __init__(self, backend: str) -> None:
        known = set(torch.compiler.list_backends(exclude_tags=())) - OVERWRITING
        if backend not in known:
            raise ValueError(
                f"compile is {backend!r}, expected True, False or a backend of torch.compile: "
                f"{', '.join(sorted(known))}."
            )
        self.backend = backend
        self._recorded: WeakKeyDictionary[Program, dict[object, Recorded[Any]]] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type, tuple[str]]:
        """What was compiled stays in its process."""
        return type(self), (self.backend,)

    def run(self, computation: Computation[Result]) -> Result:
        """The computation's result, as of :class:`~clarp.runner.Runner`."""
        arguments = (*computation.arguments, *computation.per_target)
        of_program = self._recorded.setdefault(computation.program, {})
        key = (
            computation.what,
            tuple((tensor.shape, tensor.stride()) for tensor in tensors(arguments, CARRIERS)),
        )
        if key not in of_program:
            function = partial(computation.function, computation.program)
            of_program[key] = Recorded.of(function, arguments, self.backend)
        found: Result = of_program[key](arguments)
        return found
