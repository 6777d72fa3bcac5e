"""Everything that makes heatmaps, behind one call: clarp's methods, baselines, rivals, and the controls.

Each has a ``name`` for the tables; a ``definition``, its whole configuration in words, for the fingerprint of
a run; ``coarse``, whether its maps have few cells or one tip; ``layered``, whether it looks at one layer, so
that it can't be asked of a network in which that layer runs several times; a call with images (B, C, H, W),
targets (B,) and the B ids of the samples that returns heatmaps (B, H, W); and ``on(network)``, the same
method for another network, which for those that are ``layered`` has the same architecture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from clarp.arguments import EngineName
from clarp.bounds import Bounds
from clarp.errors import RelevanceLost
from clarp.evaluation.baselines import Baseline
from clarp.evaluation.cams import ActivationMap
from clarp.evaluation.controls import CentrePosition, Pooling, RandomPosition
from clarp.evaluation.rivals import RULED, Rival, check_option, rival, ruled
from clarp.explainer import Explainer
from clarp.hints import unknown
from clarp.method import BASELINES, RIVALS, Method, methods
from clarp.network import Network
from clarp.task import TaskName

CONTROLS: tuple[RandomPosition | CentrePosition, ...] = (RandomPosition(), CentrePosition())
"""What every run has beside the methods asked for."""
POOLED = "pooled"
"""``pooled@ssglrp`` is the control that averages ``ssglrp``'s maps over squares."""


@dataclass(frozen=True)
class ClarpMethod:
    """One of clarp's methods; its maps are the relevance, summed over the channels."""

    explainer: Explainer
    name: str
    coarse: bool = False
    layered: bool = False

    @property
    def definition(self) -> str:
        """Seed, selection and rules."""
        return repr(self.explainer.method)

    def __call__(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        """Targets of one image that follow each other share its forward pass."""
        same = [
            ids[row] == ids[row - 1] and torch.equal(images[row], images[row - 1])
            for row in range(1, len(images))
        ]
        if not any(same):
            return self.explainer(images, target=targets).shown
        edges = [0, *(row for row, again in enumerate(same, 1) if not again), len(images)]
        runs: dict[int, list[int]] = {}
        for first, end in pairwise(edges):
            runs.setdefault(end - first, []).append(first)
        maps: dict[int, Tensor] = {}
        for length, starts in runs.items():
            rows = torch.tensor(starts)[:, None] + torch.arange(length)
            found = self.explainer(images[rows[:, 0]], target=targets[rows]).shown.flatten(0, 1)
            maps |= dict(zip(rows.flatten().tolist(), found, strict=True))
        return torch.stack([maps[row] for row in range(len(images))])

    def on(self, network: Network) -> "ClarpMethod":
        own = self.explainer
        return ClarpMethod(Explainer(network, own.method, bounds=own.bounds, task=own.task), self.name)


@dataclass(frozen=True)
class Control:
    """Maps that know nothing of the model: cones around a position."""

    position: RandomPosition | CentrePosition
    coarse: bool = True
    layered: bool = False

    @property
    def name(self) -> str:
        return self.position.name

    @property
    def definition(self) -> str:
        """Name and seed."""
        return repr(self.position)

    def __call__(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        del targets
        return self.position(images, ids)

    def on(self, network: Network) -> "Control":
        del network
        return self


@dataclass(frozen=True)
class Pooled:
    """The maps of another method, averaged over squares: what pooling alone does to a score."""

    of: ClarpMethod | Baseline | Rival
    pooling: Pooling = Pooling()
    coarse: bool = True

    @property
    def name(self) -> str:
        """``pooled@NAME``."""
        return f"{POOLED}@{self.of.name}"

    @property
    def definition(self) -> str:
        """The squares, and the other method's definition."""
        return f"{self.pooling!r} of {self.of.definition}"

    @property
    def layered(self) -> bool:
        return self.of.layered

    def __call__(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        return self.pooling(self.of(images, targets, ids))

    def on(self, network: Network) -> "Pooled":
        return Pooled(self.of.on(network), self.pooling)


Attributor = ClarpMethod | Baseline | Rival | Control | Pooled


def lossy(methods: Sequence[Attributor]) -> list[str]:
    """Which of them gave a :class:`~clarp.errors.RelevanceLost` warning so far, by name."""
    return [method.name for method in methods if warnings_of([method])]


def warnings_of(methods: Sequence[Attributor]) -> list[RelevanceLost]:
    return [lost for method in methods if isinstance(method, ClarpMethod) for lost in method.explainer.lost]


def packages_of(methods: Sequence[Attributor]) -> list[str]:
    """The packages of others that compute some of them."""
    plain = [method.of if isinstance(method, Pooled) else method for method in methods]
    return sorted({method.package for method in plain if isinstance(method, Baseline | ActivationMap)})


@dataclass(frozen=True)
class _Making:
    """Makes each method once; see :func:`attributors`."""

    network: Network
    bounds: Bounds | None
    composite: str | None
    image: Tensor | None
    device: torch.device | None
    task: TaskName | None
    engine: EngineName
    _made: dict[str, ClarpMethod | Baseline | Rival] = field(default_factory=dict)

    def __call__(self, name: str) -> ClarpMethod | Baseline | Rival:
        if name not in self._made:
            self._made[name] = self._new(name)
        return self._made[name]

    def _explained(self, method: Method) -> Explainer:
        return Explainer(
            self.network,
            method,
            bounds=self.bounds,
            device=self.device,
            task=self.task,
            engine=self.engine,
        )

    def _new(self, name: str) -> ClarpMethod | Baseline | Rival:
        head, _, option = name.partition("@")
        if head in methods():
            own = Method.named(head).with_composite(option or self.composite)
            explainer = self._explained(own)
            if self.image is not None and own.rules.adapts:
                explainer.plan(tuple(self.image.shape))
            return ClarpMethod(explainer, name)
        if head in BASELINES:
            return Baseline.of(name, self.network, self.image)
        if head in RIVALS:
            check_option(name)
            if head in RULED:
                return ClarpMethod(ruled(name, self._explained, self.image), name)
            return rival(name, self.network, self._explained, self.image, self.task)
        raise ValueError(unknown("method", name, (*methods(), *BASELINES, *RIVALS), wanted=head))


def attributors(
    names: Sequence[str],
    network: Network,
    *,
    bounds: Bounds | None = None,
    composite: str | None = None,
    image: Tensor | None = None,
    device: torch.device | None = None,
    task: TaskName | None = None,
    engine: EngineName = "torch",
) -> tuple[Attributor, ...]:
    """The methods by their names, then the controls.

    Args:
        names: clarp's methods (``lrp``; ``lrp@epsilon-plus`` with another composite), captum's baselines
            (``gradient``; ``gradcam@layer4`` names the layer), others' recent methods
            (:data:`clarp.method.RIVALS`), or any of these after ``pooled@``, its maps averaged over
            squares. ``random`` and ``centre`` may be named, and are always in.
        network: the model, captured once for all.
        bounds: of the pixels, for the z^B rule.
        composite: for clarp's methods without an ``@``.
        image: (C, H, W) as the model will see it, to find Grad-CAM's layer and the composite that clarp's
            methods have in this model.
        device: where clarp's methods compute; None: where the model is.
        task: what the last layer means; None: as the model ends.
        engine: what computes clarp's methods.

    Raises:
        ValueError: an unknown name, composite or layer, a name given twice, or a rival that means nothing in
            this model.
        TypeError: a baseline for an exported program.
        ModuleNotFoundError: a method of a package that is not installed.
    """
    controls = {control.name for control in CONTROLS}
    wanted = [name for name in names if name not in controls]
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise ValueError(f"the methods name {', '.join(twice)} more than once, expected each once.")
    making = _Making(network, bounds, composite, image, device, task, engine)
    pooled = f"{POOLED}@"
    found: list[Attributor] = [
        Pooled(making(name.removeprefix(pooled))) if name.startswith(pooled) else making(name)
        for name in wanted
    ]
    return (*found, *(Control(position) for position in CONTROLS))
