"""From a model to a graph: export, make functional, lower each operation, simplify, check."""

import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from clarp.capture.check import check_logits, check_one_image, first_line, own_logits
from clarp.capture.graph import Graph, Node
from clarp.capture.inplace import FUNCTIONAL, functional, writes
from clarp.capture.lowering import LOWERINGS, Call, Refused, no_lowering
from clarp.capture.simplify import simplify
from clarp.errors import CaptureError, UnsupportedOperation

TORCH = f"{Path(torch.__file__).parent}{os.sep}"
HERE = f"{Path(__file__).parent}{os.sep}"
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def capture_module(model: nn.Module, example: Tensor, dtype: torch.dtype) -> Graph:
    """The graph of a model in eval mode, for images of one size.

    Args:
        model: returns logits (B, N); it is not changed.
        example: images (2, C, H, W) of the type and on the device of the model.
        dtype: of the graph's tensors.

    Raises:
        CaptureError: the model can't be exported, or its output isn't (B, N).
        UnsupportedOperation: it has operations that no rule covers.
        ValueError: the model refuses such images.
    """
    with torch.random.fork_rng([example.device] if example.is_cuda else []):
        expected = own_logits(model, example)
        graph = capture_program(_export(model, example), dtype, own=True)
        check_logits(graph, example, expected)
        check_one_image(graph, model, example[:1])
    return graph


def capture_exported(program: ExportedProgram, example: Tensor, dtype: torch.dtype) -> Graph:
    """The graph of an exported program; the same errors as :func:`capture_module`.

    Args:
        program: from ``torch.export.export`` of a model in eval mode, or ``torch.export.load``.
        example: images (B, C, H, W), with the program's own B where that is fixed.
        dtype: of the graph's tensors.
    """
    graph = capture_program(program, dtype, own=False)
    check_logits(graph, example, own_logits(program.module(), example))
    return graph


def _export(model: nn.Module, example: Tensor) -> ExportedProgram:
    try:
        return torch.export.export(model, (example,), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    except Exception as error:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        line = _innermost(frames)
        raise CaptureError(
            f"{type(model).__name__} could not be exported by torch.export for images of shape {tuple(example.shape)}"
            f"{f', at {line}' if line else ''}: {first_line(error)}. Expected a forward without Python branches on tensor values; "
            "replace such a branch (for example by torch.where), or pass an ExportedProgram."
        ) from error


def example_shape(program: ExportedProgram) -> tuple[int | None, ...]:
    """The shape of the images that an exported program takes, None where an axis is dynamic."""
    value = program.graph_module.graph.find_nodes(op="placeholder")
    names = [
        spec.arg.name for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT
    ]
    images = [node for node in value if node.name in names]
    if len(images) != 1 or not isinstance(images[0].meta.get("val"), Tensor):
        raise CaptureError(f"the exported program takes {len(images)} inputs, expected one tensor of images")
    return tuple(size if isinstance(size, int) else None for size in images[0].meta["val"].shape)


def capture_program(program: ExportedProgram, dtype: torch.dtype, *, own: bool) -> Graph:
    """The simplified graph of an exported program, unchecked; ``own``: whether the program is ours to change."""
    program = functional(program, own=own)
    images, output = _ends(program)
    return simplify(_Lowering(program, images).graph(output), dtype)


def _ends(program: ExportedProgram) -> tuple[fx.Node, fx.Node]:
    example_shape(program)
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}
    name = next(spec.arg.name for spec in signature.input_specs if spec.kind == InputKind.USER_INPUT)
    results = signature.user_outputs
    if len(results) != 1 or results[0] not in nodes:
        raise CaptureError(
            f"the exported program returns {len(results)} values, expected one tensor of logits (B, N)"
        )
    return nodes[name], nodes[results[0]]


class _Lowering:
    """Walks the exported graph once; collects every operation that it has to refuse."""

    def __init__(self, program: ExportedProgram, images: fx.Node) -> None:
        self.images = images
        self.batch = images.meta["val"].shape[0]
        self.constants = dict(_constants(program))
        self.tensors: dict[str, Tensor] = {}
        self.alias = {images.name: images.name}
        self.refused: list[str] = []
        self.nodes: list[Node] = []
        self.order = list(program.graph.nodes)

    def graph(self, output: fx.Node) -> Graph:
        reached = _reaching(output)
        for node in self.order:
            if writes(node):  # even if nobody reads its result by name, somebody may read what it wrote
                shared = node.target in FUNCTIONAL
                self._refuse(
                    node, "it writes into memory that other values share" if shared else "not supported"
                )
            elif node.op == "call_function" and node in reached and not self._constant(node):
                self._lower(node)
        if self.refused:
            listed = "\n".join(f"  {line}" for line in self.refused)
            raise UnsupportedOperation(
                f"the model has {len(self.refused)} operation(s) that no rule covers:\n{listed}\n"
                "Replace them by operations with a rule (docs/operations.md lists these)."
            )
        if self.alias.get(output.name, self.images.name) == self.images.name:
            raise CaptureError("the logits do not depend on the images; expected a classifier")
        shape = tuple(self.images.meta["val"].shape[1:])
        return Graph(tuple(self.nodes), self.images.name, self.alias[output.name], shape, self.tensors)

    def _constant(self, node: fx.Node) -> bool:
        """Compute what does not depend on the images, for example a weight from its parametrisation."""
        value = node.meta.get("val")
        if not isinstance(value, Tensor | tuple | list):
            return True  # a size: the lowerings read all shapes from the export's own record
        if not all(n.name in self.constants for n in node.all_input_nodes):
            return False
        if isinstance(value, Tensor) and any(not isinstance(size, int) for size in value.shape):
            return False
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: self.constants[n.name])
        with torch.no_grad():
            self.constants[node.name] = cast("Callable[..., Tensor]", node.target)(*args, **kwargs)
        return True

    def _lower(self, node: fx.Node) -> None:
        lowering = LOWERINGS.get(node.target, no_lowering)
        try:
            call = Call(node, self.constants, self.tensors, self.batch)
            operation, values = lowering(call)
            shape = call.shape()
        except Refused as reason:
            self._refuse(node, str(reason))
            return
        inputs = tuple(self.alias.get(value.name, value.name) for value in values)
        if operation is None:
            self.alias[node.name] = inputs[0]
            return
        self.alias[node.name] = node.name
        self.nodes.append(Node(node.name, operation, inputs, shape, module_path(node), source_line(node)))

    def _refuse(self, node: fx.Node, reason: str) -> None:
        path, line = module_path(node), source_line(node)
        place = f"module {path!r}" if path else "the model itself"
        self.refused.append(f"{node.target} in {place}{f' at {line}' if line else ''}: {reason}")


def _reaching(output: fx.Node) -> set[fx.Node]:
    reached = {output}
    waiting = [output]
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node not in reached:
                reached.add(node)
                waiting.append(node)
    return reached


def _constants(program: ExportedProgram) -> Iterator[tuple[str, Tensor]]:
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            assert spec.target is not None
            source = program.state_dict if spec.target in program.state_dict else program.constants
            yield spec.arg.name, source[spec.target].detach()


def module_path(node: fx.Node) -> str:
    """The path of the module that made this call, "" for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def source_line(node: fx.Node) -> str:
    """The innermost line outside torch that made this call, as "file.py:38", or "" if torch alone made it."""
    trace = FRAME.finditer(node.meta.get("stack_trace") or "")
    return _innermost([(frame["file"], frame["line"]) for frame in trace])


def _innermost(frames: Sequence[tuple[str, object]]) -> str:
    """The last of these lines that is neither torch's nor ours, as "file.py:38", or "" if there is none."""
    own = [frame for frame in frames if not frame[0].startswith((TORCH, HERE))]
    return "{}:{}".format(*own[-1]) if own else ""
