"""``clarp evaluate``: a data set through a model, methods and metrics, into a folder that can be gone on with."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from clarp import models
from clarp.cache import default_folder
from clarp.commands.explain import device_named
from clarp.commands.notes import lost_in_silence, note, note_assumed, note_lost
from clarp.data.dataset import Dataset
from clarp.data.opening import open_dataset
from clarp.data.problems import GAVE_NONE
from clarp.evaluation.attribution import warnings_of
from clarp.evaluation.confident import confident
from clarp.evaluation.questions import TargetKind
from clarp.evaluation.run import Outcome, Run, Settings
from clarp.evaluation.specs import metrics
from clarp.evaluation.suites import Suite
from clarp.models import registry
from clarp.task import TaskName
from clarp.text import printable

_SHOWN = 10
_METHODS = ("lrp", "slrp", "sglrp", "ssglrp")
_METRICS = ("patch-masking",)
_SECONDS_BETWEEN_LINES = 30


@dataclass(frozen=True)
class Request:
    """The arguments of the command, as they were given; None and () where they were left out."""

    dataset: str
    model: str | None
    weights: Path | None
    labels: Path | None
    task: TaskName | None
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    suite: str | None
    composite: str | None
    target: TargetKind
    out: Path
    limit: int | None
    batch_size: int
    device: str | None
    seed: int
    pictures: bool
    outside: bool = False


def run(request: Request) -> int:
    """Evaluate, and say on standard output what came of it.

    Returns:
        0 if every picture was asked, 1 if some could not be.

    Raises:
        ValueError, TypeError, OSError, ImportError, CaptureError: something doesn't hold, or the folder has another
            run; no row was written.
    """
    suite = None if request.suite is None else Suite.named(request.suite)
    if suite is not None and (request.methods or request.metrics):
        raise ValueError(
            f"--suite {suite.name} names its methods and metrics: leave out --methods and --metrics."
        )
    names = (request.model,) if request.model else suite.models if suite else (registry.DEFAULT,)
    if len(names) > 1 and request.weights:
        raise ValueError(
            f"--weights are for one model, and {request.suite} has {', '.join(names)}: add --model."
        )
    problems = 0
    for name in names:
        out = request.out / name if len(names) > 1 else request.out
        problems += len(_evaluated(request, suite, name, out).problems)
    return 1 if problems else 0


def _evaluated(request: Request, suite: Suite | None, model: str, out: Path) -> Outcome:
    """One model's run."""
    classifier = models.load(model, request.weights, request.labels, task=request.task)
    for assumed in classifier.notes:
        note(assumed)
    made = request.dataset.partition(":")[0] in {"mosaics", "composites"}
    device = device_named(request.device)
    dataset = open_dataset(
        request.dataset,
        classifier.labels,
        count=request.limit if made else None,
        seed=request.seed,
        choose=lambda photos: confident(photos, classifier, out, device),
        outside=request.outside,
    )
    methods, specs = request.methods or _METHODS, request.metrics or _METRICS
    if suite is not None:
        methods, specs = suite.methods, _of_suite(suite, dataset)
    settings = Settings(
        methods,
        metrics(specs),
        composite=request.composite,
        target=request.target,
        limit=None if made else request.limit,
        batch_size=request.batch_size,
        seed=request.seed,
        pictures=request.pictures,
    )
    evaluation = Run(dataset, classifier, settings, out, device, default_folder())
    for assumed in evaluation.task.notes if evaluation.task else ():
        note(assumed)
    with _progress(f"{classifier.name} on {dataset.name}") as advance, lost_in_silence():
        try:
            outcome = evaluation.complete(advance)
        except KeyboardInterrupt:
            _say("stopped; the same command goes on from here.")
            raise
    _report(dataset, outcome, out)
    note_assumed(evaluation.loader.assumed)
    note_lost(outcome.lost, warnings_of(evaluation.attributors))
    return outcome


def _of_suite(suite: Suite, dataset: Dataset) -> tuple[str, ...]:
    """The suite's metrics that the data set can answer."""
    if any(sample.objects for sample in dataset):
        return suite.metrics + suite.located
    if not suite.metrics:
        raise ValueError(
            f"--suite {suite.name} asks where objects are, and {dataset.name} doesn't say: give Pascal VOC or COCO."
        )
    note(f"{dataset.name} doesn't say where objects are, so these are left out: {', '.join(suite.located)}")
    return suite.metrics


def _report(dataset: Dataset, outcome: Outcome, out: Path) -> None:
    if outcome.damaged:
        note(f"damaged, and made anew: {', '.join(outcome.damaged)}")
    for problem in outcome.problems[:_SHOWN]:
        _say(f"no rows for {problem}")
    if len(outcome.problems) > _SHOWN:
        _say(f"... and {len(outcome.problems) - _SHOWN} more")
    others = [problem for problem in dataset.problems if problem.kind not in GAVE_NONE]
    if others:
        note(f"{len(others)} other files are no part of the data set, first: {others[0]}")
    damaged = f", {len(outcome.problems)} gave no rows ({out / 'problems.json'})" if outcome.problems else ""
    sys.stdout.write(
        f"{outcome.images} images, {outcome.computed} of them computed now{damaged}: {out / 'rows.parquet'}\n"
        f"tables: clarp report {out}\n"
    )


class _Speed(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """As text."""
        speed = task.finished_speed or task.speed
        return Text("- images/s" if speed is None else f"{speed:.2f} images/s")


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere a line every half minute."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
    )
    # Speeds are averaged over five minutes, for a batch takes seconds.
    bar = Progress(*columns, console=console, speed_estimate_period=300, disable=not console.is_terminal)
    began = said = time.monotonic()
    task = bar.add_task(title, total=None)

    def advance(done: int, total: int) -> None:
        nonlocal said
        bar.update(task, completed=done, total=total)
        now = time.monotonic()
        if not console.is_terminal and done and now - said > _SECONDS_BETWEEN_LINES:
            said, speed = now, done / (now - began)
            _say(f"{done} of {total} images, {speed:.2f} images/s, {(total - done) / speed:.0f} s left")

    with bar:
        yield advance


def _say(text: str) -> None:
    sys.stderr.write(f"clarp: {printable(text)}\n")
