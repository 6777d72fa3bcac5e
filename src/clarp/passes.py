"""From the seed to the map: one or two passes back, how their maps become one, and how much arrived."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clarp.capture import HookPoint
from clarp.covering import Covering
from clarp.errors import EmptyMap, RelevanceLost, level_of_the_user
from clarp.method import Method
from clarp.operations.base import sample_sums
from clarp.propagation import ForwardCache, Ledger, Program, Propagated
from clarp.selection import RunningSelection, select_by_gradients

ENOUGH, TOO_MUCH = 0.5, 3.0
"""Below and above these shares of the relevance at the pixels there is a warning."""
NAMED, WORTH_NAMING = 3, 0.01
NOISE = 2 / 3
"""The power of the unit of rounding (2e-5 in float32) below which a map, beside its seed, shows nothing but
rounding: what cancels was
larger on its way than the seed."""


@dataclass(frozen=True)
class Maps:
    """What the passes give, target first.

    Attributes:
        skipped: at how many layers nothing could be selected, (K, B).
        relevance: of the pixels, (K, B, C, H, W).
        layers: of the values that were wanted, (K, B, ...).
        ledger: the balance of it all, with tensors (K, B).
        passes: the balance of the passes before they were combined, with tensors (passes K, B).
    """

    skipped: Tensor
    relevance: Tensor
    layers: Mapping[HookPoint, Tensor]
    ledger: Ledger
    passes: Ledger

    def signed(self, signs: Tensor | None) -> "Maps":
        """The same with each map multiplied by -1 or 1, (K, B); None for 1 everywhere."""
        if signs is None:
            return self

        def turned(value: Tensor) -> Tensor:
            return value * signs.to(value.dtype).view(*signs.shape, *(1,) * (value.ndim - 2))

        return replace(
            self,
            relevance=turned(self.relevance),
            layers={point: turned(value) for point, value in self.layers.items()},
            ledger=replace(self.ledger.map(turned), size=self.ledger.size),
        )

    @property
    def one_sign(self) -> bool:
        """Whether each seed is of one sign, so that its sum weighs what it does."""
        return bool((self.passes.seed.abs() >= 0.999 * self.passes.size).all())


@dataclass(frozen=True)
class Passes:
    """One batch on its way back.

    Attributes:
        method: which passes, and how their maps become one.
        program: the network.
        cached: its forward pass.
        targets: (K, B).
        rivals: bool (K, B, N).
        seed: the initial relevance, (K, B, N).
        bounds: the lowest and the highest pixels, each (B or 1, C, H, W).
        channels: the images' axis of channels.
    """

    method: Method
    program: Program
    cached: ForwardCache
    targets: Tensor
    rivals: Tensor
    seed: Tensor
    bounds: tuple[Tensor, Tensor]
    channels: int = 1

    def maps(self, layers: Collection[HookPoint]) -> Maps:
        """Propagate the initial relevance, and combine the passes as the method says."""
        if self.method.covering is not None:
            return self._covered(self.method.covering, layers)
        seed, selection = self.seed, self.selection()

        def skipped() -> Tensor:
            return torch.zeros_like(self.targets) if selection is None else selection.skipped

        if self.method.passes == "signed":
            found = self.back(seed, selection, layers)
            ledger = _ledger(seed, found)
            return Maps(skipped(), found.pixels, found.kept, ledger, ledger)
        count = seed.shape[0]
        own = torch.zeros_like(seed).scatter(-1, self.targets.unsqueeze(-1), 1) * seed
        dual = self.method.passes == "dual"
        both = torch.cat([own, own if dual else own - seed])
        found = self.back(both, selection, layers, dual_from=count if dual else None)
        passes = _ledger(both, found)
        factors = self._factors(passes.pixels[:count], passes.pixels[count:])

        def combined(value: Tensor) -> Tensor:
            first, second = (f.to(value.dtype).view(*f.shape, *(1,) * (value.ndim - 2)) for f in factors)
            return first * value[:count] - second * value[count:]

        seeds = combined(both)
        ledger = Ledger(
            sample_sums(seeds),
            sample_sums(seeds.abs()),
            combined(passes.pixels),
            tuple(entry.map(combined) for entry in passes),
        )
        kept = {point: combined(value) for point, value in found.kept.items()}
        return Maps(skipped(), combined(found.pixels), kept, ledger, passes)

    def _covered(self, covering: Covering, layers: Collection[HookPoint]) -> Maps:
        """What each cell adds to the seed's logits, from the difference to where it is covered."""
        pixels = HookPoint(self.program.plan.graph.input)
        found: dict[HookPoint, Tensor] = {}
        seeds, sizes = torch.zeros_like(self.seed[..., 0]), torch.zeros_like(self.seed[..., 0])
        shown = self.cached.values[pixels.value].to(self.cached.logits.dtype)
        for images in covering.references(shown, self.channels):
            reference = self.program.again(self.cached, images)
            parts = self.program.differences(self.cached, reference, self.seed, layers)
            found = {point: part + found.get(point, 0) for point, part in parts.items()}
            logits = self.seed * (self.cached.logits - reference.logits)
            seeds, sizes = seeds + logits.sum(-1), sizes + logits.abs().sum(-1)
        relevance = found[pixels]
        ledger = Ledger(seeds, sizes, sample_sums(relevance), ())
        kept = {point: found[point] for point in layers}
        return Maps(torch.zeros_like(self.targets), relevance, kept, ledger, ledger)

    def selection(self) -> RunningSelection | None:
        """The method's selections at work on this batch."""
        return select_by_gradients(
            self.method.selections, self.program, self.cached, self.targets, self.rivals
        )

    def back(
        self,
        seed: Tensor,
        selection: RunningSelection | None,
        layers: Collection[HookPoint] = (),
        dual_from: int | None = None,
    ) -> Propagated:
        """Propagate one seed (K, B, N), whatever the method's passes."""
        return self.program.relevance(
            self.cached, seed, bounds=self.bounds, selector=selection, dual_from=dual_from, wanted=layers
        )

    def _factors(self, target_sum: Tensor, rival_sum: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of the target's and the rivals' map before they are subtracted, each (K, B)."""
        ones = torch.ones_like(target_sum)
        if self.method.normalisation == "rival-to-target":
            return ones, _quotient(target_sum, rival_sum)
        if self.method.normalisation == "unit-sum":
            return _quotient(ones, target_sum), _quotient(ones, rival_sum)
        return ones, ones

    def amounts(self, maps: Maps) -> Ledger:
        """The balance of the passes in absolute amounts, so that ``pixels / seed`` is what arrived.

        A seed that contrasts classes sums to zero, and so does everything that is linear in it: its sums say
        nothing of what was lost. There each sign of the seed travels alone, for the first target of the first
        image, which is enough to know.
        """
        if maps.one_sign or not bool(maps.passes.pixels.isfinite().all()):
            signs = maps.passes.seed.sign()
            return maps.passes.map(lambda value: value * signs)
        first = replace(
            self,
            cached=self.cached.first(),
            targets=self.targets[:1, :1],
            rivals=self.rivals[:1, :1],
            seed=self.seed[:1, :1],
            bounds=(self.bounds[0][:1], self.bounds[1][:1]),
        )
        signed = torch.cat([first.seed.clamp(min=0), first.seed.clamp(max=0)])
        passes = _ledger(signed, first.back(signed, first.selection()))
        return Ledger(passes.seed, passes.seed, passes.pixels, passes.entries).map(
            lambda value: value[:1] - value[1:]
        )


def is_empty(relevance: Tensor, size: Tensor) -> Tensor:
    """Which maps (K, B, C, H, W) show nothing but rounding beside a seed of this size (K, B), bool (K, B)."""
    least = torch.finfo(relevance.dtype).eps ** NOISE * size
    return sample_sums(relevance.abs()) <= least


def warn_if_empty(empty: Tensor, target: Tensor, size: Tensor) -> None:
    """Warn of the maps that are empty; all are (B,) or (B, K)."""
    if not bool(empty.any()):
        return
    images = torch.arange(len(empty), device=empty.device).view(-1, *(1,) * (empty.ndim - 1)).expand_as(empty)
    maps = tuple(zip(images[empty].tolist(), target[empty].tolist(), strict=True))
    warnings.warn(EmptyMap(maps, seed=bool((size[empty] > 0).any())), stacklevel=level_of_the_user())


def arrived(amounts: Ledger) -> Tensor:
    """The share of the relevance that reached the pixels, (K, B) or (passes K, B), of what selection kept.

    Args:
        amounts: from :meth:`Passes.amounts`.
    """
    let_on = amounts.seed - amounts.total("selection")
    shares = torch.where(let_on == 0, 1, amounts.pixels / let_on)
    return shares.masked_fill(~shares.isfinite(), torch.nan)


def lost_of(amounts: Ledger, targets: Tensor, first: int = 0) -> tuple[RelevanceLost, int, int] | None:
    """The warning of the sample that lost most, if more than half, or gained most; with its row and column.

    Args:
        amounts: from :meth:`Passes.amounts`.
        targets: (K, B).
        first: the number of the first image, where this is a part of a larger batch.
    """
    let_on, shares = amounts.seed - amounts.total("selection"), arrived(amounts)
    share, most = float(shares.min()), float(shares.max())
    if share >= ENOUGH and most <= TOO_MUCH:
        return None
    grown = share >= ENOUGH
    row, image = divmod(int(shares.argmax() if grown else shares.argmin()), shares.shape[1])
    sign = -1 if grown else 1
    lost = [
        f"{entry} {sign * amount / float(let_on[row, image]):.0%}"
        for entry, amount in amounts.map(Tensor.t).absorbers(image, row)
        if sign * amount >= WORTH_NAMING * let_on[row, image]
    ]
    row %= len(targets)
    found = RelevanceLost(
        most if grown else max(share, 0.0) + 0.0, first + image, int(targets[row, image]), tuple(lost[:NAMED])
    )
    return found, row, image


def _ledger(seed: Tensor, found: Propagated) -> Ledger:
    return Ledger(sample_sums(seed), sample_sums(seed.abs()), sample_sums(found.pixels), found.entries)


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where b is 0."""
    return torch.where(b == 0, 0, a / b.masked_fill(b == 0, 1))
