"""From a module to an exported program with a dynamic batch, however its forward reads sizes or constants."""

import inspect
import io
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from clarp.capture.check import first_line
from clarp.capture.further import WithInputs
from clarp.capture.reading import Hookless, Replayed, readings
from clarp.capture.rebatch import dynamic, for_any_batch
from clarp.errors import CaptureError
from clarp.output import LogitsOf

TORCH = f"{Path(torch.__file__).parent}{os.sep}"
HERE = f"{Path(__file__).parent}{os.sep}"
FIXED = 7
"""Images in the batch of a model that takes its size for a number: one that is hardly another size of it."""
MANY = 128
"""Up to how many images a branch on the size of the batch is tried."""


class _Muted(io.TextIOBase):
    """Standard error without what this thread writes: ``torch.export`` prints the graph where it fails."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream, self.thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Of another thread."""
        return len(text) if threading.get_ident() == self.thread else self.stream.write(text)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's messages about an export off standard error; what it raises says enough."""
    # Loggers without a level of their own have PyTorch's; each call of setLevel visits all loggers of the
    # process.
    loggers = [logging.getLogger("torch")]
    loggers += [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if name.startswith("torch.") and isinstance(logger, logging.Logger) and logger.level
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(_Muted(sys.stderr)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)
            # Old-style weight norm and pruning set the weight anew in each call; the export puts the old one
            # back.
            warnings.filterwarnings("ignore", "The tensor attributes? ", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def takes_one(model: nn.Module) -> bool:
    """Whether its forward has a parameter for the images alone, so that the export can name it."""
    first = next(iter(inspect.signature(model.forward).parameters.values()), None)
    return first is not None and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)


OURS = (LogitsOf, Replayed, WithInputs)
"""What we put around the user's model."""
"""Further inputs with a row for each image, (B, ...)."""


def exported(model: nn.Module, example: Tensor, rows: Sequence[Tensor] = ()) -> tuple[ExportedProgram, bool]:
    """A model as a program for any number of images, and whether its forward read their values in Python.

    Args:
        model: returns logits (B, N), and takes the images, and then the rows.
        example: images (2, C, H, W).
        rows: further inputs for two images.

    Raises:
        CaptureError: it can't be exported, or is another function for other numbers of images.
    """
    try:
        program = _program(model, example, rows, any_batch=True)
        if not _asks(program):
            return _any_batch(program, model, example, rows), False
    except CaptureError:
        raise
    except Exception as error:  # noqa: BLE001  torch.export documents none
        return _replayed(model, example, rows, error)
    return _replayed(model, example, rows, None)


def _replayed(
    model: nn.Module, example: Tensor, rows: Sequence[Tensor], error: Exception | None
) -> tuple[ExportedProgram, bool]:
    """The same of a model that asks its tensors for values while it is called."""
    found = readings(model, example.clone(), [value.clone() for value in rows])
    if not found.needed and error is not None:
        raise _no_export(model, example, error) from error
    model = Replayed(model, found)
    try:
        program = _program(model, example, rows, any_batch=True)
        return _any_batch(program, model, example, rows), found.of_images
    except CaptureError:
        raise
    except Exception as again:
        raise _no_export(model, example, again) from again


def _program(
    model: nn.Module, example: Tensor, rows: Sequence[Tensor], *, any_batch: bool
) -> ExportedProgram:
    shapes = dynamic(len(rows)) if any_batch else None
    with quiet():
        program = torch.export.export(model, (example, *rows), dynamic_shapes=shapes, strict=False)
    depth = 0
    while isinstance(model, OURS):
        model, depth = model.model, depth + 1
    for node in program.graph.nodes if depth else ():  # the user's own paths
        stack = node.meta.get("nn_module_stack") or {}
        node.meta["nn_module_stack"] = {
            call: (".".join(path.split(".")[depth:]), kind) for call, (path, kind) in stack.items()
        }
    return program


def _asks(program: ExportedProgram) -> bool:
    """Whether numbers were read of tensors, which the export writes down as questions."""
    aten = torch.ops.aten
    asking = (aten.item, aten._local_scalar_dense, aten._assert_scalar)  # noqa: SLF001  ATen names
    return any(node.target in {packet.default for packet in asking} for node in program.graph.nodes)


def _any_batch(
    program: ExportedProgram, model: nn.Module, example: Tensor, rows: Sequence[Tensor]
) -> ExportedProgram:
    """With a dynamic batch, also where the forward takes its size for a number (``len(x)``)."""
    batches = [user_input(program, number).meta["val"].shape[0] for number in range(1 + len(rows))]
    batch = batches[0]
    if all(isinstance(one, torch.SymInt) and one.node.expr.free_symbols for one in batches):
        _check_range(program, batch, model, (example, *rows))
        return program
    several, *others = (one[:1].expand(FIXED, *one.shape[1:]).contiguous() for one in (example, *rows))
    with quiet():
        found = for_any_batch(_program(model, several, others, any_batch=False), several, others)
    if found is None:
        raise CaptureError(
            f"{_name(model)} takes the size of the batch for a number, and it can't be told what it does "
            "with it. Write x.shape[0] or -1 where it reshapes, in place of len(x) or int(...), and no "
            "branch on the size of the batch."
        )
    return found


def user_input(program: ExportedProgram, number: int) -> fx.Node:
    """The placeholder of an argument of the model."""
    name = program.graph_signature.user_inputs[number]
    return next(node for node in program.graph.find_nodes(op="placeholder") if node.name == name)


def _check_range(
    program: ExportedProgram, batch: torch.SymInt, model: nn.Module, example: Sequence[Tensor]
) -> None:
    """Whether a branch on the size of the batch, which the export has met, changes what an image gets.

    PyTorch has such branches of its own, where another algorithm is faster. Beyond ``MANY`` images nothing is
    tried.
    """
    limits = program.range_constraints.get(batch.node.expr)
    if limits is None or not limits.upper.is_Integer or int(limits.upper) >= MANY:
        return
    few = int(limits.upper)
    while isinstance(model, Replayed):
        model = model.model
    several = [one.repeat(few // len(one) + 1, *(1,) * (one.ndim - 1))[: few + 1] for one in example]
    with torch.no_grad(), Hookless():
        own, beyond = model(*(one.clone() for one in example)), model(*several)
    rounding = torch.finfo(own.dtype).eps ** 0.5 * float(own.abs().max())
    if not torch.allclose(own, beyond[: len(own)], rtol=0, atol=rounding, equal_nan=True):
        raise CaptureError(
            f"the model does something else for a batch of more than {few} images, so that what an image "
            "gets depends on how many are beside it. Take the branch on the size of the batch out of its "
            "forward."
        )


def _no_export(model: nn.Module, example: Tensor, error: Exception) -> CaptureError:
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    line = innermost(frames)
    return CaptureError(
        f"{_name(model)} could not be exported by torch.export for images of shape {tuple(example.shape)}"
        f"{f', at {line}' if line else ''}: {first_line(error)}. Expected a forward without Python branches "
        "on tensor values; replace such a branch (for example by torch.where), or pass an ExportedProgram."
    )


def _name(model: nn.Module) -> str:
    while isinstance(model, OURS):
        model = model.model
    return type(model).__name__


def innermost(frames: Sequence[tuple[str, object]]) -> str:
    """The last of these lines that is neither torch's nor ours, as "file.py:38", or "" if there is none."""
    own = [frame for frame in frames if not frame[0].startswith((TORCH, HERE))]
    return "{}:{}".format(*own[-1]) if own else ""
