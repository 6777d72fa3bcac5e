"""One model at work on photos: predictions, heatmaps, masks. Knows nothing of HTTP; used by one thread at a time."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path
from threading import Lock
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.export import ExportedProgram

from clarp import __version__
from clarp.commands.manifest import finite, of_two, spoken, titled
from clarp.evaluation.baselines import Baseline
from clarp.evaluation.metrics.perturbation import Fill, filling
from clarp.explainer import Explainer
from clarp.models import Classifier
from clarp.models.logits import Logits
from clarp.network import Network
from clarp.render import Look
from clarp.serve.answers import (
    Change,
    Class,
    ColourScale,
    Explained,
    Map,
    Masked,
    Name,
    Named,
    Predicted,
    Seen,
)
from clarp.serve.drawing import Drawn, drawn, png, whole
from clarp.serve.limits import Limits
from clarp.serve.maps import COMPARED, Maps
from clarp.serve.photos import Photos, Prepared
from clarp.serve.recipe import recipe
from clarp.task import Task

TOP = 5
Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in the model's pixels; bottom and right are outside."""
_capturing = Lock()  # torch.export is not made for two threads


class GivenUp(Exception):  # noqa: N818  nothing went wrong
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Question:
    """Which maps are wanted.

    Attributes:
        targets: classes by name or number; empty for the most probable one; two for the style "versus".
        against: classes that they are contrasted with; empty for those of the task.
        methods: names of methods or baselines, of :data:`clarp.serve.maps.OFFERED`.
        same_scale: one colour scale over all maps of a method, so that its classes can be compared; else each map its own.
        look: how they are drawn.
    """

    targets: tuple[str, ...]
    against: tuple[str, ...]
    methods: tuple[str, ...]
    same_scale: bool = False
    look: Look = Look()


class Engine:
    """A classifier with its explainers.

    Args:
        name: what requests call it.
        spec: what the command line called it.
        classifier: is not changed.
        limits: see :class:`Limits`.
        cache: a folder where captured graphs are kept for other processes; None: nothing is written.
        options: what the command line gave besides: weights, labels, output, task.
    """

    def __init__(
        self,
        name: str,
        spec: str,
        classifier: Classifier,
        limits: Limits,
        *,
        cache: Path | None = None,
        options: Mapping[str, Path | str] = MappingProxyType({}),
    ) -> None:
        self.name, self.spec, self.classifier, self.limits = name, spec, classifier, limits
        self._cache, self._options = cache, options
        self.weights_sha256 = classifier.weights_sha256()
        module = classifier.module
        self._model: nn.Module = module.module() if isinstance(module, ExportedProgram) else module
        self._logits: Logits | None = None
        self._photos = Photos(classifier, limits, self._probabilities)
        self._forget_sizes()

    def _forget_sizes(self) -> None:
        self._network = Network(self.classifier.module, cache=self._cache)
        self._explainers: dict[str, Explainer] = {}
        self._baselines: dict[str, Baseline] = {}
        self._sizes: set[tuple[int, ...]] = set()

    @property
    def task(self) -> Task | None:
        """What the last layer means; None before the first photo, because the captured model tells."""
        return None if self._logits is None else self._logits.task

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about the model."""
        return self.classifier.notes + (self.task.notes if self.task else ())

    def try_out(self, method: str) -> None:
        """Explain the demo's photo, so that a model that can't be explained is refused at the start.

        Raises:
            ValueError, TypeError, CaptureError: it can't.
        """
        photo = resources.files("clarp") / "assets" / "cat_and_coffee.jpg"
        self.explain(photo.read_bytes(), Question((), (), (method,)), lambda: False)

    def named(self, name: str) -> Named:
        """Which class a name means, and where it is none, the nearest."""
        names, near, problem = self.classifier.class_names, list[int](), ""
        try:
            meant = names.index(name)
        except ValueError as error:
            meant, near, problem = None, names.matches(name) or names.nearest(name), str(error)
        return Named(
            model=self.name,
            meant=meant,
            near=[Name(index=index, label=names.labels[index]) for index in near],
            problem=problem,
        )

    def predict(self, data: bytes, top: int) -> Predicted:
        """The most probable classes of a photo.

        Raises:
            ValueError: it can't be read, or is beyond the limits.
        """
        prepared = self._photos.prepared(data)
        height, width = prepared.seen.shape[:2]
        return Predicted(
            model=self.name,
            photo=prepared.photo,
            seen=Seen(width=width, height=height, png=png(Image.fromarray(prepared.seen))),
            task=self._asked(prepared.image).task.name,
            predictions=[
                self._class(prepared.probabilities, index) for index in _top(prepared.probabilities, top)
            ],
        )

    def explain(self, data: bytes, question: Question, given_up: Callable[[], bool]) -> Explained:
        """Heatmaps of a photo, for each method each target.

        Args:
            data: the photo's file.
            question: which.
            given_up: asked before each method; true ends the work.

        Raises:
            ValueError: the photo, a class or a method is not as it should be.
            GivenUp: as ``given_up`` said.
        """
        prepared, look = self._photos.prepared(data), question.look
        answers: list[Map] = []
        for maps in self._maps(prepared, question, given_up):
            shown = drawn(maps.heatmaps, prepared.seen, look, same_scale=question.same_scale)
            answers += [self._map(prepared, maps, k, look, each) for k, each in enumerate(shown)]
        return Explained(
            clarp=__version__,
            model=self.name,
            weights_sha256=self.weights_sha256,
            photo=prepared.photo,
            style=look.style,
            colours=look.colours,
            smoothing=look.sigma,
            maps=answers,
        )

    def picture(self, data: bytes, question: Question, given_up: Callable[[], bool]) -> bytes:
        """One heatmap, or of the style "versus" two, over the whole photo, as ``clarp explain`` draws it: a PNG.

        Raises:
            ValueError, GivenUp: as in :meth:`explain`.
        """
        prepared, look = self._photos.prepared(data), question.look
        if look.style != "versus" and len(question.targets) > 1:
            raise ValueError(
                f"a picture in the style {look.style} is of one class, and target names {len(question.targets)}; ask for one after "
                "the other, or for style=versus."
            )
        maps = next(self._maps(prepared, question, given_up))
        words, names = self._caption(prepared, maps, look), None
        if look.style == "versus":
            names = (spoken(self.classifier, maps.targets[0]), spoken(self.classifier, maps.targets[1]))
            words = of_two(names, words)
        seen = self._photos.whole(data, look.side(max(prepared.photo.width, prepared.photo.height)))
        return whole(maps.heatmaps, seen, look, words, names)

    def _caption(self, prepared: Prepared, maps: Maps, look: Look) -> str:
        """What stands with the picture of the first map."""
        empty = [maps.oddity(k) for k in range(len(maps.targets)) if maps.empty[k]]
        return titled(
            self.classifier,
            maps.targets[0],
            float(prepared.probabilities[maps.targets[0]]),
            maps.rivals(0),
            *dict.fromkeys(empty),
            task=self._asked(prepared.image).task.name,
            made=maps.made,
            contrasts=maps.has_rivals,
            colours=look.words,
        )

    def mask(self, data: bytes, boxes: Sequence[Box], fill: Fill, classes: Sequence[str]) -> Masked:
        """Cover boxes of the photo, and see what becomes of the probabilities.

        Raises:
            ValueError: the photo, a class or a box is not as it should be.
        """
        prepared = self._photos.prepared(data)
        covered = torch.zeros(prepared.image.shape[2:], dtype=torch.bool)
        for box in boxes:
            top, left, bottom, right = box
            if not (0 <= top < bottom <= len(covered) and 0 <= left < right <= covered.shape[1]):
                raise ValueError(
                    f"the region {','.join(map(str, box))} is not inside the picture: expected top,left,bottom,right with "
                    f"top < bottom <= {len(covered)} and left < right <= {covered.shape[1]}."
                )
            covered[top:bottom, left:right] = True
        after = self._probabilities(torch.where(covered, filling(prepared.image, fill), prepared.image))
        before = prepared.probabilities
        wanted = [*self._classes(classes), *_top(before, TOP), *_top(after, TOP)]
        return Masked(
            model=self.name,
            photo=prepared.photo,
            fill=fill,
            covered=float(covered.float().mean()),
            classes=[
                Change(
                    index=index,
                    label=self.classifier.labels[index],
                    before=finite(float(before[index])),
                    after=finite(float(after[index])),
                )
                for index in dict.fromkeys(wanted)
            ],
        )

    def _probabilities(self, images: Tensor) -> Tensor:
        """Of one image, (N,)."""
        return self._asked(images).probabilities(images)[0]

    def _asked(self, images: Tensor) -> Logits:
        """The model, without what it ends in."""
        if self._logits is None:
            with _capturing:
                self._logits = Logits.of(self._model, self._network, images[0], self.classifier.task)
        return self._logits

    def _maps(self, prepared: Prepared, question: Question, given_up: Callable[[], bool]) -> Iterator[Maps]:
        """The maps of each method."""
        chosen = self._classes(question.targets)
        if question.look.style == "versus" and len(chosen) != 2:
            raise ValueError(
                f"the style versus draws two classes at once, and target names {len(chosen)}; name two, as in target=0&target=1, "
                "or take another style."
            )
        targets = chosen or _top(prepared.probabilities, 1)
        named = self._classes(question.against)
        for name in question.methods:
            if given_up():
                raise GivenUp
            if name in COMPARED:
                baseline = self._baseline(name, prepared.image)
                yield Maps.compared(baseline, prepared.image, targets, self._asked(prepared.image).task)
            else:
                yield self._explained(name, prepared.image, targets, named)

    def _explained(self, name: str, image: Tensor, targets: list[int], named: list[int]) -> Maps:
        shape = tuple(image.shape)
        explainer = self._explainer(name, shape)
        against = named if explainer.method.has_rivals else []
        for target in targets:
            if against and set(against) <= {target}:
                raise ValueError(
                    f"target and against are both {self.classifier.labels[target]!r}; name another class."
                )
        with nullcontext() if shape in self._sizes else _capturing:
            explanation = explainer(image, target=[targets], against=against or None)
        self._sizes.add(shape)
        return Maps.explained(explanation, against)

    def _explainer(self, method: str, shape: tuple[int, ...]) -> Explainer:
        if shape not in self._sizes and len(self._sizes) >= self.limits.sizes:
            self._forget_sizes()
        if method not in self._explainers:
            self._explainers[method] = Explainer(
                self._network, method, bounds=self.classifier.bounds, task=self.classifier.task
            )
        return self._explainers[method]

    def _baseline(self, name: str, image: Tensor) -> Baseline:
        """A baseline on a copy of the model, made when it is first asked for.

        Raises:
            ValueError, TypeError: the model has none, or captum is not installed.
        """
        if name not in self._baselines:
            try:
                with _capturing:
                    self._baselines[name] = Baseline.of(name, self._network, image[0])
            except ModuleNotFoundError as error:
                raise ValueError(str(error)) from error
        return self._baselines[name]

    def _map(self, prepared: Prepared, maps: Maps, k: int, look: Look, shown: Drawn) -> Map:
        target, rivals = maps.targets[k], maps.rivals(k)
        return Map(
            method=maps.method,
            definition=maps.definition,
            composite=maps.composite,
            target=self._class(prepared.probabilities, target),
            against=[self._class(prepared.probabilities, index) for index in rivals] or maps.otherwise,
            selection_skipped=maps.skipped[k],
            ledger=maps.ledgers[k],
            scale=ColourScale(
                limit=shown.scale.limit,
                peak=shown.scale.peak,
                smoothed=look.sigma > 0,
                basis=shown.scale.basis,
                warning=maps.oddity(k),
                hues=look.words,
                bar=shown.bar,
            ),
            heatmap=_npy(maps.heatmaps[k]),
            pictures=shown.pictures,
            note=shown.note,
            python=recipe(
                self.spec, maps.method, target, rivals, self.classifier.labels, options=self._options
            ),
        )

    def _classes(self, names: Sequence[str]) -> list[int]:
        return list(dict.fromkeys(self.classifier.class_index(name) for name in names))

    def _class(self, probabilities: Tensor, index: int) -> Class:
        return Class(
            index=index,
            label=self.classifier.labels[index],
            probability=finite(float(probabilities[index])),
        )


def _top(probabilities: Tensor, count: int) -> list[int]:
    found: list[int] = probabilities.topk(min(count, len(probabilities))).indices.tolist()
    return found


def _npy(values: NDArray[np.float32]) -> str:
    file = BytesIO()
    np.save(file, values)
    return base64.b64encode(file.getvalue()).decode()
