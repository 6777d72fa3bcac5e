"""Seeds: the initial relevance over the logits.

Notation: logits z, target t, s = softmax over the rivals' logits only (``s_t = 0``, sums to 1), y =
    softmax(z).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor


class Seed(ABC):
    """Subclasses are frozen dataclasses."""

    @property
    def has_rivals(self) -> bool:
        """Whether the seed gives the rivals any relevance."""
        return True

    @abstractmethod
    def relevance(self, logits: Tensor, target: Tensor, rivals: Tensor) -> Tensor:
        """The initial relevance.

        Args:
            logits: (B, N).
            target: class of each of K explanations of each image, (K, B).
            rivals: which classes the target is contrasted with, bool (K, B, N); never the target itself.
                Where there are none, the question is whether it is so, and what would be their part goes to a
                constant logit 0.

        Returns:
            (K, B, N).
        """

    def part(self, images: range, targets: range, whole: tuple[int, int]) -> "Seed":
        """The seed of some of the images and targets of a batch.

        Args:
            images: which of them.
            targets: which of each.
            whole: how many there are, (B, K).
        """
        del images, targets, whole
        return self


def _one_hot(logits: Tensor, target: Tensor) -> Tensor:
    ones = logits.new_zeros(*target.shape, logits.shape[-1])
    return ones.scatter_(-1, target.unsqueeze(-1), 1)  # unlike one_hot, waits for no GPU


def _own(logits: Tensor, target: Tensor) -> Tensor:
    """``z_t e_t``, also where other logits are infinite.

    Raises:
        ValueError: the target's is.
    """
    of_target = logits.expand(*target.shape, -1).gather(-1, target.unsqueeze(-1))
    infinite = of_target.isinf().any(-1)
    # A program that is exported can't refuse what it is given: it gives NaN.
    if not torch.compiler.is_exporting() and bool(infinite.any()):
        raise ValueError(
            f"the target {target[infinite].unique().tolist()} has an infinite logit: the model rules it "
            "out, and nothing speaks for or against it. Explain a class whose logit is finite."
        )
    return logits.new_zeros(*target.shape, logits.shape[-1]).scatter(-1, target.unsqueeze(-1), of_target)


class Contrasting(Seed):
    """A seed that gives the rivals a part.

    Attributes:
        strength: what their part is multiplied with; with 0 there are none.

    Raises:
        ValueError: strength is not a finite number of at least 0.
    """

    strength: float

    def __post_init__(self) -> None:
        number = isinstance(self.strength, int | float) and not isinstance(self.strength, bool)
        if not (number and isfinite(self.strength) and self.strength >= 0):
            raise ValueError(
                f"strength is {self.strength!r}, expected a finite number of at least 0: 0 for no rivals, 1 "
                "for the published form."
            )

    @property
    def has_rivals(self) -> bool:
        """Unless their strength is zero."""
        return self.strength > 0


@dataclass(frozen=True)
class Logit(Seed):
    """LRP's seed: ``R_t = z_t``, nothing for the others (Bach et al. 2015)."""

    @property
    def has_rivals(self) -> bool:
        """None."""
        return False

    def relevance(self, logits: Tensor, target: Tensor, rivals: Tensor) -> Tensor:
        """``R_t = z_t``."""
        del rivals
        return _own(logits, target)


@dataclass(frozen=True)
class Uniform(Contrasting):
    """CLRP1's seed: ``R_t = z_t``, ``R_n = -strength z_t / (number of rivals)`` (Gu 2018, arXiv 1812.02100).

    Attributes:
        strength: 1 makes it sum to zero, 0 gives :class:`Logit`.

    Raises:
        ValueError: strength is not a finite number of at least 0.
    """

    strength: float = 1.0

    def relevance(self, logits: Tensor, target: Tensor, rivals: Tensor) -> Tensor:
        """``z_t (e_t - strength / M)``."""
        if self.strength == 0:
            return Logit().relevance(logits, target, rivals)
        weights = (rivals & ~logits.isneginf()).to(logits)  # a class that the model rules out is no rival
        share = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        total = _own(logits, target).sum(-1, keepdim=True)
        return total * (_one_hot(logits, target) - self.strength * share)


@dataclass(frozen=True)
class SoftmaxGradient(Contrasting):
    """SGLRP's seed over ``y_t (1 - y_t)``: ``R_t = 1``, ``R_n = -strength s_n`` (Iwana 2019, 1908.04351).

    The published form ``R_t = y_t (1 - y_t)``, ``R_n = -y_t y_n`` is the same map up to a positive factor,
    and underflows where the network is sure.

    Attributes:
        rivals: "all", or how many of the strongest rivals to take.
        strength: 1 is the published form and sums to zero; 0 leaves the target alone.
        scaled: multiply by ``y_t (1 - y_t)`` again, with y the softmax over the target and its rivals, or the
            sigmoid of a target that has none; needs a strength.

    Raises:
        ValueError: rivals is neither "all" nor a positive integer, strength is not a finite number of at
            least 0, or it is 0 with ``scaled``, whose factor without rivals is 0.
    """

    rivals: Literal["all"] | int = "all"
    strength: float = 1.0
    scaled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.rivals, int) and not isinstance(self.rivals, bool)
        if self.rivals != "all" and not (number and int(self.rivals) > 0):
            raise ValueError(
                f"rivals is {self.rivals!r}, expected 'all' or how many of the strongest rivals to take, "
                "for example 5."
            )
        if self.scaled and not self.has_rivals:
            raise ValueError(
                "strength is 0 with scaled=True, which multiplies by y_t (1 - y_t): without rivals that is "
                "0, and so would be the map. Pass scaled=False, or a strength above 0."
            )

    def relevance(self, logits: Tensor, target: Tensor, rivals: Tensor) -> Tensor:
        """``e_t - strength s``."""
        if self.rivals != "all":
            rivals = _strongest(logits, rivals, int(self.rivals))
        _own(logits, target)  # raises where there is nothing to explain
        relevance = softmax_direction(logits, target, rivals, self.strength)
        if not self.scaled:
            return relevance
        own = logits.expand(rivals.shape).gather(-1, target.unsqueeze(-1))
        others = logits.masked_fill(~rivals, -torch.inf).logsumexp(-1, keepdim=True)
        others = others.where(rivals.any(-1, keepdim=True), 0)
        total = torch.logaddexp(own, others)
        return relevance * (own - total).exp() * (others - total).exp()


@dataclass(frozen=True)
class Contrast(Contrasting):
    """The target's lead: ``R_t = z_t``, ``R_n = -strength c s_n z_n``, ``c = min(1, max(0, z_t) / z_s)``.

    ``z_s = sum_n s_n z_n`` is what the rivals have together. Where the target leads (c = 1), this is
    :class:`SoftmaxGradient` times the logits, and sums to the target's lead ``z_t - z_s``. With the zero or
    epsilon rule in a head of one layer, every feature then gets exactly what it contributes to that lead,
    ``a_i (w_ti - sum_n s_n w_ni)``, signs included. Where the target trails, the rivals count no more than it
    has itself (c < 1, and the seed sums to zero): their whole weight would outweigh all that speaks for the
    target, and leave a map that is negative everywhere, its object included. Where ``z_s`` is not positive
    there is nothing to cap, and c = 1.

    Attributes:
        strength: of the rivals; 0 gives :class:`Logit`.

    Raises:
        ValueError: strength is not a finite number of at least 0.

    >>> logits = torch.tensor([[3.0, 1.0, 1.0]])
    >>> Contrast().relevance(logits, torch.tensor([[0]]), torch.tensor([[[False, True, True]]]))
    tensor([[[ 3.0000, -0.5000, -0.5000]]])
    >>> Contrast().relevance(logits, torch.tensor([[1]]), torch.tensor([[[True, False, False]]]))
    tensor([[[-1.,  1.,  0.]]])
    """

    strength: float = 1.0

    def relevance(self, logits: Tensor, target: Tensor, rivals: Tensor) -> Tensor:
        """``z_t e_t - strength min(1, max(0, z_t) / z_s) s z``."""
        own = _own(logits, target)
        if self.strength == 0:
            return own
        others = _shares(logits, rivals) * logits.masked_fill(logits.isneginf(), 0)
        has, have = own.sum(-1, keepdim=True), others.sum(-1, keepdim=True)
        capped = torch.where(have > 0, (has.clamp(min=0) / have).clamp(max=1), 1)
        return own - self.strength * capped * others


@dataclass(frozen=True, eq=False)
class Vector(Seed):
    """Any initial relevance.

    Attributes:
        values: (N,), (B, N) or (B, K, N); or a callable (logits (B, N), target (B, K)) -> such a tensor.
    """

    values: Tensor | Callable[[Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Tensor) and not callable(self.values):
            raise TypeError(
                f"Vector got a {type(self.values).__name__}, expected a tensor over the logits or a "
                "callable that returns one."
            )

    @property
    def has_rivals(self) -> bool:
        """The values say it all: no rivals to choose."""
        return False

    def relevance(self, logits: Tensor, target: Tensor, rivals: Tensor) -> Tensor:
        """The values, as (K, B, N)."""
        del rivals
        values = self.values(logits, target.t()) if callable(self.values) else self.values
        if not isinstance(values, Tensor) or not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"Vector gives the {type(values).__name__} {values!r}, expected a tensor of finite numbers "
                "over the logits."
            )
        shape = (logits.shape[0], target.shape[0], logits.shape[1])
        return _spread(values.to(logits), shape).transpose(0, 1)

    def part(self, images: range, targets: range, whole: tuple[int, int]) -> "Vector":
        """The values of these images and targets; a callable is asked part by part."""
        if not isinstance(self.values, Tensor) or self.values.ndim < 2:
            return self
        values = _spread(self.values, (*whole, self.values.shape[-1]))
        return Vector(values[images.start : images.stop, targets.start : targets.stop])


def _spread(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Values over the logits as (B, K, N)."""
    try:
        return (values.unsqueeze(1) if values.ndim == 2 else values).expand(shape)
    except RuntimeError as error:
        raise ValueError(
            f"Vector gives values of shape {tuple(values.shape)}, expected (N,), (B, N) or (B, K, N) with "
            f"(B, K, N) = {shape}."
        ) from error


def softmax_direction(logits: Tensor, target: Tensor, rivals: Tensor, strength: float = 1.0) -> Tensor:
    """``e_t - strength s``: the gradient of log y_t over the logits but for ``1 - y_t``, (K, B, N)."""
    own = _one_hot(logits, target)
    if strength == 0:
        return own
    return own - strength * _shares(logits, rivals)


def _shares(logits: Tensor, rivals: Tensor) -> Tensor:
    """s, which is zero where the logits of all rivals are minus infinity: then there are none."""
    ranked = logits.masked_fill(~rivals, -torch.inf)
    return ranked.softmax(-1).masked_fill(ranked.isneginf(), 0)


def _strongest(logits: Tensor, rivals: Tensor, count: int) -> Tensor:
    ranked = logits.masked_fill(~rivals, -torch.inf)
    best = ranked.topk(min(count, logits.shape[-1]), dim=-1).indices
    return torch.zeros_like(rivals).scatter(-1, best, True) & rivals
