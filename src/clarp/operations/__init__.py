"""What a captured network is made of: each operation computes its output and transports a gradient back.

Shapes: values are (B, ...); gradients and relevances carry a leading axis of K seeds, (K, B, ...), so that many
explanations of one image share its forward pass and are one batched pass back.
"""

from clarp.operations.activation import (
    ELU,
    GELU,
    Activation,
    Erf,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LogSigmoid,
    Mish,
    Power,
    PReLU,
    Reciprocal,
    Sigmoid,
    SiLU,
    Softplus,
    Sqrt,
    Tanh,
)
from clarp.operations.affine import Affine
from clarp.operations.attention import MatMul, Softmax
from clarp.operations.average import AdaptiveAverage, Average, AveragePool, Fold, Interpolate, Mean
from clarp.operations.base import Operation, Record
from clarp.operations.condition import Compare, Shrink, Sign, Step, Threshold, Where
from clarp.operations.contraction import Contraction, Resample
from clarp.operations.elementwise import Elementwise, HardTanh, Rectifier, ReLU
from clarp.operations.linear import (
    Convolution,
    Dense,
    Linear,
    TransposedConvolution,
    WeightedLinear,
)
from clarp.operations.merge import Add, Divide, Multiply, Shift
from clarp.operations.normalisation import GroupNorm, LayerNorm, Normalisation, RMSNorm
from clarp.operations.pooling import AdaptiveMax, Max, Maximum, MaxPool, TopK, VectorNorm
from clarp.operations.power import Absolute, Exp, Log, LogSumExp, RealPower
from clarp.operations.sampling import GridSample, Unpool
from clarp.operations.shape import (
    Concatenate,
    Expand,
    Extend,
    Flip,
    Pad,
    Permute,
    Rearrange,
    Reshape,
    Roll,
    Routing,
    Slice,
)

__all__ = [
    "ELU",
    "GELU",
    "Absolute",
    "Activation",
    "AdaptiveAverage",
    "AdaptiveMax",
    "Add",
    "Affine",
    "Average",
    "AveragePool",
    "Compare",
    "Concatenate",
    "Contraction",
    "Convolution",
    "Dense",
    "Divide",
    "Elementwise",
    "Erf",
    "Exp",
    "Expand",
    "Extend",
    "Flip",
    "Fold",
    "GridSample",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "Interpolate",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Log",
    "LogSigmoid",
    "LogSumExp",
    "MatMul",
    "Max",
    "MaxPool",
    "Maximum",
    "Mean",
    "Mish",
    "Multiply",
    "Normalisation",
    "Operation",
    "PReLU",
    "Pad",
    "Permute",
    "Power",
    "RMSNorm",
    "ReLU",
    "RealPower",
    "Rearrange",
    "Reciprocal",
    "Record",
    "Rectifier",
    "Resample",
    "Reshape",
    "Roll",
    "Routing",
    "Shift",
    "Shrink",
    "SiLU",
    "Sigmoid",
    "Sign",
    "Slice",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Step",
    "Tanh",
    "Threshold",
    "TopK",
    "TransposedConvolution",
    "Unpool",
    "VectorNorm",
    "WeightedLinear",
    "Where",
]
