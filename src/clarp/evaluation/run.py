"""A run: a data set, a model, methods and metrics become rows, part by part; it can be resumed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarp.background import ahead, behind
from clarp.data.dataset import Dataset, file_digest
from clarp.data.problems import GAVE_NONE, Problem
from clarp.data.sample import Sample
from clarp.errors import RelevanceLost
from clarp.evaluation import pictures
from clarp.evaluation.attribution import Attributor, warnings_of
from clarp.evaluation.inputs import AHEAD, Loader, label_limit, spread
from clarp.evaluation.measuring import Measurer, PartRows, RunPart, measured_columns, readable, schema
from clarp.evaluation.metrics import mean_image
from clarp.evaluation.questions import check_truth
from clarp.evaluation.settings import Settings
from clarp.evaluation.store import MEAN_IMAGE, Store, part_name
from clarp.evaluation.work import Elsewhere, InProcess, RunWork
from clarp.models import Classifier
from clarp.task import Task
from clarp.workers.base import AbandonedPiece, Crew, abandoned_error, ranges
from clarp.workers.fingerprint import compared

__all__ = ["Outcome", "Run", "Settings"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        images: samples in the run.
        computed: of these, asked now and not by an earlier process.
        problems: files that gave no rows.
        lost: methods with which more than half of the relevance never reached the pixels.
        damaged: parts that were made anew because their bytes were not those that had been written.
    """

    images: int
    computed: int
    problems: tuple[Problem, ...]
    lost: tuple[str, ...]
    damaged: tuple[str, ...] = ()


@dataclass(eq=False)
class Run:
    """A run that has been found to make sense; nothing is written before :meth:`complete`.

    Args:
        dataset: what is asked about.
        classifier: who is asked.
        settings: how.
        folder: where everything goes: a path, or a URL such as ``s3://bucket/run``.
        device: where this process computes.
        cache: a folder where captured graphs are kept for other processes; None: nothing is written.

    Raises:
        ValueError: a name, a class or a combination that doesn't hold; for example a metric that needs to
            know where the objects are, and a data set that doesn't say.
        TypeError: a baseline for an exported program.
    """

    dataset: Dataset
    classifier: Classifier
    settings: Settings
    folder: str | Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cache: Path | None = None

    def __post_init__(self) -> None:
        self._begun: Sequence[bytes] = ()
        self._warned: list[RelevanceLost] = []
        label_limit(self.dataset, len(self.classifier.labels))
        check_truth(self.dataset, self.settings.metrics, self.settings.target)
        if not self.samples:
            raise ValueError(
                f"{self.dataset} - nothing to evaluate; give a data set with at least one picture."
            )
        self.loader.check(self.samples[0])
        self.store = Store(self.folder)
        self._first: Sample | None = None
        image: Tensor | None = None
        for sample in self.samples:
            image = readable(self.loader, sample)
            if image is not None:
                self._first = sample
                break
        self._measurer = Measurer(
            self.loader,
            self.settings,
            image,
            device=self.device,
            mean_image=lambda: self.mean_image,
            graphs=self.cache,
        )

    @property
    def attributors(self) -> tuple[Attributor, ...]:
        """The methods, as this process has them."""
        return self._measurer.attributors

    @property
    def task(self) -> Task | None:
        """What the model's last layer means; None where no picture can be read."""
        return self._measurer.task

    @property
    def warned(self) -> list[RelevanceLost]:
        """What was said of methods that lost relevance, by all processes that were at work for this one."""
        return self._warned + warnings_of(self.attributors)

    @cached_property
    def samples(self) -> Sequence[Sample]:
        return spread(self.dataset.samples, self.settings.limit)

    @cached_property
    def loader(self) -> Loader:
        return Loader(
            self.classifier,
            as_is=self.dataset.as_is,
            located=any(sample.objects for sample in self.samples),
            placed=self.settings.placed,
            all_labels=self.settings.target == "label",
        )

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The parts: ranges of samples that depend on their number and the batch size only."""
        return ranges(len(self.samples), self.settings.batch_size)

    def complete(
        self, advance: Callable[[int, int], None] | None = None, elsewhere: Elsewhere | None = None
    ) -> Outcome:
        """Compute the parts that are missing, and put the table together.

        Args:
            advance: told after every batch how many samples of how many to compute now are done.
            elsewhere: other processes that compute; None: this one.

        Raises:
            ValueError: the folder has another run, or another process is at work in it, or a photo changed
                meanwhile, or a worker computes with something else than this process.
            ChildProcessError: parts ended their workers again and again; all others are there.
        """
        with self.store.locked(), self._crew(elsewhere) as crew:
            seen = crew.fingerprint
            if elsewhere is not None:
                seen = compared(seen, self._measurer.fingerprint())
            digests = list(map(file_digest, self.dataset))
            self.store.begin(self._fingerprint(seen, digests), self.about())
            there = set(self.store.files.names("parts/*.parquet"))
            self._begun = spread(digests, self.settings.limit)
            missing = self.store.missing(self.ranges)
            damaged = tuple(name for name in (part_name(*ends) for ends in missing) if name in there)
            total = sum(stop - start for start, stop in missing)

            def told(done: int) -> None:
                if advance is not None:
                    advance(done, total)

            told(0)
            if missing:
                needed = elsewhere is not None and self.settings.fills_with_mean
                self._compute(missing, crew, self.mean_image.numpy() if needed else None, told)
            listed = [problem for problem in self.dataset.problems if problem.kind in GAVE_NONE]
            problems = self.store.merge(self.ranges, listed)
        return Outcome(len(self.samples), total, tuple(problems), self.store.lost(), damaged)

    def _compute(
        self,
        missing: Sequence[tuple[int, int]],
        crew: Crew[RunPart, PartRows],
        mean: NDArray[np.float32] | None,
        told: Callable[[int], None],
    ) -> None:
        """Write all parts that can be had.

        Raises:
            ChildProcessError: some can't.
        """
        found = crew.results(map(self._part, missing), mean, told)
        at_once = self.store.files.at_once
        written = behind(self._written, found, most=at_once, workers=at_once)
        lost = [piece for piece in written if piece is not None]
        if lost:
            raise abandoned_error(lost, RunWork.after)

    def _crew(self, elsewhere: Elsewhere | None) -> AbstractContextManager[Crew[RunPart, PartRows]]:
        if elsewhere is None:
            return nullcontext(InProcess(self._measurer))
        loader = self.loader
        work = RunWork(elsewhere.load, self.settings, loader.as_is, loader.located, self._first, self.cache)
        return elsewhere.workers.started(work, most=1 if self.store.complete else len(self.ranges))

    def _part(self, ends: tuple[int, int]) -> RunPart:
        start, stop = ends
        return RunPart(start, tuple(self.samples[start:stop]), tuple(self._begun[start:stop]))

    def _written(self, rows: PartRows | AbandonedPiece[RunPart]) -> AbandonedPiece[RunPart] | None:
        """Write a part's rows; what is none is returned."""
        if isinstance(rows, AbandonedPiece):
            return rows
        columns = dict(rows.columns)
        self.loader.assumed |= dict.fromkeys(rows.assumed)
        self._warned += rows.warned
        if self.settings.pictures:
            shown = {name: columns.pop(name) for name in pictures.schema().names}
            self.store.write_pictures(rows.start, rows.stop, shown, pictures.schema())
        kinds = schema(self.settings.metrics)
        self.store.write_part(rows.start, rows.stop, columns, kinds, rows.problems, lost=rows.lost)
        return None

    def fingerprint(self) -> dict[str, Any]:
        """All that the rows depend on, computed here; a change of any entry is another run."""
        return self._fingerprint(self._measurer.fingerprint(), None)

    def _fingerprint(self, seen: Mapping[str, Any], digests: Sequence[bytes] | None) -> dict[str, Any]:
        opened = {
            "name": self.dataset.name,
            "samples": len(self.dataset),
            "content": self.dataset.fingerprint(digests),
        }
        return {"model": seen["model"], "data set": opened, **seen}

    def about(self) -> dict[str, Any]:
        """What a report needs to know besides the rows."""
        return {
            "samples": len(self.samples),
            "parts": len(self.ranges),
            "dataset": str(self.dataset),
            "model": self.classifier.name,
            "task": self.task.name if self.task else None,
            "notes": [*self.classifier.notes, *(self.task.notes if self.task else ())],
            "classes": list(self.dataset.classes or self.classifier.labels),
            "columns": measured_columns(self.settings.metrics),
        }

    @cached_property
    def mean_image(self) -> Tensor:
        """The mean of the run's preprocessed images, (C, H, W), computed once and kept in the folder."""
        files = self.store.files
        data = files.read(MEAN_IMAGE)
        if data is None:
            self._begun = self._begun or [file_digest(sample) for sample in self.samples]
            opened = ahead(lambda sample: readable(self.loader, sample), self.samples, most=AHEAD)
            found = mean_image(image[None] for image in opened if image is not None)
            self._part((0, len(self.samples))).check_unchanged()
            files.write(MEAN_IMAGE, lambda file: np.save(file, found.numpy()))
            return found
        return torch.from_numpy(np.load(BytesIO(data)))
