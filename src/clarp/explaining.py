"""From a checked query to its explanation: forward pass, seed, passes back, and all that is said of them."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clarp.batching import BatchSize, Need, Parts
from clarp.bounds import source
from clarp.capture import HookPoint
from clarp.capture.further import Further
from clarp.classes import ClassNames
from clarp.explanation import Explanation
from clarp.method import Method
from clarp.parts import ExplainerParts
from clarp.passes import Maps, Passes, is_empty
from clarp.propagation import ForwardCache, Program
from clarp.query import Query
from clarp.runner import Computation, Runner
from clarp.seeds import Vector
from clarp.targets import Against, integers
from clarp.watching import LossWatch


def forward_pass(
    program: Program, method: Method, images: Tensor, further: Further
) -> Computation[ForwardCache]:
    """The forward pass of images (B, C, H, W) and further inputs."""
    return Computation(program, f"forward {_read_of(method)}", Program.forward, (images, further.tensors))


def _backward_pass(passes: Passes, points: Collection[HookPoint]) -> Computation[Maps]:
    method, axis = passes.method, passes.channels
    return Computation(
        passes.program,
        f"back {sorted(map(repr, points))} {_read_of(method)}",
        lambda program, cached, bounds, targets, rivals, seed: Passes(
            method, program, cached, targets, rivals, seed, bounds, axis
        ).maps(points),
        (passes.cached, passes.bounds),
        (passes.targets, passes.rivals, passes.seed),
    )


def _read_of(method: Method) -> str:
    """What the passes read of it beside the rules, which are the program's."""
    return f"{method.passes} {method.normalisation} {method.selections!r} {method.covering!r}"


@dataclass(frozen=True)
class Explaining:
    """Answers queries about images of one size.

    Attributes:
        parts: what they are explained with.
        model: its name.
        names: of the classes, or None.
        runner: what runs the passes.
        watch: what warns of lost relevance.
    """

    parts: ExplainerParts
    model: str
    names: ClassNames | None
    runner: Runner
    watch: LossWatch

    def in_parts(self, query: Query, size: BatchSize, *, one_by_one: bool) -> Explanation:
        """What :meth:`at_once` gives, part after part; rivals that can't be are found before the first.

        Args:
            query: what is asked.
            size: how many images are explained at once, or "auto" or None for as many as fit into memory.
            one_by_one: whether each image is a part, whatever the size.
        """
        against, batch = query.against, len(query.images)
        rivals = None if against is None else integers("against", against)
        if rivals is not None and (query.target is not None or (rivals.ndim == 2 and len(rivals) != batch)):
            known = torch.zeros(batch, dtype=torch.long) if query.target is None else query.target.cpu()
            self.parts.task.rivals(against, known.view(batch, -1).t(), query.logits)
        program = self.parts.program
        parts = Parts.fitting(
            lambda rows, columns: self.at_once(query.part(rows, columns)),
            size,
            query.targets,
            Need.of(program.plan, self.parts.method, program.back),
            query.images.device,
        )
        if one_by_one:
            parts.images = 1
        found = parts.of(range(batch), range(query.targets))
        return replace(found, images=query.images, against=rivals)

    def at_once(self, query: Query) -> Explanation:
        """The explanation of all images in one forward and one backward pass."""
        program, method, task = self.parts.program, self.parts.method, self.parts.task
        cached = self.runner.run(forward_pass(program, method, query.images, query.further))
        classes = task.scores(cached.logits).argmax(1) if query.target is None else query.target
        chosen = (classes.unsqueeze(1) if classes.ndim == 1 else classes).t().contiguous()
        rivals, targets = self._rivals(query.against, chosen, cached.logits), task.columns(chosen)
        seed = query.seed.relevance(cached.logits, targets, rivals)
        channels = self.parts.channels
        passes = Passes(method, program, cached, targets, rivals, seed, query.bounds, channels.axis)
        maps = self.runner.run(_backward_pass(passes, frozenset(query.layers.values())))
        with torch.no_grad():
            self.watch.look(passes, maps, query.images, chosen, query.first)
        maps = maps.signed(None if isinstance(method.seed, Vector) else task.signs(chosen))
        relevance = maps.relevance.clamp(min=0) if method.rectify else maps.relevance
        single = classes.ndim == 1

        def sample_first(value: Tensor) -> Tensor:
            return value[0] if single else value.transpose(0, 1)

        return Explanation(
            relevance=sample_first(relevance),
            logits=cached.logits,
            target=classes,
            against=None if query.against is None else torch.as_tensor(query.against),
            method=method,
            ledger=maps.ledger.map(lambda value: sample_first(value.detach())),
            selection_skipped=sample_first(maps.skipped),
            layers={name: sample_first(maps.layers[point]) for name, point in query.layers.items()},
            images=query.images,
            bounds_source=source(self.parts.bounds, program.plan),
            model=self.model,
            empty=sample_first(is_empty(relevance, maps.ledger.size)),
            question=task,
            labels=None if self.names is None else self.names.labels,
            channels=channels.axis,
            assumed=tuple(filter(None, (program.plan.graph.assumed, channels.note))),
        )

    def _rivals(self, against: Against, targets: Tensor, logits: Tensor) -> Tensor:
        """Which logits each of the classes (K, B) is contrasted with, bool (K, B, N)."""
        if not self.parts.method.has_rivals:
            return torch.zeros(*targets.shape, logits.shape[1], dtype=torch.bool, device=logits.device)
        return self.parts.task.rivals(against, targets, logits.shape[1])
