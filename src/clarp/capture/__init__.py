"""A model becomes a simple graph: export, simplify, signs."""

from clarp.capture.export import capture_exported, capture_module, example_shape, load_exported
from clarp.capture.graph import Graph, Node, Tap
from clarp.capture.output import LogitsOf, Output

__all__ = [
    "Graph",
    "LogitsOf",
    "Node",
    "Output",
    "Tap",
    "capture_exported",
    "capture_module",
    "example_shape",
    "load_exported",
]
