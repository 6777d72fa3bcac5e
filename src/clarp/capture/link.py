"""What a model does to its logits at its end, stage by stage, and how it is undone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Squash = Literal["softmax", "sigmoid"]


class Stage(ABC):
    """One elementwise function, or a softmax, between logits and results: a frozen dataclass."""

    rising: ClassVar[bool] = True
    """Whether a greater logit gives a greater result."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The result."""

    @abstractmethod
    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        """What the result was made of, in float64; y was rounded to a type with these limits."""


@dataclass(frozen=True)
class Softmax(Stage):
    """``exp(z_n) / sum_m exp(z_m)``; its inverse is right up to a constant for each image."""

    squash: ClassVar[Squash] = "softmax"

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        return y.clamp(min=_least(type_)).log()


@dataclass(frozen=True)
class LogSoftmax(Stage):
    """``z_n - log sum_m exp(z_m)``."""

    squash: ClassVar[Squash] = "softmax"

    def forward(self, x: Tensor) -> Tensor:
        return x.log_softmax(-1)

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        return y


@dataclass(frozen=True)
class Sigmoid(Stage):
    """``1 / (1 + exp(-z))``."""

    squash: ClassVar[Squash] = "sigmoid"

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        return y.clamp(_least(type_), 1 - type_.eps / 2).logit()


@dataclass(frozen=True)
class LogSigmoid(Stage):
    """``-log(1 + exp(-z))``."""

    squash: ClassVar[Squash] = "sigmoid"

    def forward(self, x: Tensor) -> Tensor:
        return F.logsigmoid(x)

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        y = y.clamp(max=-_least(type_))
        return y - (-y.expm1()).log()


@dataclass(frozen=True)
class Scale(Stage):
    """``factor x + summand``: ``1 - p``, percents, an epsilon before a logarithm."""

    factor: float
    summand: float

    @property
    def rising(self) -> bool:  # type: ignore[override]
        """Unless the factor is negative."""
        return self.factor > 0

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x + self.summand

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        return (y - self.summand) / self.factor


@dataclass(frozen=True)
class Clamp(Stage):
    """``min(max(x, low), high)``; what it cut off can't be told from the result."""

    low: float
    high: float

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        return y


@dataclass(frozen=True)
class Log(Stage):
    """``log x``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log()

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        return y.exp()


@dataclass(frozen=True)
class Exp(Stage):
    """``exp x``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        return y.clamp(min=_least(type_)).log()


@dataclass(frozen=True)
class Reciprocal(Stage):
    """``1 / x`` of a positive x."""

    rising: ClassVar[bool] = False

    def forward(self, x: Tensor) -> Tensor:
        return x.reciprocal()

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        return y.clamp(min=_least(type_)).reciprocal()


@dataclass(frozen=True)
class Softplus(Stage):
    """``log(1 + exp(x))``."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)

    def inverse(self, y: Tensor, type_: torch.finfo) -> Tensor:
        return y.clamp(min=_least(type_)).expm1().log()


def _least(type_: torch.finfo) -> float:
    return type_.tiny * type_.eps


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
        return next(
            s.squash for s in self.stages if isinstance(s, Softmax | LogSoftmax | Sigmoid | LogSigmoid)
        )

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


STAGES: dict[str, type[Stage]] = {
    kind.__name__: kind
    for kind in (Softmax, LogSoftmax, Sigmoid, LogSigmoid, Scale, Clamp, Log, Exp, Reciprocal, Softplus)
}
