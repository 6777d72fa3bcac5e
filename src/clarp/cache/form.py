"""A captured graph as bytes and back: JSON and safetensors, so that reading it can execute nothing.

A file is the SHA-256 of what follows, then tensors as safetensors; the tensor ``graph`` is a JSON document
with the nodes, each operation by the name of its class and its fields. Tensors that are the model's own are
told by their name there.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from clarp import operations
from clarp.capture import Graph, Node, Tap
from clarp.capture.aside import Aside, Held, Operator
from clarp.capture.link import STAGES, Link

if TYPE_CHECKING:
    from clarp.operations import Operation

OPERATIONS = {name: getattr(operations, name) for name in operations.__all__}
DOCUMENT, LOGITS, VALUE, ROWS = "graph", "logits", "value.", "rows."
LENGTH = 64


class Unwritable(Exception):  # noqa: N818  a signal to the cache, never seen by a user
    """The graph has something that has no place in a file: an operation of one user, say."""


class Damaged(Exception):  # noqa: N818  likewise
    """These bytes are not what was written."""


@dataclass(frozen=True)
class Stored:
    """The content of a file.

    Attributes:
        graph: the captured network.
        logits: the model's own, for the example images that the capture was checked with.
        rows: the further inputs that these were computed with, (B, ...).
    """

    graph: Graph
    logits: Tensor
    rows: tuple[Tensor, ...] = ()


def to_bytes(stored: Stored, state: Mapping[str, Tensor]) -> bytes:
    """The file's content.

    Args:
        stored: what to write.
        state: the model's own tensors by name.

    Raises:
        Unwritable: it can't be written, or would not be the same when read.
    """
    graph = stored.graph
    own = {_identity(tensor): name for name, tensor in state.items()}
    tensors = {LOGITS: _plain(stored.logits)}
    tensors |= {f"{ROWS}{number}": _plain(value) for number, value in enumerate(stored.rows)}
    places: dict[str, dict[str, Any]] = {}
    for name, tensor in graph.tensors.items():
        if _identity(tensor) in own:
            places[name] = {"own": own[_identity(tensor)]}
        else:
            tensors[VALUE + name] = _plain(tensor)
            places[name] = {"strides": list(torch.empty_like(tensor, device="meta").stride())}
    document = {
        "nodes": [_written(node) for node in graph],
        "input": graph.input,
        "output": graph.output,
        "input_shape": graph.input_shape,
        "outputs": {
            path: [None if tap is None else asdict(tap) for tap in taps]
            for path, taps in graph.outputs.items()
        },
        "link": None
        if graph.link is None
        else {"stages": [_named(stage) for stage in graph.link.stages], "seen": graph.link.seen},
        "pair": graph.pair,
        "aside": asdict(graph.aside),
        "rows": len(stored.rows),
        "tensors": places,
    }
    try:
        text = json.dumps(document).encode()
    except TypeError as error:
        raise Unwritable(str(error)) from error
    tensors[DOCUMENT] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    payload = save(tensors)
    content = hashlib.sha256(payload).hexdigest().encode() + payload
    again = from_bytes(content, state).graph
    if (again.nodes, again.outputs, again.aside) != (graph.nodes, dict(graph.outputs), graph.aside):
        raise Unwritable("it would not be the same when read")
    return content


def from_bytes(content: bytes, state: Mapping[str, Tensor]) -> Stored:
    """What :func:`to_bytes` wrote; tensors on the CPU, the model's own as they are.

    Raises:
        Damaged: it is not that.
    """
    payload = content[LENGTH:]
    if hashlib.sha256(payload).hexdigest().encode() != content[:LENGTH]:
        raise Damaged("the checksum is another")
    try:
        values = load(payload)
        document = json.loads(values[DOCUMENT].numpy().tobytes())
        graph = Graph(
            tuple(_read(node) for node in document["nodes"]),
            document["input"],
            document["output"],
            tuple(document["input_shape"]),
            {
                name: state[place["own"]].detach()
                if "own" in place
                else _strided(values[VALUE + name], place["strides"])
                for name, place in document["tensors"].items()
            },
            {
                path: tuple(None if tap is None else Tap(**tap) for tap in taps)
                for path, taps in document["outputs"].items()
            },
            None
            if document["link"] is None
            else Link(
                tuple(STAGES[name](**own) for name, own in document["link"]["stages"]),
                document["link"]["seen"],
            ),
            document["pair"],
            _aside(document["aside"]),
        )
        rows = tuple(values[f"{ROWS}{number}"] for number in range(document["rows"]))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    return Stored(graph, values[LOGITS], rows)


def _written(node: Node) -> dict[str, Any]:
    kind = type(node.operation)
    if OPERATIONS.get(kind.__name__) is not kind:
        raise Unwritable(f"the operation {kind.__name__}")
    values = {field.name: getattr(node, field.name) for field in fields(node)}
    own = {field.name: getattr(node.operation, field.name) for field in fields(kind)}
    return values | {"operation": kind.__name__, "fields": own}


def _named(part: Any) -> tuple[str, dict[str, Any]]:
    return type(part).__name__, {field.name: getattr(part, field.name) for field in fields(part)}


def _read(document: dict[str, Any]) -> Node:
    values = {name: _tuples(value) for name, value in document.items()}
    kind: type[Operation] = OPERATIONS[values.pop("operation")]
    own = {name: _tuples(value) for name, value in values.pop("fields").items()}
    return Node(operation=kind(**own), **values)


def _aside(document: dict[str, Any]) -> Aside:
    operators = tuple(
        Operator(**{name: _tuples(own) for name, own in one.items()}) for one in document["operators"]
    )
    return Aside(tuple(document["inputs"]), operators, tuple(Held(**one) for one in document["outputs"]))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _strided(tensor: Tensor, strides: list[int]) -> Tensor:
    """The values in their old memory layout: another one is rounded differently."""
    if list(tensor.stride()) == strides:
        return tensor
    return torch.empty_strided(tuple(tensor.shape), strides, dtype=tensor.dtype).copy_(tensor)


def _identity(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
