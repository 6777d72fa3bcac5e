"""How the forward and the backward pass are run: as they are, compiled, or by another engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from clarp.arguments import EngineName
from clarp.network import Network
from clarp.propagation import Program

Result = TypeVar("Result")


@dataclass(frozen=True)
class Computation(Generic[Result]):
    """A function of a program's tensors, and what it is called with.

    Attributes:
        program: for which; when it goes, what a runner made for it goes.
        what: tells the function from others of the same program, and from itself in other circumstances.
        function: of the program, of tensors, and of what holds them; nothing that it does may depend on their
            values.
        arguments: for it.
        per_target: for it, (K, ...) each.
    """

    program: Program
    what: str
    function: Callable[..., Result]
    arguments: Sequence[object]
    per_target: Sequence[Tensor] = ()

    def __call__(self) -> Result:
        """``function(program, *arguments, *per_target)``, by PyTorch as it is."""
        return self.function(self.program, *self.arguments, *self.per_target)


class Runner(Protocol):
    """Runs computations."""

    def run(self, computation: Computation[Result]) -> Result:
        """The computation's result.

        Raises:
            CaptureError: the function can't be recorded, or gives another result then.
            UnsupportedOperation: the engine has not what it needs.
            ModuleNotFoundError: what records is not installed; the message says how to install it.
        """


class Eager:
    """Runs them by PyTorch as they are."""

    def run(self, computation: Computation[Result]) -> Result:
        """The computation's result."""
        return computation()


def runner_of(backend: object, engine: EngineName, network: Network) -> Runner:
    """What runs the passes.

    Args:
        backend: what was given as ``compile``.
        engine: what computes.
        network: the model, whose cache the engine shares.

    Raises:
        TypeError: ``compile`` is neither a bool nor the name of a backend.
        ValueError: both were given.
        ModuleNotFoundError: the engine is not installed; the message says how to install it.
    """
    if engine == "onnxruntime":
        if backend is not False:
            raise ValueError(
                f"engine is {engine!r} and compile is {backend!r}, expected one of them: torch.compile is "
                "PyTorch's."
            )
        from clarp.exporting.runtime import OnnxRuntime  # noqa: PLC0415  of an extra

        return OnnxRuntime(network.cache)
    if backend is False:
        return Eager()
    if backend is not True and not isinstance(backend, str):
        raise TypeError(
            f"compile is {backend!r}, expected True, False or the name of a backend of torch.compile."
        )
    from clarp.compiled import Compiler  # noqa: PLC0415  imports PyTorch's tracer

    return Compiler("inductor" if backend is True else backend)
