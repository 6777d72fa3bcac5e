"""What a captured network is made of: a file for each kind of operation, with all that belongs to it.

That is how ATen spells it (``@spelt``, ``@lowers``), what it computes, how a gradient goes back, the limits
of its output, and which rule of a composite it gets. The modules at the end are of operations that become
several others.

Shapes: values are (B, ...); gradients and relevances carry a leading axis of K seeds, (K, B, ...), so that
many explanations of one image share its forward pass and are one batched pass back.
"""

from clarp.operations import distance, fourier, recurrent, results
from clarp.operations.activation import (
    ELU,
    GELU,
    Atan,
    Erf,
    LogSigmoid,
    Mish,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from clarp.operations.attention import LogSumExp, MatMul, Softmax
from clarp.operations.average import AdaptiveAverage, Average, AveragePool, Fold, Interpolate, Mean
from clarp.operations.base import Operation, Record
from clarp.operations.condition import Compare, Sign, StepFunction, Where
from clarp.operations.contraction import Contraction, Resample
from clarp.operations.elementwise import (
    Activation,
    Elementwise,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyReLU,
    PReLU,
    Rectifier,
    ReLU,
    Shrink,
    Threshold,
)
from clarp.operations.indexing import Concatenate, Extend, Flip, Pad, Rearrange, Roll, Slice
from clarp.operations.linear import Affine, Convolution, Dense, Linear, TransposedConvolution, WeightedLinear
from clarp.operations.merge import Add, Divide, Multiply, Shift
from clarp.operations.normalisation import GroupNorm, LayerNorm, Normalisation, RMSNorm
from clarp.operations.pooling import AdaptiveMax, Max, Maximum, MaxPool, TopK, VectorNorm
from clarp.operations.power import Absolute, Exp, Log, LogOdds, Power, RealPower, Reciprocal, Sqrt
from clarp.operations.sampling import GridSample, Unpool
from clarp.operations.shape import Expand, Permute, Reshape, Routing

__all__ = [
    "ELU",
    "GELU",
    "Absolute",
    "Activation",
    "AdaptiveAverage",
    "AdaptiveMax",
    "Add",
    "Affine",
    "Atan",
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
    "LogOdds",
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
    "StepFunction",
    "Tanh",
    "Threshold",
    "TopK",
    "TransposedConvolution",
    "Unpool",
    "VectorNorm",
    "WeightedLinear",
    "Where",
    "distance",
    "fourier",
    "recurrent",
    "results",
]
