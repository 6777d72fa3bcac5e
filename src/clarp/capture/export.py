"""From a model to a graph: export, make functional, lower each operation, simplify, check."""

import re
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from clarp.capture.auxiliary import Auxiliary, AuxiliaryValue, NotAuxiliary, Operator, operator_of
from clarp.capture.check import check_logits, check_one_image, check_rows, coarsest, first_line, own_logits
from clarp.capture.end import end_of
from clarp.capture.exporting import exported, innermost, quiet, takes_one, user_input
from clarp.capture.further import NOTHING, Further, WithInputs
from clarp.capture.graph import Graph, Node
from clarp.capture.head import as_logits, closed
from clarp.capture.inline import inlined
from clarp.capture.inplace import BLANK, FUNCTIONAL, functional, writes
from clarp.capture.lowering import ANYWHERE, CHANNELWISE, Call, Refused, Step, Value, lowered
from clarp.capture.lowering.call import Layout
from clarp.capture.lowering.custom import lowering_of
from clarp.capture.lowering.fourier import ENDS, is_complex
from clarp.capture.modules import module_outputs
from clarp.capture.output import LogitsOf, Output, pick
from clarp.capture.rebatch import dynamic, for_any_batch
from clarp.capture.refusals import Refusals
from clarp.capture.simplify import simplify
from clarp.errors import CaptureError

FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def capture_module(
    model: nn.Module,
    example: Tensor,
    dtype: torch.dtype,
    output: Output = None,
    rows: Sequence[Tensor] = (),
) -> Graph:
    """The graph of a model in eval mode, for images of one size.

    Args:
        model: returns logits (B, N), perhaps among others; it is not changed.
        example: images (2, C, H, W) of the type and on the device of the model.
        dtype: of the graph's tensors.
        output: which of its results are the logits.
        rows: further inputs of two images, (2, ...), that the model takes behind them.

    Raises:
        CaptureError: the model can't be exported, or its output isn't (B, N).
        UnsupportedOperation: it has operations that no rule covers.
        ValueError: the model refuses such images.
    """
    with torch.random.fork_rng([example.device] if example.is_cuda else []):
        expected, alone, output = own_logits(model, example, output, rows)
        model = model if alone and takes_one(model) else LogitsOf(model, output)
        program, read_images = exported(model, example, rows)
        precision = coarsest(program)
        graph = capture_program(program, dtype, own=True)
        check_logits(graph, example, expected, precision, rows)
        check_rows(graph, example.to(dtype), rows)
        first, second = ([value[part] for value in rows] for part in (slice(1), slice(1, None)))
        check_one_image(graph, model, example[:1], precision, first)
        if read_images:  # a number of the first image may have become a constant
            check_one_image(graph, model, example[1:], precision, second)
    return as_logits(graph, expected)


def capture_exported(
    program: ExportedProgram,
    example: Tensor,
    dtype: torch.dtype,
    output: Output = None,
    further: Further = NOTHING,
) -> Graph:
    """The graph of an exported program; the same errors as :func:`capture_module`.

    Args:
        program: from ``torch.export.export`` of a model in eval mode, or ``torch.export.load``; its H and W may be dynamic.
        example: images (B, C, H, W), with the program's own B where that is fixed.
        dtype: of the graph's tensors.
        output: which of its results are the logits.
        further: what the program takes beside the images.
    """
    rows = further.example(example.dtype, len(example))
    module = WithInputs(program.module(), further, example.dtype) if further else program.module()
    sized = _for_size(program, module, example, output, rows)
    expected, _, output = own_logits(module, example, output, rows)
    precision = coarsest(program)

    def captured(candidate: ExportedProgram) -> Graph:
        graph = capture_program(candidate, dtype, own=candidate is not program, output=output)
        check_logits(graph, example, expected, precision, rows)
        check_rows(graph, example.to(dtype), rows)
        return as_logits(graph, expected)

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


def load_exported(file: Path) -> ExportedProgram:
    """The program in a .pt2 file.

    Loading executes code that the file may have in it: PyTorch reads parts of it as pickles, also of a file that it then refuses.

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
            f"{file}: not a program that torch.export.save wrote, or damaged ({type(error).__name__}). Loading a .pt2 file can execute "
            "code that is in it, even one that is refused, so take none from somebody whom you would not let run a program. "
            "--weights (safetensors, a state dict or a checkpoint) executes nothing."
        ) from error


def example_shape(program: ExportedProgram) -> tuple[int | None, ...]:
    """The shape of the images that an exported program takes, None where an axis is dynamic."""
    images = user_input(program, 0) if program.graph_signature.user_inputs else None
    if images is None or not isinstance(images.meta.get("val"), Tensor):
        raise CaptureError("the exported program's first input is no tensor, expected one of images")
    return tuple(size if isinstance(size, int) else None for size in images.meta["val"].shape)


def _for_size(
    program: ExportedProgram, module: nn.Module, example: Tensor, output: Output, rows: Sequence[Tensor]
) -> ExportedProgram:
    """A program for images of several sizes, or one of further inputs, as one for images of this size; any other is one already."""
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
            f"the exported program takes images of shape {shape} (None: any), and torch.export could not fix it to "
            f"{tuple(example.shape)}: {first_line(error)}. Export the model for images of this size, with at most the batch dynamic."
        ) from error


def capture_program(
    program: ExportedProgram, dtype: torch.dtype, *, own: bool, output: Output = None
) -> Graph:
    """The simplified graph of an exported program, unchecked; ``own``: whether the program is ours to change."""
    with quiet():
        program = inlined(program, own=own)
        program = functional(program, own=own)
    result = _result(program, output)
    end = end_of(result, dict(_constants(program)))
    graph = closed(_Lowering(program, end.skipped).graph(end.output), end)
    return replace(simplify(graph, dtype), link=end.link)


def _result(program: ExportedProgram, output: Output) -> fx.Node:
    example_shape(program)
    signature = program.graph_signature
    returned = zip(signature.output_specs, program.graph.output_node().args[0], strict=True)
    results = [value for spec, value in returned if spec.kind == OutputKind.USER_OUTPUT]
    logits = pick(pytree.tree_unflatten(results, program.call_spec.out_spec), output, fx.Node)
    assert isinstance(logits, fx.Node)
    return logits


class _Lowering:
    """Walks the exported graph once; collects every operation that it has to refuse."""

    def __init__(self, program: ExportedProgram, skipped: Collection[fx.Node]) -> None:
        self.images, *self.rows = (
            user_input(program, number) for number in range(len(program.graph_signature.user_inputs))
        )
        images = self.images
        self.skipped = skipped
        self.batch = images.meta["val"].shape[0]
        self.constants = dict(_constants(program))
        self.parameters = {_memory(tensor) for tensor in self.constants.values()}
        self.numbers: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self.alias = {images.name: images.name}
        self.refused = Refusals()
        self.nodes: list[Node] = []
        self.order = list(program.graph.nodes)
        self.beside = self._beside()
        self.held: dict[str, fx.Node] = {}
        self.wrong: set[fx.Node] = set()

    def graph(self, output: fx.Node) -> Graph:
        reached = _connected([output], lambda node: node.all_input_nodes)
        for node in self.order:
            if node.op != "call_function" or self._constant(node):
                continue
            if writes(node):  # even if nobody reads its result by name, somebody may read what it wrote
                shared = node.target in FUNCTIONAL
                self._refuse(
                    node, "it writes into memory that other values share" if shared else "not supported"
                )
            elif node in self.beside:
                pass
            elif node in self.skipped:
                self.alias[node.name] = self._name(
                    next(n for n in node.all_input_nodes if n.name in self.alias)
                )
            elif node in reached and is_complex(node):
                self._check_transforms(node)
            elif node in reached and node not in self.wrong:
                self._lower(node)
        auxiliary = self._auxiliary()
        self.refused.check()
        if self.alias.get(output.name, self.images.name) == self.images.name:
            raise CaptureError("the logits do not depend on the images; expected a classifier")
        shape = tuple(self.images.meta["val"].shape[1:])
        counted = reached - _connected(self.skipped, lambda node: node.users)
        outputs = module_outputs(
            [node for node in self.order if node in counted and node.name in self.alias], self.alias
        )
        return Graph(
            tuple(self.nodes),
            self.images.name,
            self.alias[output.name],
            shape,
            self.tensors,
            outputs,
            auxiliary=auxiliary,
        )

    def _check_transforms(self, node: fx.Node) -> None:
        """A complex value is lowered with all others where it becomes real again; refuse what makes real values of it otherwise."""
        for user in node.users:
            real = isinstance(user.meta.get("val"), Tensor) and not is_complex(user)
            if real and user.target not in ENDS and user not in self.wrong:
                self.wrong.add(user)
                self._refuse(
                    user,
                    "it reads complex values, expected a linear function of them: an inverse transform, a real part",
                )

    def _beside(self) -> set[fx.Node]:
        """What is computed from the further inputs alone."""
        found, of_images = set(self.rows), {self.images}
        for node in self.order:
            sources = [
                n for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor | tuple | list)
            ]
            if not sources or node.target in BLANK or node.op != "call_function":
                continue
            if any(source in of_images for source in sources):
                of_images.add(node)
            elif any(source in found for source in sources):
                found.add(node)
        return found

    def _auxiliary(self) -> Auxiliary:
        """The part of the program that the graph's values beside the image's are made by."""
        needed = _connected(
            list(self.held.values()), lambda n: [one for one in n.all_input_nodes if one in self.beside]
        )
        operators: list[Operator] = []
        outputs: list[AuxiliaryValue] = []
        for node in self.order:
            if node not in needed:
                continue
            if node.name in self.held:
                layout = self._layout(node)
                if layout is not None:
                    outputs.append(AuxiliaryValue(node.name, layout.axis, layout.inner))
            if node in self.rows:
                continue
            try:
                operators.append(operator_of(node, self.constants, self.numbers, self.batch))
            except NotAuxiliary as reason:
                self._refuse(node, str(reason))
        auxiliary = Auxiliary(tuple(node.name for node in self.rows), tuple(operators), tuple(outputs))
        self.tensors |= {name: self.constants[name] for name in auxiliary.tensors}
        return auxiliary

    def _layout(self, node: fx.Node) -> Layout | None:
        try:
            return Call(node, self.constants, {}, self.batch).layout()
        except Refused as reason:
            self._refuse(node, str(reason))
            return None

    def _constant(self, node: fx.Node) -> bool:
        """Compute what does not depend on the images, for example a weight from its parametrisation.

        What depends on the size of the batch (a class token for each image) is computed for two images.
        """
        value = node.meta.get("val")
        if not isinstance(value, Tensor | tuple | list):
            self.numbers[node.name] = self._number(value)
            return True
        known = ChainMap(self.numbers, self.constants)
        if node.target in BLANK:
            known = known.new_child(
                {n.name: self._blank(n) for n in node.all_input_nodes if n.name not in known}
            )
        if not all(n.name in known for n in node.all_input_nodes):
            return False
        if writes(node) and _memory(self.constants[node.all_input_nodes[0].name]) in self.parameters:
            return False  # the user's model is never changed
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: known[n.name])
        with torch.no_grad():
            self.constants[node.name] = cast("Callable[..., Tensor]", node.target)(*args, **kwargs)
        return True

    def _blank(self, node: fx.Node) -> Tensor:
        """A value's shape and type, for two images."""
        value = node.meta["val"]
        return torch.empty(
            [self._number(size) for size in value.shape], dtype=value.dtype, device=value.device
        )

    def _number(self, value: Any) -> Any:
        """A size, for two images where it depends on the batch."""
        if not isinstance(value, torch.SymInt):
            return value
        return int(value.node.expr.subs({self.batch.node.expr: 2}))

    def _lower(self, node: fx.Node) -> None:
        lowering = lowering_of(node.target)
        call = Call(node, self.constants, self.tensors, self.batch)
        try:
            operation, values = lowered(lowering, call)
            free = lowering in ANYWHERE or (lowering in CHANNELWISE and call.layout().inner > 1)
            shape = call.sizes() if free else call.shape()
            for value in values:
                if not free and isinstance(value, fx.Node):
                    call.shape(value)
        except Refused as reason:
            self._refuse(node, str(reason))
            return
        for step in call.steps:
            self._append(node, step)
        if operation is None:
            self.alias[node.name] = self._name(values[0])
            return
        self.alias[node.name] = node.name
        self._append(node, Step(node.name, operation, values, shape))

    def _append(self, node: fx.Node, step: Step) -> None:
        inputs = tuple(self._name(value) for value in step.inputs)
        self.nodes.append(
            Node(step.name, step.operation, inputs, step.shape, module_path(node), source_line(node))
        )

    def _name(self, value: Value) -> str:
        if isinstance(value, fx.Node) and value in self.beside:
            self.held[value.name] = value
        name = value if isinstance(value, str) else value.name
        return self.alias.get(name, name)

    def _refuse(self, node: fx.Node, reason: str) -> None:
        self.refused.add(str(node.target), module_path(node), source_line(node), reason)


def _memory(tensor: Tensor) -> int:
    """Where its values lie, the same for all views of them."""
    return tensor.untyped_storage().data_ptr()


def _connected(nodes: Collection[fx.Node], following: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    """These nodes, those that follow them, and so on."""
    found = set(nodes)
    waiting = list(nodes)
    while waiting:
        fresh = set(following(waiting.pop())) - found
        found |= fresh
        waiting += fresh
    return found


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
    return innermost([(frame["file"], frame["line"]) for frame in trace])
