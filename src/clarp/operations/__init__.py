"""What a captured network is made of: each operation computes its output and transports a gradient back.

Shapes: values are (B, ...); gradients and relevances carry a leading axis of K seeds, (K, B, ...), so that many
explanations of one image share its forward pass and are one batched pass back.
"""

from clarp.operations.base import Operation, Record
from clarp.operations.elementwise import Affine, Elementwise, HardTanh, ReLU
from clarp.operations.linear import (
    AdaptiveAverage,
    Average,
    AveragePool,
    Convolution,
    Dense,
    Linear,
    Mean,
    WeightedLinear,
)
from clarp.operations.merge import Add
from clarp.operations.pooling import MaxPool
from clarp.operations.shape import Concatenate, Pad, Permute, Reshape, Routing, Slice

__all__ = [
    "AdaptiveAverage",
    "Add",
    "Affine",
    "Average",
    "AveragePool",
    "Concatenate",
    "Convolution",
    "Dense",
    "Elementwise",
    "HardTanh",
    "Linear",
    "MaxPool",
    "Mean",
    "Operation",
    "Pad",
    "Permute",
    "ReLU",
    "Record",
    "Reshape",
    "Routing",
    "Slice",
    "WeightedLinear",
]
