"""Explanations as files that run without clarp: ``.pt2`` for PyTorch, ONNX for everything else.

The forward pass, the seed, the selection and the backward pass are tensor operations on a captured graph, so
all of them together are one more program that ``torch.export`` can record.
"""

from clarp.exporting.about import FileDescription
from clarp.exporting.writing import export

__all__ = ["FileDescription", "export"]
