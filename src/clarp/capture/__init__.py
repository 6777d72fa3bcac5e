"""A model becomes a simple graph: export, simplify, signs."""

from clarp.capture.export import capture_exported, capture_module, example_shape
from clarp.capture.graph import Graph, Node

__all__ = ["Graph", "Node", "capture_exported", "capture_module", "example_shape"]
