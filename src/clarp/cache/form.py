"""A captured graph as bytes and back: JSON and safetensors, so that reading it can execute nothing.

A file is the SHA-256 of what follows, then tensors as safetensors. The tensor ``graph`` is a JSON document of
the graph's dataclasses, each with the name of its class. The model's own tensors are referred to by name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from clarp import operations
from clarp.cache.checksum import with_checksum, without_checksum
from clarp.capture import Graph, auxiliary, link
from clarp.capture import graph as graph_module

DOCUMENT, LOGITS, VALUE, ROWS = "graph", "logits", "value.", "rows."


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


CLASSES: dict[str, type[Any]] = {
    _name(kind): kind
    for module in (graph_module, auxiliary, link, operations)
    for kind in vars(module).values()
    if isinstance(kind, type) and is_dataclass(kind)
}
"""The only classes that a file may have objects of."""


def to_bytes(graph: Graph, logits: Tensor, rows: Sequence[Tensor], state: Mapping[str, Tensor]) -> bytes:
    """The content of a file.

    Args:
        graph: the captured network.
        logits: the model's own, for the example images that the capture was checked with.
        rows: the further inputs that these were computed with, (B, ...).
        state: the model's own tensors by name.

    Raises:
        ValueError: the graph has an object of another class, such as an operation of one user.
    """
    own = {_identity(tensor): name for name, tensor in state.items()}
    tensors = {LOGITS: _plain(logits)}
    tensors |= {f"{ROWS}{number}": _plain(value) for number, value in enumerate(rows)}
    places: dict[str, dict[str, Any]] = {}
    for name, tensor in graph.tensors.items():
        if _identity(tensor) in own:
            places[name] = {"own": own[_identity(tensor)]}
        else:
            tensors[VALUE + name] = _plain(tensor)
            places[name] = {"strides": list(torch.empty_like(tensor, device="meta").stride())}
    text = document_of(graph, tensors=places, rows=len(rows)).encode()
    tensors[DOCUMENT] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    content = with_checksum(save(tensors))
    if replace(from_bytes(content, state)[0], tensors={}) != replace(graph, tensors={}):
        raise ValueError("it would not be the same when read")
    return content


def document_of(graph: Graph, **more: object) -> str:
    """A graph without its tensors as JSON, and what else belongs there.

    Raises:
        ValueError: the graph has an object of another class, such as an operation of one user.
    """
    try:
        return json.dumps(_encoded(replace(graph, tensors={})) | more)
    except TypeError as error:
        raise ValueError(str(error)) from error


def from_bytes(content: bytes, state: Mapping[str, Tensor]) -> tuple[Graph, Tensor, tuple[Tensor, ...]]:
    """The graph, logits and rows of :func:`to_bytes`; tensors on the CPU, the model's own as they are.

    Raises:
        ValueError: these bytes are not what was written.
    """
    payload = without_checksum(content)
    try:
        values = load(payload)
        document = json.loads(values[DOCUMENT].numpy().tobytes())
        rows = tuple(values[f"{ROWS}{number}"] for number in range(document.pop("rows")))
        tensors = {
            name: state[place["own"]].detach()
            if "own" in place
            else _strided(values[VALUE + name], place["strides"])
            for name, place in document["tensors"].items()
        }
        graph = replace(_decoded({**document, "tensors": None}), tensors=tensors)
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not (isinstance(graph, Graph) and isinstance(graph.link, link.Link | None)):
        raise ValueError("the document is no graph")  # noqa: TRY004  the file is wrong, and no argument
    return graph, values[LOGITS], rows


def _encoded(value: Any) -> Any:
    if is_dataclass(value):
        kind = type(value)
        if CLASSES.get(_name(kind)) is not kind:
            raise ValueError(f"an object of {_name(kind)}")
        own = {field.name: _encoded(getattr(value, field.name)) for field in fields(value)}
        return {"class": _name(kind), **own}
    if isinstance(value, Mapping):
        return {"class": "map", "items": _encoded(tuple(value.items()))}
    return [_encoded(one) for one in value] if isinstance(value, tuple | list) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(one) for one in value)
    if not isinstance(value, dict):
        return value
    own = {name: _decoded(one) for name, one in value.items()}
    kind = own.pop("class")
    return dict(own["items"]) if kind == "map" else CLASSES[kind](**own)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _strided(tensor: Tensor, strides: list[int]) -> Tensor:
    """The values in their old memory layout: another one is rounded differently."""
    if list(tensor.stride()) == strides:
        return tensor
    return torch.empty_strided(tuple(tensor.shape), strides, dtype=tensor.dtype).copy_(tensor)


def _identity(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
