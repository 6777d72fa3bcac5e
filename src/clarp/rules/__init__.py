"""How one operation hands relevance to its inputs. Each rule is a frozen dataclass with its formula in its docstring."""

from clarp.rules.basic import AlphaBeta, Epsilon, Flat, Gamma, Norm, WSquare, ZBox, Zero, ZPlus
from clarp.rules.linear import LinearRule
from clarp.rules.merge import Ratio
from clarp.rules.rule import Pass, Rule, Transport

__all__ = [
    "AlphaBeta",
    "Epsilon",
    "Flat",
    "Gamma",
    "LinearRule",
    "Norm",
    "Pass",
    "Ratio",
    "Rule",
    "Transport",
    "WSquare",
    "ZBox",
    "ZPlus",
    "Zero",
]
