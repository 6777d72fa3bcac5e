"""From a model to a graph: export, make functional, lower each operation, simplify, check."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from clarp.capture.check import check_logits, check_one_image, check_rows, coarsest, first_line, own_logits
from clarp.capture.end import End, end_of
from clarp.capture.exporting import exported, quiet, takes_one, user_input
from clarp.capture.further import NOTHING, Further, WithInputs
from clarp.capture.graph import Graph
from clarp.capture.head import as_logits, closed
from clarp.capture.inline import inlined
from clarp.capture.inplace import functional
from clarp.capture.lowering import ProgramLowering, constants_of
from clarp.capture.rebatch import dynamic, for_any_batch
from clarp.capture.simplify import simplify
from clarp.errors import CaptureError
from clarp.output import LogitsOf, Output, pick


def capture_module(
    model: nn.Module,
    example: Tensor,
    dtype: torch.dtype,
    output: Output = None,
    rows: Sequence[Tensor] = (),
    *,
    live: bool = False,
) -> Graph:
    """The graph of a model in eval mode, for images of one size.

    Args:
        model: returns logits (B, N), perhaps among others; it is not changed.
        example: images (2, C, H, W) of the type and on the device of the model.
        dtype: of the graph's tensors.
        output: which of its results are the logits.
        rows: further inputs of two images, (2, ...), that the model takes behind them.
        live: whether the graph can be made again of other values of the model's parameters.

    Raises:
        CaptureError: the model can't be exported, or its output isn't (B, N).
        UnsupportedOperation: it has operations that no rule covers.
        ValueError: the model refuses such images.
    """
    with torch.random.fork_rng([example.device] if example.is_cuda else []):
        expected, alone, output, assumed = own_logits(model, example, output, rows)
        model = model if alone and takes_one(model) else LogitsOf(model, output)
        program, read_images = exported(model, example, rows)
        precision = coarsest(program)
        lowering = Lowerable.of(program, dtype, own=True)
        graph = lowering.graph()
        check_logits(graph, example, expected, precision, rows)
        check_rows(graph, example.to(dtype), rows)
        first, second = ([value[part] for value in rows] for part in (slice(1), slice(1, None)))
        check_one_image(graph, model, example[:1], precision, first)
        if read_images:  # a number of the first image may have become a constant
            check_one_image(graph, model, example[1:], precision, second)

    def finished(graph: Graph) -> Graph:
        return replace(as_logits(graph, expected), assumed=assumed)

    found = finished(graph)
    return replace(found, again=lambda: finished(lowering.graph(live=True))) if live else found


def capture_exported(
    program: ExportedProgram,
    example: Tensor,
    dtype: torch.dtype,
    output: Output = None,
    further: Further = NOTHING,
) -> Graph:
    """The graph of an exported program; the same errors as :func:`capture_module`.

    Args:
        program: from ``torch.export.export`` of a model in eval mode, or ``torch.export.load``; its H and W
            may be dynamic.
        example: images (B, C, H, W), with the program's own B where that is fixed.
        dtype: of the graph's tensors.
        output: which of its results are the logits.
        further: what the program takes beside the images.
    """
    rows = further.example(example.dtype, len(example))
    module = WithInputs(program.module(), further, example.dtype) if further else program.module()
    sized = _for_size(program, module, example, output, rows)
    expected, _, output, assumed = own_logits(module, example, output, rows)
    precision = coarsest(program)

    def captured(candidate: ExportedProgram) -> Graph:
        graph = capture_program(candidate, dtype, own=candidate is not program, output=output)
        check_logits(graph, example, expected, precision, rows)
        check_rows(graph, example.to(dtype), rows)
        return replace(as_logits(graph, expected), assumed=assumed)

    with quiet():
        for_any = for_any_batch(sized, example, rows) if example_shape(sized)[0] is not None else None
    if for_any is None:
        return captured(sized)
    try:
        return captured(for_any)
    except CaptureError as reason:
        try:  # as it is, where the batch is first in every value
            return captured(sized)
        except CaptureError:
            raise reason from None


def example_shape(program: ExportedProgram) -> tuple[int | None, ...]:
    """The shape of the images that an exported program takes, None where an axis is dynamic."""
    images = user_input(program, 0) if program.graph_signature.user_inputs else None
    if images is None or not isinstance(images.meta.get("val"), Tensor):
        raise CaptureError("the exported program's first input is no tensor, expected one of images")
    return tuple(size if isinstance(size, int) else None for size in images.meta["val"].shape)


def _for_size(
    program: ExportedProgram, module: nn.Module, example: Tensor, output: Output, rows: Sequence[Tensor]
) -> ExportedProgram:
    """A program for several sizes of images, or with further inputs, as one for images of this size."""
    shape = example_shape(program)
    if None not in shape[1:] and not isinstance(module, WithInputs):
        return program
    own_logits(
        module, example, output, rows
    )  # a size that the program refuses is no fault of the export below
    batch = dynamic(len(rows)) if shape[0] is None else None
    try:
        with quiet():
            return torch.export.export(module, (example, *rows), dynamic_shapes=batch, strict=False)
    except Exception as error:
        raise CaptureError(
            f"the exported program takes images of shape {shape} (None: any), and torch.export could not "
            f"fix it to {tuple(example.shape)}: {first_line(error)}. Export the model for images of this "
            "size, with at most the batch dynamic."
        ) from error


def capture_program(
    program: ExportedProgram, dtype: torch.dtype, *, own: bool, output: Output = None
) -> Graph:
    """The simplified graph of an exported program, unchecked; ``own``: whether the program may be changed."""
    return Lowerable.of(program, dtype, own=own, output=output).graph()


@dataclass(frozen=True, eq=False)
class Lowerable:
    """A functional program, ready to become a graph.

    Attributes:
        program: without in-place operations and modules in modules.
        end: what the model does behind its logits.
        dtype: of the graph's tensors.
    """

    program: ExportedProgram
    end: End
    dtype: torch.dtype

    @classmethod
    def of(
        cls, program: ExportedProgram, dtype: torch.dtype, *, own: bool, output: Output = None
    ) -> "Lowerable":
        """Of an exported program; ``own``: whether that may be changed."""
        with quiet():
            program = inlined(program, own=own)
            program = functional(program, own=own)
        return cls(program, end_of(_result(program, output), dict(constants_of(program))), dtype)

    def graph(self, *, live: bool = False) -> Graph:
        """The simplified graph; ``live``: autograd may go on from its tensors to the parameters."""
        lowering = ProgramLowering(self.program, self.end.skipped, live=live)
        graph = closed(lowering.graph(self.end.output), self.end)
        return replace(simplify(graph, self.dtype), link=self.end.link)


def _result(program: ExportedProgram, output: Output) -> fx.Node:
    example_shape(program)
    signature = program.graph_signature
    returned = zip(signature.output_specs, program.graph.output_node().args[0], strict=True)
    results = [value for spec, value in returned if spec.kind == OutputKind.USER_OUTPUT]
    logits = pick(pytree.tree_unflatten(results, program.call_spec.out_spec), output, fx.Node)
    assert isinstance(logits, fx.Node)
    return logits
