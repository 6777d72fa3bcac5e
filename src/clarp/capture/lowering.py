"""From the operations of an exported program to ours: a graph, or one refusal of all that has no rule."""

import re
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from clarp.capture.auxiliary import Auxiliary, AuxiliaryValue, NotAuxiliary, Operator, operator_of
from clarp.capture.exporting import innermost, user_input
from clarp.capture.graph import Graph, Node
from clarp.capture.inplace import BLANK, FUNCTIONAL, writes
from clarp.capture.modules import module_outputs
from clarp.capture.refusals import Refusals
from clarp.errors import CaptureError
from clarp.operations import Operation, Reshape
from clarp.operations.call import BATCH, Call, Intermediate, Layout, Lowered, Lowering, Refused, Value
from clarp.operations.custom import lowering_of
from clarp.operations.fourier import ENDS, is_complex

FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


class Windows(Call):
    """A call on m windows of each image, (B m, C, ...), as one on (B, m C, ...)."""

    def shape(self, node: fx.Node | None = None) -> tuple[int, ...]:
        """The shape without its batch axis, with the windows among the channels."""
        layout, sizes = self.layout(node), self.sizes(node)
        if layout.axis or layout.inner == 1:
            return super().shape(node)
        return (sizes[0] * sizes[1], *sizes[2:])

    def step(self, operation: Operation, inputs: tuple[Value, ...], shape: tuple[int, ...]) -> str:
        """Add an operation that reads windows as channels."""
        return super().step(operation, tuple(map(self._flat, inputs)), shape)

    def _flat(self, value: Value) -> Value:
        if isinstance(value, str) or self.layout(value).inner == 1:
            return value
        return super().step(Reshape(self.shape(value)), (value,), self.shape(value))


def lowered(call: Call) -> Lowered:
    """What a call becomes, which may be on several windows of each image where that makes no difference.

    Raises:
        Refused: nothing that we have.
    """
    lowering = lowering_of(call.node.target)
    batch = BATCH.get(lowering, "first")
    if batch == "channels" and not call.layout().axis and call.layout().inner > 1:
        return _lowered_windows(lowering, call)
    operation, values = lowering(call)
    if batch != "anywhere":
        for value in (call.node, *values):
            if isinstance(value, fx.Node):
                call.shape(value)  # refuses any other batch axis
    return operation, values


def _lowered_windows(lowering: Lowering, call: Call) -> Lowered:
    flat = Windows(call.node, call.constants, call.tensors, call.batch)
    operation, values = lowering(flat)
    if operation is None:
        return None, values
    name = flat.step(operation, values, flat.shape())
    call.steps += flat.steps
    return Reshape(call.sizes()), (name,)


class ProgramLowering:
    """Walks the exported graph once; collects every operation that it has to refuse.

    Args:
        program: functional.
        skipped: operations at its end that are no part of the graph.
        live: whether autograd may go on from the graph's tensors to the program's parameters.
    """

    def __init__(self, program: ExportedProgram, skipped: Collection[fx.Node], *, live: bool = False) -> None:
        self._live = live
        self.images, *self.rows = (
            user_input(program, number) for number in range(len(program.graph_signature.user_inputs))
        )
        images = self.images
        self.skipped = skipped
        self.batch = images.meta["val"].shape[0]
        self.constants = dict(constants_of(program, live=live))
        self.parameters = {_memory(tensor) for tensor in self.constants.values()}
        self.numbers: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self.alias = {images.name: images.name}
        self.refused = Refusals()
        self.nodes: list[Node] = []
        self.order = list(program.graph.nodes)
        self.from_further = self._from_further()
        self.auxiliary_read: dict[str, fx.Node] = {}
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
            elif node in self.from_further:
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
        """Refuse what reads complex values and is no end of a transform; they are lowered with their end."""
        for user in node.users:
            real = isinstance(user.meta.get("val"), Tensor) and not is_complex(user)
            if real and user.target not in ENDS and user not in self.wrong:
                self.wrong.add(user)
                self._refuse(
                    user,
                    "it reads complex values, expected a linear function of them: an inverse transform, a "
                    "real part",
                )

    def _from_further(self) -> set[fx.Node]:
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
            list(self.auxiliary_read.values()),
            lambda n: [one for one in n.all_input_nodes if one in self.from_further],
        )
        operators: list[Operator] = []
        outputs: list[AuxiliaryValue] = []
        for node in self.order:
            if node not in needed:
                continue
            if node.name in self.auxiliary_read:
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
        with torch.set_grad_enabled(self._live and torch.is_grad_enabled()):
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
        call = Call(node, self.constants, self.tensors, self.batch)
        try:
            operation, values = lowered(call)
            shape = call.sizes()
        except Refused as reason:
            self._refuse(node, str(reason))
            return
        for step in call.steps:
            self._append(node, step)
        if operation is None:
            self.alias[node.name] = self._name(values[0])
            return
        self.alias[node.name] = node.name
        self._append(node, Intermediate(node.name, operation, values, shape))

    def _append(self, node: fx.Node, step: Intermediate) -> None:
        inputs = tuple(self._name(value) for value in step.inputs)
        self.nodes.append(
            Node(step.name, step.operation, inputs, step.shape, module_path(node), source_line(node))
        )

    def _name(self, value: Value) -> str:
        if isinstance(value, fx.Node) and value in self.from_further:
            self.auxiliary_read[value.name] = value
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


def constants_of(program: ExportedProgram, *, live: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers and constants by the names of their nodes; ``live``: as autograd knows them."""
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            assert spec.target is not None
            source = program.state_dict if spec.target in program.state_dict else program.constants
            value = source[spec.target]
            yield spec.arg.name, value if live else value.detach()


def module_path(node: fx.Node) -> str:
    """The path of the module that made this call, "" for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def source_line(node: fx.Node) -> str:
    """The innermost line outside torch that made this call, as "file.py:38", or "" if torch alone made it."""
    trace = FRAME.finditer(node.meta.get("stack_trace") or "")
    return innermost([(frame["file"], frame["line"]) for frame in trace])
