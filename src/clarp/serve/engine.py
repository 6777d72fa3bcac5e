"""A session as it is served: predictions, heatmaps, masks; used by one thread at a time."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clarp import __version__
from clarp.arguments import EngineName
from clarp.evaluation.metrics.perturbation import Fill, filling
from clarp.manifest import finite, top
from clarp.maps import PhotoMaps
from clarp.method import Method, methods
from clarp.models import Classifier
from clarp.render import Look
from clarp.serve import answers
from clarp.serve.drawing import Drawn, drawn, png, whole
from clarp.serve.limits import Limits
from clarp.serve.photos import Photos, Prepared
from clarp.serve.recipe import recipe
from clarp.session import Session
from clarp.task import Task

COMPARED = {
    "gradcam": "To compare with what most papers show. It is coarse, a value for each cell of the last "
    "convolution, and shows nothing that speaks against a class."
}
"""The baselines that are offered beside clarp's methods, and when to take each."""
OFFERED = (*methods(), *COMPARED)
"""What a request may name."""
Rectangle = tuple[int, int, int, int]
"""(top, left, bottom, right) in the model's pixels; bottom and right are outside."""


class GivenUp(Exception):  # noqa: N818  nothing went wrong
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Question:
    """Which maps are wanted.

    Attributes:
        targets: classes by name or number; empty for the most probable one; two for the style "versus".
        against: classes that they are contrasted with; empty for those of the task.
        methods: names of methods or baselines, of :data:`OFFERED`.
        same_scale: one colour scale over all maps of a method, so that its classes can be compared; else each
            map its own.
        look: how they are drawn.
    """

    targets: tuple[str, ...]
    against: tuple[str, ...]
    methods: tuple[str, ...]
    same_scale: bool = False
    look: Look = Look()


class Engine:
    """A session under the name and the limits with which it is served.

    Args:
        name: what requests call the model.
        spec: what the command line called it.
        classifier: is not changed.
        limits: see :class:`Limits`.
        cache: a folder where captured graphs are kept for other processes; None: nothing is written.
        options: what the command line gave besides: weights, labels, output, task.
        computing: what computes explanations.
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
        computing: EngineName = "torch",
    ) -> None:
        self.name, self.spec, self.classifier, self.limits = name, spec, classifier, limits
        self.session = Session(classifier, cache=cache, engine=computing)
        self.weights_sha256 = classifier.weights_sha256()
        self._options = options
        self._photos = Photos(self.session, limits)
        self._sizes: set[tuple[int, ...]] = set()

    @property
    def task(self) -> Task | None:
        """What the last layer means; None before the first photo, because the captured model tells."""
        return self.session.task

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about the model."""
        return self.session.notes

    def try_out(self, method: str) -> None:
        """Explain the demo's photo, so that a model that can't be explained is refused at the start.

        Raises:
            ValueError, TypeError, CaptureError: it can't.
        """
        photo = resources.files("clarp") / "assets" / "cat_and_coffee.jpg"
        self.explain(photo.read_bytes(), Question((), (), (method,)), lambda: False)

    def named(self, name: str) -> answers.Named:
        """Which class a name means, and where it is none, the nearest."""
        names, near, problem = self.classifier.class_names, list[int](), ""
        try:
            meant = names.index(name)
        except ValueError as error:
            meant, near, problem = None, names.matches(name) or names.nearest(name), str(error)
        return answers.Named(
            model=self.name,
            meant=meant,
            near=[answers.Name(index=index, label=names.labels[index]) for index in near],
            problem=problem,
        )

    def predict(self, data: bytes, count: int) -> answers.Predicted:
        """The most probable classes of a photo.

        Raises:
            ValueError: it can't be read, or is beyond the limits.
        """
        prepared = self._photos.prepared(data)
        height, width = prepared.seen.shape[:2]
        return answers.Predicted(
            model=self.name,
            photo=prepared.photo,
            seen=answers.SeenAnswer(width=width, height=height, png=png(Image.fromarray(prepared.seen))),
            task=self.session.logits(prepared.image).task.name,
            predictions=[
                self._class(prepared.probabilities, index) for index in top(prepared.probabilities, count)
            ],
        )

    def explain(self, data: bytes, question: Question, given_up: Callable[[], bool]) -> answers.Explained:
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
        found: list[answers.Map] = []
        for maps in self._maps(prepared, question, given_up):
            shown = drawn(maps.heatmaps, prepared.seen, look, same_scale=question.same_scale)
            found += [self._map(prepared, maps, k, look, each) for k, each in enumerate(shown)]
        return answers.Explained(
            clarp=__version__,
            model=self.name,
            weights_sha256=self.weights_sha256,
            photo=prepared.photo,
            style=look.style,
            colours=look.colours,
            smoothing=look.sigma,
            maps=found,
        )

    def picture(self, data: bytes, question: Question, given_up: Callable[[], bool]) -> bytes:
        """One heatmap, or two of the style "versus", over the whole photo: a PNG as of ``clarp explain``.

        Raises:
            ValueError, GivenUp: as in :meth:`explain`.
        """
        prepared, look = self._photos.prepared(data), question.look
        if look.style != "versus" and len(question.targets) > 1:
            raise ValueError(
                f"a picture in the style {look.style} is of one class, and target names "
                f"{len(question.targets)}; ask for one after the other, or for style=versus."
            )
        maps = next(self._maps(prepared, question, given_up))
        told = (maps.oddity(k) if maps.empty[k] else maps.remark(k) for k in range(len(maps.targets)))
        more = dict.fromkeys(filter(None, told))
        words, names = self.session.words(maps, 0, prepared.probabilities, look, *more)
        seen = self._photos.whole(data, look.side(max(prepared.photo.width, prepared.photo.height)))
        return whole(maps.heatmaps, seen, look, words, names)

    def mask(
        self, data: bytes, regions: Sequence[Rectangle], fill: Fill, classes: Sequence[str]
    ) -> answers.Masked:
        """Cover regions of the photo, and see what becomes of the probabilities.

        Raises:
            ValueError: the photo, a class or a region is not as it should be.
        """
        prepared = self._photos.prepared(data)
        covered = torch.zeros(prepared.image.shape[1:], dtype=torch.bool)
        for region in regions:
            upper, left, lower, right = region
            if not (0 <= upper < lower <= len(covered) and 0 <= left < right <= covered.shape[1]):
                raise ValueError(
                    f"the region {','.join(map(str, region))} is not inside the picture: expected "
                    f"top,left,bottom,right with top < bottom <= {len(covered)} and left < right <= "
                    f"{covered.shape[1]}."
                )
            covered[upper:lower, left:right] = True
        filled = filling(prepared.image[None], fill)[0]
        before = prepared.probabilities
        after = self.session.probabilities(torch.where(covered, filled, prepared.image))
        wanted = dict.fromkeys([*self._classes(classes), *top(before), *top(after)])
        return answers.Masked(
            model=self.name,
            photo=prepared.photo,
            fill=fill,
            covered=float(covered.float().mean()),
            classes=[
                answers.Change(
                    index=index,
                    label=self.classifier.labels[index],
                    before=finite(float(before[index])),
                    after=finite(float(after[index])),
                )
                for index in wanted
            ],
        )

    def _maps(
        self, prepared: Prepared, question: Question, given_up: Callable[[], bool]
    ) -> Iterator[PhotoMaps]:
        chosen, against = self._classes(question.targets), self._classes(question.against)
        if question.look.style == "versus" and len(chosen) != 2:
            raise ValueError(
                f"the style versus draws two classes at once, and target names {len(chosen)}; name two, as "
                "in target=0&target=1, or take another style."
            )
        targets = chosen or top(prepared.probabilities, 1)
        for name in question.methods:
            if given_up():
                raise GivenUp
            if name not in COMPARED:
                self._check_rivals(name, targets, against)
                self._make_room(tuple(prepared.image.shape))
            try:
                attributor = self.session.attributor(name, prepared.image)
            except ModuleNotFoundError as error:
                raise ValueError(str(error)) from error
            yield self.session.maps(attributor, prepared.image, targets, against)

    def _check_rivals(self, method: str, targets: Sequence[int], against: Sequence[int]) -> None:
        for target in targets if Method.named(method).has_rivals else ():
            if against and set(against) <= {target}:
                raise ValueError(
                    f"target and against are both {self.classifier.labels[target]!r}; name another class."
                )

    def _make_room(self, shape: tuple[int, ...]) -> None:
        """Forget what was captured where there are too many sizes of images."""
        if shape not in self._sizes and len(self._sizes) >= self.limits.sizes:
            self.session.forget()
            self._sizes.clear()
        self._sizes.add(shape)

    def _map(self, prepared: Prepared, maps: PhotoMaps, k: int, look: Look, shown: Drawn) -> answers.Map:
        target, rivals = maps.targets[k], maps.rivals(k)
        return answers.Map(
            method=maps.method,
            definition=maps.definition,
            composite=maps.composite,
            target=self._class(prepared.probabilities, target),
            against=[self._class(prepared.probabilities, index) for index in rivals] or maps.otherwise,
            selection_skipped=maps.skipped[k],
            remark=maps.remark(k),
            ledger=maps.ledgers[k],
            scale=answers.ColourScale(
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

    def _class(self, probabilities: Tensor, index: int) -> answers.ClassAnswer:
        return answers.ClassAnswer(
            index=index, label=self.classifier.labels[index], probability=finite(float(probabilities[index]))
        )


def _npy(values: NDArray[np.float32]) -> str:
    file = BytesIO()
    np.save(file, values)
    return base64.b64encode(file.getvalue()).decode()
