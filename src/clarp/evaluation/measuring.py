"""What one process computes with: the rows of a part of a run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clarp.background import ahead, batches
from clarp.data.dataset import file_digest
from clarp.data.problems import Problem
from clarp.data.sample import Sample
from clarp.errors import RelevanceLost
from clarp.evaluation import pictures
from clarp.evaluation.attribution import Attributor, Control, Pooled, attributors, lossy, packages_of
from clarp.evaluation.inputs import AHEAD, Loader, Unit, module_on
from clarp.evaluation.metrics import Metric
from clarp.evaluation.pictures import Cells
from clarp.evaluation.questions import Batch
from clarp.evaluation.settings import Settings
from clarp.models.logits import Logits
from clarp.network import Network
from clarp.optional import optional
from clarp.task import Task
from clarp.text import printable
from clarp.workers.fingerprint import of_classifier, of_engine, of_machine


@dataclass(frozen=True)
class RunPart:
    """A fixed range of a run's samples: the unit of work.

    Attributes:
        start: number of its first sample in the run.
        samples: all of them.
        digests: of each, :func:`~clarp.data.dataset.file_digest` when the run began.
    """

    start: int
    samples: tuple[Sample, ...]
    digests: tuple[bytes, ...]

    @property
    def stop(self) -> int:
        """Number behind that of its last sample."""
        return self.start + len(self.samples)

    @property
    def name(self) -> str:
        """Numbers from 1 on, and names, of the first and the last of its samples."""
        return f"pictures {self.start + 1} to {self.stop} ({self.samples[0].id} to {self.samples[-1].id})"

    def check_unchanged(self, place: str = "") -> None:
        """Refuse what was made of files that are not those of the beginning.

        Raises:
            ValueError: a file changed; ``place`` says on which machine, where that is another.
        """
        for sample, was in zip(self.samples, self.digests, strict=True):
            if file_digest(sample, anew=True) != was:
                raise ValueError(
                    f"{sample.id} changed while the run was at work{place}, and what was made of it was not "
                    "kept. Give the same command again if it is as it was at the beginning, or another "
                    "--out."
                )


@dataclass(frozen=True, eq=False)
class PartRows:
    """What came of a part.

    Attributes:
        start: of the part.
        stop: of the part.
        columns: of the rows, and of the pictures where they are kept.
        problems: files that gave no rows.
        lost: methods with which, so far in this process, more than half of the relevance never reached the
            pixels.
        warned: what was said of those methods since the part before, by another process than the run's.
        assumed: as of :class:`~clarp.evaluation.inputs.Loader`, of this part, by another process.
    """

    start: int
    stop: int
    columns: dict[str, list[Any]]
    problems: tuple[Problem, ...]
    lost: tuple[str, ...]
    warned: tuple[RelevanceLost, ...] = ()
    assumed: tuple[tuple[str, str], ...] = ()


class Measurer:
    """A model with the methods and metrics of a run, on one device.

    Args:
        loader: opens samples for its classifier.
        settings: of the run.
        image: (C, H, W), the first of the run's images that can be read; None where none can.
        device: where to compute.
        mean_image: makes the mean of the run's images, (C, H, W), when a metric first asks for it.
        graphs: a folder where captured graphs are kept for other processes; None: nothing is written.

    Raises:
        ValueError: a method, a composite or a layer that does not exist, or a method given twice.
        TypeError: a baseline for an exported program.
    """

    def __init__(
        self,
        loader: Loader,
        settings: Settings,
        image: Tensor | None,
        *,
        device: torch.device,
        mean_image: Callable[[], Tensor],
        graphs: Path | None = None,
    ) -> None:
        self.loader, self.settings, self.device = loader, settings, device
        self.classifier, self._image, self._mean_image = loader.classifier, image, mean_image
        self.model = module_on(self.classifier, device)
        self.network = Network(self.classifier.module, cache=graphs)
        self.attributors = attributors(
            settings.methods,
            self.network,
            bounds=self.classifier.bounds,
            composite=settings.composite,
            device=device,
            task=self.classifier.task,
            image=image,
            engine=settings.engine,
        )
        self._copies: Callable[[Metric], list[nn.Module]] = cache(
            lambda metric: list(metric.copies_of(self.model))
        )
        captured: Callable[[nn.Module], Network] = cache(Network)  # once for all methods
        self._on_copy: Callable[[Attributor, nn.Module], Attributor] = cache(
            lambda method, model: method.on(captured(model))
        )

    @cached_property
    def logits(self) -> Logits:
        """What the metrics ask: the model without the softmax or sigmoid that it may end in."""
        assert self._image is not None  # asked with images only
        return Logits.of(self.model, self.network, self._image, self.classifier.task)

    @property
    def task(self) -> Task | None:
        """What the model's last layer means; None where no picture can be read."""
        return None if self._image is None else self.logits.task

    def fingerprint(self) -> dict[str, Any]:
        """All that rows depend on, besides the data set."""
        settings = self.settings
        return {
            "model": of_classifier(self.classifier),
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
            **of_engine(settings.engine),
            **of_machine(self.device, packages=packages_of(self.attributors)),
        }

    def part(self, part: RunPart, advance: Callable[[int], None], *, decoders: int | None = None) -> PartRows:
        """The rows of a part; they depend on nothing that ran before.

        Args:
            part: which.
            advance: told after every batch how many of the part's samples are done.
            decoders: how many photos are decoded at once; None: as :func:`~clarp.background.ahead` has it.
        """
        problems: list[Problem] = []
        names = [*schema(self.settings.metrics).names]
        names += pictures.schema().names if self.settings.pictures else ()
        columns: dict[str, list[Any]] = {name: [] for name in names}

        def units() -> Iterator[list[Unit]]:
            numbered = enumerate(part.samples, part.start)
            for found in ahead(self.loader.units, numbered, most=AHEAD, workers=decoders):
                if isinstance(found, Problem):
                    problems.append(found)
                else:
                    yield found

        with _repeatable(self.device):
            for batch in batches(chain.from_iterable(units()), self.settings.batch_size):
                for name, values in self._rows(batch).items():
                    columns[name] += values
                advance(batch[-1].number + 1 - part.start)
        advance(len(part.samples))
        return PartRows(part.start, part.stop, columns, tuple(problems), tuple(lossy(self.attributors)))

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
        made: dict[str, Tensor] = {}
        for method in self.attributors:
            if isinstance(method, Pooled) and method.of.name in made:
                maps = method.pooling(made[method.of.name])
            else:
                maps = made[method.name] = method(images, targets, batch.ids)
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
                model=self.logits,
                normalised=self.loader.normalised,
                on_copy=self._on_copy,
                copies=self._copies,
                mean_image=self._mean_image,
            )
            rows = chosen(self.logits, batch.images, maps, targets=batch.targets, **truth)
            found |= {f"{name}/{column}": rows[column] for column in rows}
        return found


def measured_columns(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """The columns of the metrics, each with the direction that is better."""
    return {
        f"{name}/{column}": direction
        for name, metric in metrics.items()
        for column, direction in metric.columns.items()
    }


def schema(metrics: Mapping[str, Metric]) -> Any:
    """Of the rows of a run with these metrics, for pyarrow."""
    arrow = optional("pyarrow", "A run's rows")
    texts = ("id", "label", "method")
    numbers = ("sample", "class", "target", "predicted")
    kinds = {name: arrow.string() for name in texts} | {name: arrow.int32() for name in numbers}
    kinds |= {"probability": arrow.float64(), "difficult": arrow.bool_()}
    kinds |= dict.fromkeys(measured_columns(metrics), arrow.float64())
    return arrow.schema(list(kinds.items()))


def readable(loader: Loader, sample: Sample) -> Tensor | None:
    """A sample's image (C, H, W), None where it can't be read: its part will name it."""
    try:
        return loader.tensor(sample)
    except ValueError:
        return None


def _repeatable(device: torch.device) -> Any:
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
