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


def undone(link: Link, output: Tensor) -> Tensor:
    """Logits (B, N) from what the model returns, in float64; behind a softmax up to a constant for each image.

    Where the output is as near to 0 or 1 as its type allows, the logit is the greatest or least that the type can tell.
    """
    type_ = torch.finfo(output.dtype)
    least = type_.tiny * type_.eps  # above 0
    output = output.double()
    if link is _softmax:
        return output.clamp(min=least).log()
    if link is torch.sigmoid:
        return output.clamp(least, 1 - type_.eps / 2).logit()
    if link is F.logsigmoid:
        output = output.clamp(max=-least)
        return output - (-output.expm1()).log()
    return output  # a log-softmax is its own logits


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
