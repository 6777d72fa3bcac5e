"""The parts of a run as work: for this process, or for others that are told all they need.

Parts are computed anywhere and in any order; the process of the run alone writes, each as it comes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clarp.data.sample import Sample
from clarp.evaluation.attribution import warnings_of
from clarp.evaluation.inputs import Loader
from clarp.evaluation.measuring import Measurer, PartRows, RunPart, readable
from clarp.evaluation.settings import Settings
from clarp.models import Classifier
from clarp.workers.base import Advance, Crew, LoadedWork, Work, WorkerPlace, Workers


@dataclass(frozen=True)
class Elsewhere:
    """Other processes for a run.

    Attributes:
        workers: the processes.
        load: makes the classifier in each; it pickles.
    """

    workers: Workers
    load: Callable[[], Classifier]


class InProcess(Crew[RunPart, PartRows]):
    """The process of the run as its own and only worker."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer
        self.fingerprint = measurer.fingerprint()

    def results(self, pieces: Iterable[RunPart], shared: Any, advance: Advance) -> Iterator[PartRows]:
        del shared  # the run makes the mean of its images when it is asked for
        before = 0
        for part in pieces:

            def told(done: int, before: int = before) -> None:
                advance(before + done)

            found = self._measurer.part(part, told)
            part.check_unchanged()
            before += len(part.samples)
            yield found


@dataclass(frozen=True, eq=False)
class RunWork(Work[RunPart, PartRows]):
    """What another process must know of a run before its first part.

    Attributes:
        load: makes the classifier.
        settings: of the run.
        as_is: of the run's :class:`~clarp.evaluation.inputs.Loader`.
        located: likewise.
        first: the first sample whose picture can be read; None where none can.
        cache: a folder where captured graphs are kept; None: nowhere.
    """

    load: Callable[[], Classifier]
    settings: Settings
    as_is: bool
    located: bool
    first: Sample | None
    cache: Path | None
    after = "The same command goes on with what is missing."

    def loaded(self, place: WorkerPlace) -> "LoadedRun":
        return LoadedRun(self, place)


class LoadedRun(LoadedWork[RunPart, PartRows]):
    """A worker's model, loaded once for all parts that it gets."""

    def __init__(self, work: RunWork, place: WorkerPlace) -> None:
        settings = work.settings
        loader = Loader(
            work.load(),
            as_is=work.as_is,
            located=work.located,
            placed=settings.placed,
            all_labels=settings.target == "label",
        )
        image = None if work.first is None else readable(loader, work.first)
        self._measurer = Measurer(
            loader, settings, image, device=place.device, mean_image=self._mean, graphs=work.cache
        )
        self._loader, self._helpers, self._warned = loader, place.helpers, 0
        self._place = f", or is another file on the machine {place.machine}" if place.machine else ""
        self._mean_image: Tensor | None = None
        self._fingerprint = self._measurer.fingerprint()

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return self._fingerprint

    def _mean(self) -> Tensor:
        assert self._mean_image is not None
        return self._mean_image

    def done(self, piece: RunPart, shared: Any, advance: Advance) -> PartRows:
        """The rows of a part, with what this process alone knows of it.

        Args:
            piece: the part.
            shared: (C, H, W), the mean of the run's images, where a metric uses it.
            advance: told how many samples are done.

        Raises:
            ValueError: a photo is not as the run knows it.
        """
        self._mean_image = None if shared is None else torch.from_numpy(shared)
        found = self._measurer.part(piece, advance, decoders=self._helpers)
        piece.check_unchanged(self._place)
        warned = warnings_of(self._measurer.attributors)
        new, self._warned = warned[self._warned :], len(warned)
        assumed = tuple(self._loader.assumed)
        self._loader.assumed.clear()
        return replace(found, warned=tuple(new), assumed=assumed)
