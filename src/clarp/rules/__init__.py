"""How one operation hands relevance to its inputs: frozen dataclasses with formulas in their docstrings."""

from clarp.rules.attention import Halves, Hold, Taylor
from clarp.rules.basic import AlphaBeta, Epsilon, Flat, Gamma, Norm, ScaledZPlus, WSquare, ZBox, Zero, ZPlus
from clarp.rules.condition import Chosen, Sampled
from clarp.rules.custom import register
from clarp.rules.linear import LinearRule
from clarp.rules.merge import Gate, Half, Ratio
from clarp.rules.normalisation import Squares
from clarp.rules.rule import Crop, Pass, Rule, Transport

__all__ = [
    "AlphaBeta",
    "Chosen",
    "Crop",
    "Epsilon",
    "Flat",
    "Gamma",
    "Gate",
    "Half",
    "Halves",
    "Hold",
    "LinearRule",
    "Norm",
    "Pass",
    "Ratio",
    "Rule",
    "Sampled",
    "ScaledZPlus",
    "Squares",
    "Taylor",
    "Transport",
    "WSquare",
    "ZBox",
    "ZPlus",
    "Zero",
    "register",
]
