"""What a model does to its logits at its end, stage by stage, and how it is undone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Squash = Literal["softmax", "sigmoid"]


def _least(limits: torch.finfo) -> float:
    return limits.tiny * limits.eps


def _logit(y: Tensor, limits: torch.finfo) -> Tensor:
    return y.clamp(_least(limits), 1 - limits.eps / 2).logit()


def _log(y: Tensor, limits: torch.finfo) -> Tensor:
    return y.clamp(min=_least(limits)).log()


def _logit_of_logarithm(y: Tensor, limits: torch.finfo) -> Tensor:
    y = y.clamp(max=-_least(limits))
    return y - (-y.expm1()).log()


FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "Softmax": (lambda x: x.softmax(-1), _log),
    "LogSoftmax": (lambda x: x.log_softmax(-1), lambda y, _: y),
    "Sigmoid": (torch.sigmoid, _logit),
    "LogSigmoid": (F.logsigmoid, _logit_of_logarithm),
    "Scale": (
        lambda x, factor, summand: factor * x + summand,
        lambda y, _, factor, summand: (y - summand) / factor,
    ),
    "Clamp": (torch.clamp, lambda y, *_: y),
    "Log": (torch.log, lambda y, _: y.exp()),
    "Exp": (torch.exp, _log),
    "Reciprocal": (torch.reciprocal, lambda y, limits: y.clamp(min=_least(limits)).reciprocal()),
    "Softplus": (F.softplus, lambda y, limits: y.clamp(min=_least(limits)).expm1().log()),
}
"""Each function x -> y, and its inverse (y, limits) -> x; both take the stage's numbers behind.

A softmax's inverse is right up to a constant for each image; what a clamp has cut off can't be told."""
SQUASHES: dict[str, Squash] = {
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
    "Sigmoid": "sigmoid",
    "LogSigmoid": "sigmoid",
}


@dataclass(frozen=True)
class Stage:
    """One elementwise function, or a softmax, between logits and results.

    Attributes:
        name: one of ``FUNCTIONS``.
        first: the factor of a "Scale", the lower limit of a "Clamp".
        second: the summand, the upper limit.
    """

    name: str
    first: float | None = None
    second: float | None = None

    @property
    def _numbers(self) -> tuple[float, ...]:
        return tuple(number for number in (self.first, self.second) if number is not None)

    @property
    def rising(self) -> bool:
        """Whether a greater logit gives a greater result."""
        return self.name != "Reciprocal" and not (self.name == "Scale" and self._numbers[0] < 0)

    def forward(self, x: Tensor) -> Tensor:
        """The result."""
        return FUNCTIONS[self.name][0](x, *self._numbers)

    def inverse(self, y: Tensor, limits: torch.finfo) -> Tensor:
        """What the result was made of, in float64; y was rounded to a type with these limits."""
        return FUNCTIONS[self.name][1](y, limits, *self._numbers)


Softmax, LogSoftmax, Sigmoid, LogSigmoid, Scale, Clamp, Log, Exp, Reciprocal, Softplus = (
    partial(Stage, name) for name in FUNCTIONS
)


@dataclass(frozen=True)
class Link:
    """From logits (B, N) to what the model returns.

    Attributes:
        stages: in the order of computation; exactly one is a softmax or sigmoid, or its logarithm.
        seen: whether the model computes them so; else its results are probabilities that are made in another
            way (a mean of several models', say), of which these are the logits.
    """

    stages: tuple[Stage, ...]
    seen: bool = True

    @property
    def squash(self) -> Squash:
        """Whether the classes exclude each other ("softmax") or each is a question of its own ("sigmoid")."""
        return next(SQUASHES[stage.name] for stage in self.stages if stage.name in SQUASHES)

    @property
    def rising(self) -> bool:
        """Whether a greater logit gives a greater result."""
        return sum(not stage.rising for stage in self.stages) % 2 == 0

    def __call__(self, logits: Tensor) -> Tensor:
        for stage in self.stages:
            logits = stage.forward(logits)
        return logits

    def undone(self, output: Tensor) -> Tensor:
        """Logits from what the model returns, in float64; behind a softmax up to a constant for each image.

        Where the output is as near to 0 or 1 as its type allows, the logit is the greatest or least that the
        type can tell.
        """
        type_, output = torch.finfo(output.dtype), output.double()
        for stage in reversed(self.stages):
            output = stage.inverse(output, type_)
        return output
