"""A model becomes a simple graph: export, simplify, signs."""

from clarp.capture.export import capture_exported, capture_module, example_shape
from clarp.capture.graph import Graph, HookPoint, Node

__all__ = [
    "Graph",
    "HookPoint",
    "Node",
    "capture_exported",
    "capture_module",
    "example_shape",
]
