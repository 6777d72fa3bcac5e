"""A model becomes a simple graph: export, simplify, signs."""

from clarp.capture.export import capture_exported, capture_module, example_shape, load_exported
from clarp.capture.graph import Graph, HookPoint, Node
from clarp.capture.output import LogitsOf, Output

__all__ = [
    "Graph",
    "HookPoint",
    "LogitsOf",
    "Node",
    "Output",
    "capture_exported",
    "capture_module",
    "example_shape",
    "load_exported",
]
