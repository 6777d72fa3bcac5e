"""The program: the forward pass, the gradient back, and the relevance back, all over the same plan."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from clarp.capture import HookPoint
from clarp.operations import Add, Record, Rectifier, WeightedLinear
from clarp.operations.base import in_dtype, may_overwrite, sample_sums
from clarp.propagation.constants import Constants
from clarp.propagation.forward_cache import ForwardCache
from clarp.propagation.handing import Selector, check_shares, handed, selected
from clarp.propagation.ledger import Entry
from clarp.propagation.plan import Plan, Step
from clarp.propagation.secants import secant
from clarp.rules import Pass
from clarp.rules.rule import Context


@dataclass(frozen=True)
class Propagated:
    """What :meth:`Program.relevance` returns.

    Attributes:
        pixels: the relevance of the pixels, (K, B, C, H, W).
        kept: that of the values that were wanted, (K, B, ...).
        entries: the balance of every operation, with tensors (K, B).
    """

    pixels: Tensor
    kept: Mapping[HookPoint, Tensor]
    entries: tuple[Entry, ...]


class Program:
    """Runs a plan on one device in one type. The parts of weights that its rules read are made once.

    Args:
        plan: the operations and their rules.
        device: where to run.
        dtype: in which type to compute the logits.
        back: in which type to go back; a lower precision takes half the time where the hardware has it, and
            half the memory.
        gradients: whether :meth:`gradients` will be called, so that the forward pass keeps what it reads.
        secants: whether :meth:`differences` will be called, so that the forward pass keeps all values.

    Attributes:
        plan: as given.
        back: as given.
    """

    def __init__(
        self,
        plan: Plan,
        device: torch.device,
        dtype: torch.dtype,
        back: torch.dtype,
        *,
        gradients: bool,
        secants: bool = False,
    ) -> None:
        self.plan = plan
        self._image_independent = plan.graph.image_independent()
        self.back = back
        self._constants = Constants.of(plan, device, dtype, back)
        self._kept = {plan.graph.output}
        if secants:
            self._kept.update((plan.graph.input, *(node.name for node in plan.graph)))
        for step in plan:
            by_gradient = gradients or step.rule.transports
            keeps = step.rule.keeps | (step.node.operation.gradient_keeps if by_gradient else set())
            self._kept.update(step.node.inputs if "inputs" in keeps else ())
            self._kept.update((step.node.name,) if "output" in keeps else ())
        last_reader = {name: node.name for node in plan.graph for name in node.inputs}
        self._last_read: dict[str, list[str]] = {}
        for name, reader in last_reader.items():
            self._last_read.setdefault(reader, []).append(name)
        self._overwriting = self._overwritable()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The graph's constants by name, as the forward pass reads them."""
        return self._constants.forward

    def reading(self, tensors: Mapping[str, Tensor]) -> "Program":
        """The same program on other constants of these names, shapes and types, forwards and backwards.

        The parts of weights are made at each use, so that who records a run records how they are made.
        """
        other = copy(self)
        vars(other).update(_constants=self._constants.replaced(tensors))
        return other

    def _overwritable(self) -> frozenset[str]:
        """The rectifiers that may overwrite their input: new memory costs more than they do."""
        graph = self.plan.graph
        fresh = {node.name for node in graph if isinstance(node.operation, WeightedLinear | Add)} - self._kept
        readers = Counter(name for node in graph for name in node.inputs)
        return frozenset(
            node.name
            for node in graph
            if isinstance(node.operation, Rectifier)
            and node.inputs[0] in fresh
            and readers[node.inputs[0]] == 1
        )

    def forward(self, images: Tensor, rows: Sequence[Tensor] = ()) -> ForwardCache:
        """Compute the logits of images (B, C, H, W) and further inputs (B, ...), with a forward cache."""
        return self._forward(images, self.plan.graph.auxiliary.values(rows, self.tensors, images))

    def again(self, cached: ForwardCache, images: Tensor) -> ForwardCache:
        """As :meth:`forward`, of other images with the same further inputs."""
        return self._forward(images, dict(cached.image_independent))

    def _forward(self, images: Tensor, image_independent: dict[str, Tensor]) -> ForwardCache:
        graph = self.plan.graph
        overwriting = self._overwriting if may_overwrite(images, *self.tensors.values()) else frozenset()
        values = {graph.input: self._constants.laid_out(images), **image_independent}
        kept: dict[str, Tensor] = {}
        memos: dict[str, Tensor] = {}
        shapes = {name: value.shape for name, value in values.items()}

        def keep(name: str) -> None:
            if name in self._kept:
                kept[name] = values[name].to(self.back)

        for name in shapes:
            keep(name)
        for node in graph:
            if isinstance(node.operation, Rectifier) and node.name in overwriting:
                output, memo = node.operation.overwrite(values[node.inputs[0]]), None
            else:
                inputs = [values[name] for name in node.inputs]
                output, memo = node.operation.forward(inputs, self.tensors)
            values[node.name], shapes[node.name] = output, output.shape
            if memo is not None:
                memos[node.name] = in_dtype(memo, self.back)
            keep(node.name)
            for name in self._last_read.get(node.name, ()):
                del values[name]
        return ForwardCache(values[graph.output], kept, memos, shapes, image_independent)

    def gradients(
        self, cached: ForwardCache, seed: Tensor, wanted: Collection[str]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yields the gradients (K, B, ...) of ``sum_n seed_n z_n`` at the wanted values, with their names.

        Seed is (K, B, N). The order is from the last layer to the first, on demand, so that only one is in
        memory.
        """
        arrived = {self.plan.graph.output: seed.to(self.back)}
        for node in reversed(self.plan.graph.nodes):
            gradient = arrived.pop(node.name, None)
            if gradient is None:
                continue
            if node.name in wanted:
                yield node.name, gradient
            shares = node.operation.gradient(gradient, cached.record(node), self._constants.back)
            fresh = isinstance(node.operation, WeightedLinear)
            for name, share in zip(node.inputs, shares, strict=True):
                _add(arrived, name, share, fresh=fresh)
        if self.plan.graph.input in wanted:
            yield self.plan.graph.input, arrived[self.plan.graph.input]

    def differences(
        self, cached: ForwardCache, reference: ForwardCache, seed: Tensor, wanted: Collection[HookPoint]
    ) -> dict[HookPoint, Tensor]:
        """What each value adds to the difference of ``sum_n seed_n z_n`` between two forward passes.

        ``m (x - x~)`` with the secants m (:func:`~clarp.propagation.secants.secant`), (K, B, ...), of the
        pixels and of the other values that are wanted. The program must have been made with ``secants``.
        """
        graph = self.plan.graph
        wanted = {HookPoint(graph.input), *wanted}
        arrived = {graph.output: seed.to(self.back)}
        found: dict[HookPoint, Tensor] = {}

        def take(point: HookPoint, secants: Tensor) -> None:
            if point in wanted:
                found[point] = secants * (cached.values[point.value] - reference.values[point.value])

        for node in reversed(graph.nodes):
            of_output = arrived.pop(node.name, None)
            if of_output is None:
                continue
            take(HookPoint(node.name), of_output)
            records = cached.record(node), reference.record(node)
            for name, share in zip(
                node.inputs, secant(node.operation, of_output, *records, self._constants.back), strict=True
            ):
                take(HookPoint(name, node.name), share)
                if name not in self._image_independent:
                    _add(arrived, name, share)
        if graph.input in arrived:
            take(HookPoint(graph.input), arrived[graph.input])
        for point in wanted - found.keys():  # where nothing arrived
            found[point] = seed.new_zeros(seed.shape[0], *cached.shapes[point.value])
        return {point: value.to(seed.dtype) for point, value in found.items()}

    def relevance(
        self,
        cached: ForwardCache,
        seed: Tensor,
        *,
        bounds: tuple[Tensor, Tensor],
        selector: Selector | None = None,
        dual_from: int | None = None,
        wanted: Collection[HookPoint] = (),
    ) -> Propagated:
        """Propagate the initial relevance to the pixels.

        Args:
            cached: from :meth:`forward`.
            seed: initial relevance over the logits, (K, B, N).
            bounds: the lowest and the highest pixels, each (B or 1, C, H, W).
            selector: what selection does on the way.
            dual_from: from this seed on, the last layer's weights are seen negated (CLRP2).
            wanted: where else to keep the relevance: as it goes on from there, behind selection.
        """
        graph = self.plan.graph
        dtype, seed = seed.dtype, seed.to(self.back)
        arrived, sums = {graph.output: seed}, {graph.output: sample_sums(seed)}
        moved = self._moved_bounds(bounds, cached)
        head = self.plan.head().name if dual_from is not None else None
        kept: dict[HookPoint, Tensor] = {}
        entries: list[Entry] = []
        for step in reversed(self.plan.steps):
            node = step.node
            relevance, total = arrived.pop(node.name, None), sums.pop(node.name, None)
            if relevance is None or total is None:
                continue
            relevance, left = selected(selector, node.name, relevance, total)
            modulation = None if selector is None else selector.modulation(node.name, relevance.shape[0])
            context = self._context(step, cached.record(node), moved, modulation)
            shares = handed(step.rule, relevance, context, dual_from if node.name == head else None)
            if HookPoint(node.name) in wanted:
                kept[HookPoint(node.name)] = relevance
            check_shares(step, shares, [cached.shapes[name] for name in node.inputs])
            passes = isinstance(step.rule, Pass)
            to_inputs, to_constants = torch.zeros_like(total), torch.zeros_like(total)
            for name, share in zip(node.inputs, shares.inputs, strict=True):
                if share is None:
                    continue
                if HookPoint(name, node.name) in wanted:
                    kept[HookPoint(name, node.name)] = share
                amount = left if passes else sample_sums(share)
                if name in self._image_independent:  # held constant, as any constant of the model
                    to_constants = to_constants + amount
                    continue
                to_inputs = to_inputs + amount
                _add(arrived, name, share, fresh=shares.fresh and HookPoint(name, node.name) not in wanted)
                _add(sums, name, amount)
            taken = to_constants if shares.bias is None else shares.bias + to_constants
            entries.append(Entry(node, step.rule, total, to_inputs, total - left, taken))
        pixels = HookPoint(graph.input)
        if graph.input in arrived:
            kept[pixels] = arrived[graph.input]
        for point in {pixels, *wanted} - kept.keys():  # where nothing arrived
            kept[point] = seed.new_zeros(seed.shape[0], *cached.shapes[point.value])
        plain = {point: value.to(dtype).contiguous() for point, value in kept.items()}
        return Propagated(plain[pixels], {point: plain[point] for point in wanted}, tuple(entries))

    def _context(
        self,
        step: Step,
        record: Record,
        moved: Mapping[str, tuple[Tensor, Tensor]],
        modulation: Tensor | None,
    ) -> Context:
        operation = step.node.operation
        return Context(
            operation,
            record,
            self._constants.back,
            lambda part: self._constants.weight(operation, part),
            step.signs,
            moved.get(step.node.inputs[0]) if step.reads_pixels else None,
            None if modulation is None else _modulated(modulation, record.input()),
            step.constant,
        )

    def _moved_bounds(
        self, bounds: tuple[Tensor, Tensor], cached: ForwardCache
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The bounds of every value that is pixels, moved around or in other units."""
        graph = self.plan.graph
        pixels = graph.pixels()
        if cached.image_independent:
            low, high = (bound.expand(cached.logits.shape[0], *bound.shape[1:]) for bound in bounds)
            bounds = low, high
        moved = {
            graph.input: bounds,
            **{name: (value, value) for name, value in cached.image_independent.items()},
        }
        for node in graph:
            if node.name in pixels or node.name in self._image_independent:
                one, other = (
                    node.operation.forward([moved[name][end] for name in node.inputs], self.tensors)[0]
                    for end in (0, 1)
                )
                moved[node.name] = (torch.minimum(one, other), torch.maximum(one, other))
        return {name: (low.to(self.back), high.to(self.back)) for name, (low, high) in moved.items()}


def _modulated(factors: Tensor, value: Tensor) -> Tensor:
    return factors.mul_(value) if may_overwrite(factors, value) else factors * value


def _add(collected: dict[str, Tensor], name: str, share: Tensor, *, fresh: bool = False) -> None:
    """Collect one more share; a fresh one, in memory that nobody else reads, is where the sum goes."""
    if name in collected:
        other = collected[name]
        share = share.add_(other) if fresh and may_overwrite(share, other) else other + share
    collected[name] = share
