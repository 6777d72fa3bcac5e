"""Who computes the parts of a run: this process, or others that are told all they need.

Parts are computed anywhere and in any order; the process of the run alone writes, each as it comes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarp.data.sample import Sample
from clarp.evaluation.attribution import warnings_of
from clarp.evaluation.inputs import Loader
from clarp.evaluation.measuring import Measurer, PartRows, RunPart, readable
from clarp.evaluation.settings import Settings
from clarp.models import Classifier

Floats32 = NDArray[np.float32]
Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Setup:
    """What another process must know of a run before its first part, besides the classifier; it pickles.

    Attributes:
        settings: of the run.
        as_is: of the run's :class:`~clarp.evaluation.inputs.Loader`.
        located: likewise.
        first: the first sample whose picture can be read; None where none can.
        cache: a folder where captured graphs are kept; None: nowhere.
    """

    settings: Settings
    as_is: bool
    located: bool
    first: Sample | None
    cache: Path | None


class Crew(Protocol):
    """Processes at work on a run."""

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What rows depend on besides the data set, as these processes have it (`Measurer.fingerprint`)."""
        ...

    def rows(
        self, parts: Iterable[RunPart], mean_image: Floats32 | None, advance: Advance
    ) -> Iterator[PartRows]:
        """The rows of each part, in the order in which they are ready.

        Args:
            parts: taken as they are needed.
            mean_image: (C, H, W), the mean of the run's images, where a metric uses it.
            advance: told how many samples of all parts are done.

        Raises:
            ValueError: a photo changed, or a process has something else than the others.
            ChildProcessError: parts ended their process too often; it is raised after all others.
        """
        ...


class Workers(Protocol):
    """Other processes that can compute the parts of a run."""

    def started(self, setup: Setup, *, most: int) -> AbstractContextManager[Crew]:
        """Start them, and end them with the context.

        Args:
            setup: of the run.
            most: there is work for so many.
        """
        ...


class InProcess:
    """The process of the run as its own and only worker."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return self._measurer.fingerprint()

    def rows(
        self, parts: Iterable[RunPart], mean_image: Floats32 | None, advance: Advance
    ) -> Iterator[PartRows]:
        del mean_image  # the run makes it when it is asked for
        before = 0
        for part in parts:

            def told(done: int, before: int = before) -> None:
                advance(before + done)

            found = self._measurer.part(part, told)
            part.check_unchanged()
            before += len(part.samples)
            yield found


class WorkerSide:
    """A worker's model, loaded once for all parts that it gets.

    Args:
        load: makes the classifier.
        setup: of the run.
        device: where to compute.
        threads: of PyTorch; with others, the last bits of a number are others.
        decoders: how many photos are decoded at once.
        place: the name of the machine where it is not that of the run, for messages.
    """

    def __init__(
        self,
        load: Callable[[], Classifier],
        setup: Setup,
        device: torch.device,
        threads: int,
        *,
        decoders: int,
        place: str = "",
    ) -> None:
        torch.set_num_threads(threads)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        settings = setup.settings
        loader = Loader(
            load(),
            as_is=setup.as_is,
            located=setup.located,
            placed=settings.placed,
            all_labels=settings.target == "label",
        )
        image = None if setup.first is None else readable(loader, setup.first)
        self._measurer = Measurer(
            loader, settings, image, device=device, mean_image=self._mean, graphs=setup.cache
        )
        self._loader, self._decoders, self._warned = loader, decoders, 0
        self._place = f", or is another file on the machine {place}" if place else ""
        self._mean_image: Floats32 | None = None
        self.fingerprint = self._measurer.fingerprint()

    def _mean(self) -> Tensor:
        assert self._mean_image is not None
        return torch.from_numpy(self._mean_image)

    def rows(self, part: RunPart, mean_image: Floats32 | None, advance: Advance) -> PartRows:
        """The rows of a part, with what this process alone knows of it.

        Raises:
            ValueError: a photo is not as the run knows it.
        """
        self._mean_image = mean_image
        found = self._measurer.part(part, advance, decoders=self._decoders)
        part.check_unchanged(self._place)
        warned = warnings_of(self._measurer.attributors)
        new, self._warned = warned[self._warned :], len(warned)
        assumed = tuple(self._loader.assumed)
        self._loader.assumed.clear()
        return replace(found, warned=tuple(new), assumed=assumed)


class Attempts:
    """How often the parts of a run ended the process that computed them.

    Args:
        most: so often a part may; then it is given up.
        remedy: what the user may do about it.
    """

    _GIVEN_UP = 3

    def __init__(self, most: int, remedy: str) -> None:
        self._most, self._remedy = most, remedy
        self._deaths: dict[int, int] = {}
        self._failed: list[str] = []

    def again(self, part: RunPart, reason: str) -> bool:
        """Whether a part that ended its process is to be tried again.

        Raises:
            ChildProcessError: it is one of several that are given up, so the fault is not the part's.
        """
        deaths = self._deaths[part.start] = self._deaths.get(part.start, 0) + 1
        if deaths < self._most:
            return True
        names = f"{part.samples[0].id} to {part.samples[-1].id}"
        self._failed.append(f"pictures {part.start + 1} to {part.stop} ({names}), {deaths} times: {reason}")
        if len(self._failed) == self._GIVEN_UP:
            self.check()
        return False

    def check(self) -> None:
        """Name the parts that were given up.

        Raises:
            ChildProcessError: there are some.
        """
        if self._failed:
            lines = "\n".join(f"  {failed}" for failed in self._failed)
            raise ChildProcessError(
                f"these parts of the run ended the process that computed them:\n{lines}\n{self._remedy} The "
                "same command goes on with what is missing."
            )
