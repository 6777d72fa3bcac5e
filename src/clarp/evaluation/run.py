"""A run: a data set, a model, methods and metrics become rows, part by part; it can be resumed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clarp.background import ahead, batches
from clarp.data.dataset import Dataset, file_digest
from clarp.data.problems import GAVE_NONE, Problem
from clarp.data.sample import Sample
from clarp.evaluation import pictures
from clarp.evaluation.attribution import Attributor, Control, attributors, lossy
from clarp.evaluation.baselines import Baseline
from clarp.evaluation.fingerprint import of_classifier, of_machine
from clarp.evaluation.inputs import AHEAD, Loader, Unit, label_limit, module_on, spread
from clarp.evaluation.metrics import Metric, mean_image
from clarp.evaluation.pictures import Cells
from clarp.evaluation.questions import Batch, TargetKind, check_truth
from clarp.evaluation.store import MEAN_IMAGE, Store
from clarp.files import whole, write_summed
from clarp.models import Classifier
from clarp.models.logits import Logits
from clarp.network import Network
from clarp.optional import optional
from clarp.task import Task
from clarp.text import printable

_SAMPLES_PER_PART = 16


@dataclass(frozen=True)
class Settings:
    """What a run is of, besides data set and model.

    Attributes:
        methods: names, see :func:`clarp.evaluation.attribution.attributors`.
        metrics: by their names in the tables.
        composite: for clarp's methods that name none.
        target: explain each label of a picture, or the class that the model predicts.
        limit: so many samples, evenly spread; None: all.
        batch_size: images that are explained at once.
        seed: another seed, other random draws (mosaics, composites); part of the fingerprint.
        pictures: keep a small picture of each photo and map, for the report's page. They change no row, so
            they are no part of the fingerprint; parts that are there already are not made again for them.
    """

    methods: tuple[str, ...]
    metrics: Mapping[str, Metric]
    composite: str | None = None
    target: TargetKind = "label"
    limit: int | None = None
    batch_size: int = 8
    seed: int = 0
    pictures: bool = True


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
        folder: where everything goes.
        device: where to compute.
        cache: a folder where captured graphs are kept for other processes; None: nothing is written.

    Raises:
        ValueError: a name, a class or a combination that doesn't hold; for example a metric that needs to
            know where the objects are, and a data set that doesn't say.
        TypeError: a baseline for an exported program.
    """

    dataset: Dataset
    classifier: Classifier
    settings: Settings
    folder: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cache: Path | None = None

    def __post_init__(self) -> None:
        self._begun: list[bytes] = []
        label_limit(self.dataset, len(self.classifier.labels))
        check_truth(self.dataset, self.settings.metrics, self.settings.target)
        if not self.samples:
            raise ValueError(
                f"{self.dataset} - nothing to evaluate; give a data set with at least one picture."
            )
        self.loader.check(self.samples[0])
        self.store = Store(self.folder)
        self.model = module_on(self.classifier, self.device)
        self.network = Network(self.classifier.module, cache=self.cache)
        self._copies: Callable[[Any], list[nn.Module]] = cache(
            lambda metric: list(metric.randomised(self.model))
        )
        self._on_copy: Callable[[Attributor, nn.Module], Attributor] = cache(
            lambda method, model: method.on(model)
        )
        self.attributors = attributors(
            self.settings.methods,
            self.network,
            bounds=self.classifier.bounds,
            composite=self.settings.composite,
            device=self.device,
            task=self.classifier.task,
            image=self._first_image(),
        )

    @cached_property
    def logits(self) -> Logits:
        """What the metrics ask: the model without the softmax or sigmoid that it may end in."""
        image = self._first_image()
        assert image is not None  # asked with images only
        return Logits.of(self.model, self.network, image, self.classifier.task)

    @cached_property
    def task(self) -> Task | None:
        """What the model's last layer means; None where no picture can be read."""
        return None if self._first_image() is None else self.logits.task

    @cached_property
    def samples(self) -> Sequence[Sample]:
        return spread(self.dataset, self.settings.limit)

    @cached_property
    def loader(self) -> Loader:
        return Loader(
            self.classifier,
            as_is=self.dataset.as_is,
            located=any(sample.objects for sample in self.samples),
            placed=any("masks" in metric.truth for metric in self.settings.metrics.values()),
            all_labels=self.settings.target == "label",
        )

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The parts: ranges of samples that depend on their number and the batch size only."""
        size = self.settings.batch_size * max(1, _SAMPLES_PER_PART // self.settings.batch_size)
        count = len(self.samples)
        return [(start, min(start + size, count)) for start in range(0, count, size)]

    def complete(self, advance: Callable[[int, int], None] | None = None) -> Outcome:
        """Compute the parts that are missing, and put the table together.

        Args:
            advance: told after every batch how many samples of how many to compute now are done.

        Raises:
            ValueError: the folder has another run, or another process is at work in it, or a photo changed
                meanwhile.
        """
        with self.store.locked(), _repeatable(self.device):
            self.store.begin(self.fingerprint(), self.about())
            damaged = tuple(name for name in self.store.damaged() if name.startswith("parts/"))
            self._begun = [file_digest(sample) for sample in self.samples]
            missing = [ends for ends in self.ranges if not self.store.has(*ends)]
            total = sum(stop - start for start, stop in missing)
            before = 0

            def told(done: int) -> None:
                if advance is not None:
                    advance(before + done, total)

            told(0)
            for start, stop in missing:
                columns, problems = self._part(start, stop, told)
                self._check_unchanged(start, stop)
                if self.settings.pictures:
                    shown = {name: columns.pop(name) for name in pictures.schema().names}
                    self.store.write_pictures(start, stop, shown, pictures.schema())
                lost = lossy(self.attributors)
                self.store.write_part(start, stop, columns, self._schema(), problems, lost=lost)
                before += stop - start
            listed = [problem for problem in self.dataset.problems if problem.kind in GAVE_NONE]
            problems = self.store.merge(self.ranges, listed)
        return Outcome(len(self.samples), total, tuple(problems), self.store.lost(), damaged)

    def _check_unchanged(self, start: int, stop: int) -> None:
        for number, was in enumerate(self._begun[start:stop], start):
            if file_digest(self.samples[number]) != was:
                raise ValueError(
                    f"{self.samples[number].id} changed while the run was at work, and what was made of it "
                    "was not kept. Give the same command again if it is as it was at the beginning, or "
                    "another --out."
                )

    def fingerprint(self) -> dict[str, Any]:
        """All that the rows depend on; a change of any entry is another run."""
        settings = self.settings
        return {
            "model": of_classifier(self.classifier),
            "data set": {
                "name": self.dataset.name,
                "samples": len(self.dataset),
                "content": self.dataset.fingerprint(),
            },
            "methods": {method.name: method.definition for method in self.attributors},
            "metrics": {name: repr(metric) for name, metric in settings.metrics.items()},
            # Rows and columns are in this order, and a dictionary is compared without its order.
            "order": {
                "methods": [method.name for method in self.attributors],
                "metrics": list(settings.metrics),
            },
            "target": settings.target,
            "task": self.classifier.task or "as the model ends",
            "limit": settings.limit,
            "batch size": settings.batch_size,
            "seed": settings.seed,
            **of_machine(self.device, foreign=any(isinstance(m, Baseline) for m in self.attributors)),
        }

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
            "columns": {
                f"{name}/{column}": direction
                for name, metric in self.settings.metrics.items()
                for column, direction in metric.columns.items()
            },
        }

    def _schema(self) -> Any:
        arrow = optional("pyarrow", "A run's rows")
        texts = ("id", "label", "method")
        numbers = ("sample", "class", "target", "predicted")
        kinds = {name: arrow.string() for name in texts} | {name: arrow.int32() for name in numbers}
        kinds |= {"probability": arrow.float64(), "difficult": arrow.bool_()}
        kinds |= dict.fromkeys(self.about()["columns"], arrow.float64())
        return arrow.schema(list(kinds.items()))

    def _part(
        self, start: int, stop: int, advance: Callable[[int], None]
    ) -> tuple[dict[str, list[Any]], list[Problem]]:
        """The rows of a range of samples; they depend on nothing that ran before."""
        problems: list[Problem] = []
        names = [*self._schema().names, *(pictures.schema().names if self.settings.pictures else ())]
        columns: dict[str, list[Any]] = {name: [] for name in names}

        def units() -> Iterator[list[Unit]]:
            numbered = [(number, self.samples[number]) for number in range(start, stop)]
            for found in ahead(self.loader.units, numbered, most=AHEAD):
                if isinstance(found, Problem):
                    problems.append(found)
                else:
                    yield found

        for batch in batches(chain.from_iterable(units()), self.settings.batch_size):
            for name, values in self._rows(batch).items():
                columns[name] += values
            advance(batch[-1].number + 1 - start)
        advance(stop - start)
        return columns, problems

    def _rows(self, units: list[Unit]) -> dict[str, list[Any]]:
        """The rows of a batch: unit by unit, and within a unit method by method."""
        images = torch.stack([unit.image for unit in units]).to(self.device, self.network.dtype)
        task, logits = self.logits.task, self.logits(images)
        scores = task.scores(logits)
        targets = self._targets(scores, units)
        probabilities = task.probabilities(logits.to("cpu", torch.float64))
        before = probabilities.gather(1, targets[:, None])[:, 0]
        batch = Batch(units, images, scores, targets, before)
        values: list[dict[str, Tensor]] = []
        cells: list[list[Cells | None]] = []
        for method in self.attributors:
            maps = method(images, targets, batch.ids)
            values.append(self._measured(method, maps, batch))
            shown = self.settings.pictures and not isinstance(method, Control)
            cells.append([Cells.of(heatmap) if shown else None for heatmap in maps])
        methods, count = len(self.attributors), len(units)

        def each(column: list[Any]) -> list[Any]:
            return [value for value in column for _ in range(methods)]

        rows = {
            "id": each([printable(unit.sample.id) for unit in units]),
            "label": each([" ".join(map(str, unit.label)) for unit in units]),
            "method": [method.name for method in self.attributors] * count,
            "sample": each([unit.number for unit in units]),
            "class": each([unit.label[0] if unit.label else -1 for unit in units]),
            "target": each(targets.tolist()),
            "predicted": each(probabilities.argmax(dim=1).tolist()),
            "probability": each(before.tolist()),
            "difficult": each([unit.truth.difficult if unit.truth else None for unit in units]),
        }
        for name in values[0]:
            rows[name] = torch.stack([found[name] for found in values], dim=1).flatten().tolist()
        if self.settings.pictures:
            rows |= pictures.columns(self._photos(units), cells, [unit.boxes for unit in units])
        return rows

    def _photos(self, units: list[Unit]) -> list[bytes | None]:
        """A JPEG of each unit's photo, None where it is that of the unit before."""
        before = [-1, *(unit.number for unit in units)]
        return [
            None if unit.number == other else pictures.photo_bytes(self.classifier.photo(unit.image))
            for unit, other in zip(units, before, strict=False)
        ]

    def _targets(self, scores: Tensor, units: list[Unit]) -> Tensor:
        """(B,) on the CPU: of the label's ids the one with the greatest score, or the prediction."""
        if self.settings.target == "predicted":
            return scores.argmax(dim=1).cpu()
        rows = zip(units, scores.tolist(), strict=True)
        return torch.tensor([max(unit.label, key=row.__getitem__) for unit, row in rows])

    def _measured(self, method: Attributor, maps: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Every metric of one method's maps (B, H, W), (B,) each."""
        found: dict[str, Tensor] = {}
        for name, metric in self.settings.metrics.items():
            chosen = metric.for_coarse_maps() if method.coarse else metric
            truth = batch.truth(
                chosen,
                method,
                on_copy=self._on_copy,
                copies=self._copies,
                mean_image=lambda: self.mean_image,
            )
            rows = chosen(self.logits, batch.images, maps, targets=batch.targets, **truth)
            found |= {f"{name}/{column}": rows[column] for column in rows}
        return found

    @cached_property
    def mean_image(self) -> Tensor:
        """The mean of the run's preprocessed images, (C, H, W), computed once and kept in the folder."""
        path = self.folder / MEAN_IMAGE
        if not whole(path):
            found = mean_image(
                image[None] for image in ahead(self._tensor, self.samples, most=AHEAD) if image is not None
            )
            self._check_unchanged(0, len(self.samples))
            write_summed(path, lambda file: np.save(file, found.numpy()))
        return torch.from_numpy(np.load(path)).to(self.device)

    def _tensor(self, sample: Sample) -> Tensor | None:
        try:
            return self.loader.tensor(sample)
        except ValueError:
            return None  # a part will name it

    def _first_image(self) -> Tensor | None:
        return next((image for image in map(self._tensor, self.samples) if image is not None), None)


def _repeatable(device: torch.device) -> Any:
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
