"""A model that ends in a softmax or sigmoid returns probabilities; what is explained are the logits before it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from clarp.capture.lowering.shape import NOTHING

aten = torch.ops.aten

Link = Callable[[Tensor], Tensor]
"""From logits (B, N) to what the model returns."""

_softmax, _log_softmax = partial(torch.softmax, dim=-1), partial(torch.log_softmax, dim=-1)
LINKS: dict[Any, Link] = {
    aten.softmax.int: _softmax,
    aten._softmax.default: _softmax,  # noqa: SLF001  an ATen name
    aten.log_softmax.int: _log_softmax,
    aten._log_softmax.default: _log_softmax,  # noqa: SLF001  an ATen name
    aten.sigmoid.default: torch.sigmoid,
    aten.log_sigmoid.default: F.logsigmoid,
}


def before_link(output: fx.Node) -> tuple[fx.Node, Link | None]:
    """The logits of an exported program with this output, and what it does to them at its end, None for nothing.

    Copies and changes of type behind it do not hide it.
    """
    end = output
    while end.target in NOTHING and isinstance(end.args[0], fx.Node):
        end = end.args[0]
    link = LINKS.get(end.target)
    if link is None:
        return output, None
    logits = end.args[0]
    assert isinstance(logits, fx.Node)
    return logits, link
