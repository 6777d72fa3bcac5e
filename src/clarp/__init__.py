"""clarp: class-discriminative relevance propagation for image classifiers.

>>> import torch, clarp
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10)).eval()
>>> clarp.attribute(model, torch.rand(1, 3, 4, 4), target=[7], method="sglrp").shape
torch.Size([1, 3, 4, 4])
"""

from clarp import rules, seeds
from clarp.errors import CaptureError, RelevanceLost, UnsupportedOperation
from clarp.explainer import Explainer, attribute
from clarp.explanation import Explanation
from clarp.method import Method, methods
from clarp.rules import composites
from clarp.selection import Selection

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "Explainer",
    "Explanation",
    "Method",
    "RelevanceLost",
    "Selection",
    "UnsupportedOperation",
    "attribute",
    "composites",
    "methods",
    "rules",
    "seeds",
]
