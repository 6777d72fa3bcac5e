"""A session: a classifier at work on photos, for the commands and the server alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import ExportedProgram

from clarp import models
from clarp.arguments import EngineName
from clarp.cache import default_folder
from clarp.explainer import Explainer
from clarp.framing import Framing
from clarp.manifest import finite, percent
from clarp.maps import PhotoMaps
from clarp.method import Method
from clarp.models import Classifier
from clarp.models.logits import Logits
from clarp.network import Network
from clarp.render import Look
from clarp.rules.composites import Composite
from clarp.task import Task, TaskName
from clarp.text import printable

if TYPE_CHECKING:
    from clarp.evaluation.attribution import Attributor

_NAMED = 3  # rivals in a title


@dataclass(frozen=True)
class ModelOptions:
    """The options of the command line that name a model, as they were given.

    Attributes:
        model: as :func:`clarp.models.load` takes it.
        weights: a file of weights.
        labels: a file of class names.
        output: which of several results are the logits.
        task: what the last layer means.
    """

    model: str
    weights: Path | None = None
    labels: Path | None = None
    output: str | None = None
    task: TaskName | None = None


class Session:
    """A classifier with its captured graphs, its explainers, and words for what they find.

    Args:
        classifier: is not changed.
        device: where to compute; None: where the model is.
        cache: a folder where captured graphs are kept for other processes; None: nothing is written.
        engine: what computes explanations, as of :class:`clarp.Explainer`.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        device: torch.device | None = None,
        cache: Path | None = None,
        engine: EngineName = "torch",
    ) -> None:
        self.classifier = classifier
        self.options: ModelOptions | None = None
        self.engine = engine
        self._device = device
        self.framing = Framing(classifier)
        self._cache = cache
        self._logits: Logits | None = None
        self.forget()

    @classmethod
    def load(
        cls,
        model: str,
        weights: Path | None = None,
        labels: Path | None = None,
        output: str | None = None,
        *,
        task: TaskName | None = None,
        device: str | None = None,
        files: bool = False,
        engine: EngineName = "torch",
    ) -> "Session":
        """A session with a model as the options of the command line name it, and with the usual cache.

        The arguments are those of :func:`clarp.models.load`, the device of :func:`device_named`, whether a
        file of :func:`clarp.export` will do, and the engine. An engine beside PyTorch computes on the CPU
        where no device is named.

        Raises:
            ValueError, TypeError, OSError, ImportError: the device can't be used, or the model can't be
                loaded.
        """
        place = device_named("cpu" if device is None and engine != "torch" else device)
        classifier = models.load(model, weights, labels, output, task=task)
        session = cls(classifier, device=place, cache=default_folder(), engine=engine)
        session.options = ModelOptions(model, weights, labels, output, task)
        if not files:
            _ = session.network
        return session

    @classmethod
    def of_options(cls, options: ModelOptions, device: str, engine: EngineName) -> "Session":
        """As :meth:`load`, from options; a file of :func:`clarp.export` will do."""
        return cls.load(
            options.model,
            options.weights,
            options.labels,
            options.output,
            task=options.task,
            device=device,
            files=True,
            engine=engine,
        )

    def forget(self) -> None:
        """Drop what was captured, for all sizes of images."""
        self._network: Network | None = None
        self._attributors: dict[str, Attributor] = {}

    @property
    def network(self) -> Network:
        """The model with its captured graphs.

        Raises:
            ValueError: there is no model, only a file with its explanation.
        """
        if self._network is None:
            self.classifier.check_is_model()
            self._network = Network(self.classifier.module, cache=self._cache)
        return self._network

    @cached_property
    def model(self) -> nn.Module:
        """The model as a module that can be called, on the session's device."""
        module = self.classifier.module
        found: nn.Module = module.module() if isinstance(module, ExportedProgram) else module
        return found if self._device is None else found.to(self._device)

    @property
    def device(self) -> torch.device:
        """Where it computes.

        Raises:
            ValueError: the model is on several devices.
        """
        if self.classifier.file is not None:
            return torch.device("cpu")
        return self.network.device if self._device is None else self._device

    @property
    def task(self) -> Task | None:
        """What the last layer means; None before the first image, because the captured graph tells."""
        return None if self._logits is None else self._logits.task

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about the model."""
        return self.classifier.notes + (self.task.notes if self.task else ())

    def classes(self, names: Sequence[str]) -> list[int]:
        """Classes from what the user wrote: names or numbers, several in one string with commas.

        A string that is a label with a comma in it counts as that label.

        Raises:
            ValueError: an unknown or ambiguous class.
        """
        find = self.classifier.class_index
        found: list[int] = []
        for name in names:
            try:
                found.append(find(name))
            except ValueError:
                parts = [part.strip() for part in name.split(",") if part.strip()]
                if len(parts) < 2:
                    raise
                found += [find(part) for part in parts]
        return list(dict.fromkeys(found))

    def preprocessed(self, photo: Image.Image) -> Tensor:
        """A photo as the model gets it, (C, H, W).

        Raises:
            ValueError: the preprocessing failed.
        """
        try:
            return self.classifier.preprocess(photo)
        except Exception as error:  # the user's own may raise anything
            raise ValueError(f"the preprocessing failed with {type(error).__name__}: {error}.") from error

    def logits(self, image: Tensor) -> Logits:
        """The model without what it ends in, as it was found with the first image, (C, H, W)."""
        if self._logits is None:
            self._logits = Logits.of(self.model, self.network, image, self.classifier.task)
        return self._logits

    def probabilities(self, image: Tensor) -> Tensor:
        """Of the classes, (N,) float64 on the CPU, for an image (C, H, W)."""
        return self.logits(image).probabilities(image[None].to(self.device))[0]

    def explainer(self, method: str | Method, composite: str | Composite | None = None) -> Explainer:
        """A :class:`clarp.Explainer` with the classifier's bounds, task and labels."""
        return Explainer(
            self.network,
            method,
            composite=composite,
            bounds=self.classifier.bounds,
            device=self._device,
            task=self.classifier.task,
            labels=self.classifier.labels,
            engine=self.engine,
        )

    def attributors(
        self, names: Sequence[str], image: Tensor, composite: str | None = None
    ) -> "tuple[Attributor, ...]":
        """Methods, baselines and controls by their names, in this order.

        Arguments and errors as of :func:`clarp.evaluation.attribution.attributors`; an image (C, H, W).
        """
        from clarp.evaluation.attribution import attributors  # noqa: PLC0415  explain does without

        _ = self.model  # on its device, before a baseline copies it
        found = attributors(
            names,
            self.network,
            bounds=self.classifier.bounds,
            composite=composite,
            task=self.classifier.task,
            image=image,
            device=self._device,
            engine=self.engine,
        )
        by_name = {attributor.name: attributor for attributor in found}
        return tuple(by_name[name] for name in dict.fromkeys(names))

    def attributor(self, name: str, image: Tensor) -> "Attributor":
        """A method or a baseline, made when it is first asked for; errors as of :meth:`attributors`."""
        if name not in self._attributors:
            (self._attributors[name],) = self.attributors((name,), image)
        return self._attributors[name]

    def maps(
        self,
        attributor: "Attributor",
        image: Tensor,
        targets: Sequence[int],
        against: Sequence[int],
        name: str = "",
    ) -> PhotoMaps:
        """One photo's maps of each target.

        Args:
            attributor: of :meth:`attributors`.
            image: (C, H, W).
            targets: K classes.
            against: the rivals, for what has rivals; empty: those of the task.
            name: of the photo; controls depend on it.

        Raises:
            ValueError: as of :class:`clarp.Explainer`.
        """
        from clarp.evaluation.attribution import ClarpMethod  # noqa: PLC0415

        if not isinstance(attributor, ClarpMethod):
            moved, task = image.to(self.device), self.logits(image).task
            return PhotoMaps.compared(attributor, moved, targets, task, name)
        named = list(against) if attributor.explainer.method.has_rivals else []
        explanation = attributor.explainer(image[None], target=[list(targets)], against=named or None)
        (maps,) = PhotoMaps.explained(explanation, named)
        return maps

    def spoken(self, index: int) -> str:
        """The name of a class in words."""
        return printable(self.classifier.labels[index].replace("_", " "))

    def words(
        self, maps: PhotoMaps, k: int, probabilities: Tensor, look: Look, *more: str
    ) -> tuple[str, tuple[str, str] | None]:
        """The caption of the picture of a map: a title, and a line of small print.

        Args:
            maps: of the photo.
            k: which of its targets; of "versus" the first of two.
            probabilities: of all classes, (N,).
            look: how it is drawn.
            *more: for the small print.

        Returns:
            The caption, and the names of the two classes of the style "versus".
        """
        target, task = maps.targets[k], maps.task.name
        rivals = [self.spoken(index) for index in maps.rivals(k)]
        own = self.spoken(target)
        title = f"{own} ({percent(finite(float(probabilities[target])))})"
        if rivals:
            others = f" and {len(rivals) - _NAMED} more" if len(rivals) > _NAMED else ""
            title += f" against {', '.join(rivals[:_NAMED])}{others}"
        elif task == "multiclass" and maps.has_rivals:
            title += " against all other classes"
        if task == "binary":
            speaks_for, speaks_against = look.words
            other = self.spoken(1 - target)
            more = (f"{speaks_for} speaks for {own}, {speaks_against} for {other}", *more)
        names = None
        if look.style == "versus":
            names = (own, self.spoken(maps.targets[k + 1]))
            title = f"{names[0]} or {names[1]}"
        small_print = [maps.made, Path(self.classifier.name).name, *more]
        return f"{title}\n{' · '.join(map(printable, small_print))}", names


def device_named(name: str | None) -> torch.device:
    """The device of ``--device``; None: the GPU if there is one, else the CPU.

    Raises:
        ValueError: it can't be used here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {name} can't be used here ({reason}); use cpu, or leave it out."
        ) from error
    return device
