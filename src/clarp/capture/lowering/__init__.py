"""From one ATen operation of the exported program to one operation of clarp, or to none where it does nothing.

A module per topic; importing it registers its lowerings.
"""

from clarp.capture.lowering import (
    attention,
    condition,
    distance,
    elementwise,
    fourier,
    linear,
    merge,
    normalisation,
    pooling,
    power,
    rearrange,
    recurrent,
    resampling,
    sampling,
    shape,
)
from clarp.capture.lowering.call import (
    ANYWHERE,
    CHANNELWISE,
    LOWERINGS,
    Call,
    Lowered,
    Refused,
    Step,
    Value,
    lowered,
    lowers,
    no_lowering,
)

__all__ = [
    "ANYWHERE",
    "CHANNELWISE",
    "LOWERINGS",
    "Call",
    "Lowered",
    "Refused",
    "Step",
    "Value",
    "attention",
    "condition",
    "distance",
    "elementwise",
    "fourier",
    "linear",
    "lowered",
    "lowers",
    "merge",
    "no_lowering",
    "normalisation",
    "pooling",
    "power",
    "rearrange",
    "recurrent",
    "resampling",
    "sampling",
    "shape",
]
