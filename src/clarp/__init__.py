"""clarp: class-discriminative relevance propagation for image classifiers.

>>> import torch, clarp
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10)).eval()
>>> clarp.attribute(model, torch.rand(1, 3, 4, 4), target=[7], method="sglrp").shape
torch.Size([1, 3, 4, 4])
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarp import rules, seeds
    from clarp.errors import CaptureError, EmptyMap, RelevanceLost, UnsupportedOperation
    from clarp.explainer import Explainer, attribute
    from clarp.explanation import Explanation
    from clarp.exporting import export
    from clarp.method import Method, methods
    from clarp.photo import explain
    from clarp.rules import composites
    from clarp.selection import Selection

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "EmptyMap",
    "Explainer",
    "Explanation",
    "Method",
    "RelevanceLost",
    "Selection",
    "UnsupportedOperation",
    "attribute",
    "composites",
    "explain",
    "export",
    "methods",
    "rules",
    "seeds",
]

_ROOMS = {
    "CaptureError": "errors",
    "EmptyMap": "errors",
    "Explainer": "explainer",
    "Explanation": "explanation",
    "Method": "method",
    "RelevanceLost": "errors",
    "Selection": "selection",
    "UnsupportedOperation": "errors",
    "attribute": "explainer",
    "composites": "rules",
    "explain": "photo",
    "export": "exporting",
    "methods": "method",
}
"""The module of each public name, imported at its first use: ``clarp --help`` needs no PyTorch."""

if not TYPE_CHECKING:  # a type checker that sees this function believes in every name

    def __getattr__(name):  # noqa: ANN001, ANN202
        """A public name, or a module of the package."""
        if name in _ROOMS:
            room = importlib.import_module(f"clarp.{_ROOMS[name]}")
            found = getattr(room, name, None) or importlib.import_module(f"{room.__name__}.{name}")
        elif not name.startswith("_") and importlib.util.find_spec(f"clarp.{name}"):
            return importlib.import_module(f"clarp.{name}")
        else:
            from difflib import get_close_matches  # noqa: PLC0415  only where something is wrong

            near = get_close_matches(name, __all__, n=1, cutoff=0.0)[0]
            raise AttributeError(f"clarp has no {name!r}; the nearest of its names is {near!r}.", name=name)
        globals()[name] = found
        return found

    def __dir__():  # noqa: ANN202
        return sorted({*globals(), *__all__})
