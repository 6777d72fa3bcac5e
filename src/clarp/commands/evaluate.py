"""``clarp evaluate``: a data set through a model, methods and metrics, into a folder; it can be resumed."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
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

from clarp.cache import default_folder
from clarp.commands.notes import lost_in_silence, note, note_assumed, note_lost, recording_as_notes
from clarp.data.dataset import Dataset
from clarp.data.opening import open_dataset
from clarp.data.problems import GAVE_NONE
from clarp.evaluation.confident import confident
from clarp.evaluation.run import Outcome, Run
from clarp.evaluation.settings import Settings
from clarp.evaluation.specs import metrics as parsed
from clarp.evaluation.store import PROBLEMS, ROWS, Store
from clarp.evaluation.suites import Grids, Suite
from clarp.evaluation.work import Elsewhere
from clarp.models import registry
from clarp.session import Session
from clarp.text import printable

_SHOWN = 10
_METHODS = ("lrp", "slrp", "sglrp", "ssglrp")
_METRICS = ("patch-masking",)
_SECONDS_BETWEEN_LINES = 30
_MOSAICS = "mosaics:"


def run(
    dataset: str,
    load: Callable[[str], Session],
    settings: Settings,
    elsewhere: Callable[[str], Elsewhere | None],
    *,
    model: str | None,
    weights: Path | None,
    metrics: Sequence[str],
    suite: str | None,
    out: str,
    outside: bool,
) -> int:
    """Evaluate, and say on standard output what came of it.

    ``load`` makes a session from a model's name, ``settings`` come without metrics, and ``elsewhere`` says
    for a model's name which other processes compute; the other arguments are those of the command line.

    Returns:
        0 if every picture was asked, 1 if some could not be.

    Raises:
        ValueError, TypeError, OSError, ImportError, CaptureError: something doesn't hold, or the folder has
            another run; no row was written.
    """
    protocol = None if suite is None else Suite.named(suite)
    if protocol is not None and (settings.methods or metrics):
        raise ValueError(
            f"--suite {protocol.name} names its methods and metrics: leave out --methods and --metrics."
        )
    names = (model,) if model else protocol.models if protocol else (registry.DEFAULT,)
    if len(names) > 1 and weights:
        raise ValueError(f"--weights are for one model, and {suite} has {', '.join(names)}: add --model.")
    grids = protocol.grids if protocol else None
    if grids is not None and not dataset.startswith(_MOSAICS):
        dataset = _MOSAICS + dataset
    problems = 0
    for name in names:
        folder = f"{out.rstrip('/')}/{name}" if len(names) > 1 else out
        session = load(name)
        for assumed in session.classifier.notes:
            note(assumed)
        opened = _opened(dataset, session, settings, folder, grids, outside=outside)
        chosen = _of_suite(protocol, opened) if protocol else tuple(metrics) or _METRICS
        methods = protocol.methods if protocol else settings.methods or _METHODS
        limit = None if _made(dataset) else settings.limit
        complete = replace(settings, methods=methods, metrics=parsed(chosen), limit=limit)
        problems += len(_evaluated(opened, session, complete, folder, elsewhere(name)).problems)
    return 1 if problems else 0


def _made(dataset: str) -> bool:
    """Whether its pictures are put together of others, so many as ``--limit`` says."""
    return dataset.partition(":")[0] in {"mosaics", "composites"}


def _opened(
    dataset: str, session: Session, settings: Settings, out: str, grids: Grids | None, *, outside: bool
) -> Dataset:
    count = settings.limit if _made(dataset) else None
    return open_dataset(
        dataset,
        session.classifier.labels,
        count=grids.count if grids and count is None else count,
        cells=grids.n if grids else 2,
        seed=settings.seed,
        choose=lambda photos: confident(
            photos, session.classifier, out, session.device, grids.confidence if grids else None
        ),
        outside=outside,
    )


def _evaluated(
    dataset: Dataset, session: Session, settings: Settings, out: str, elsewhere: Elsewhere | None
) -> Outcome:
    """One model's run."""
    classifier = session.classifier
    # Where others compute, this process only checks, and leaves the GPU to them.
    device = torch.device("cpu") if elsewhere else session.device
    evaluation = Run(dataset, classifier, settings, out, device, default_folder())
    for assumed in evaluation.task.notes if evaluation.task else ():
        note(assumed)
    title = f"{classifier.name} on {dataset.name}"
    with _progress(title) as advance, lost_in_silence(), recording_as_notes():
        try:
            outcome = evaluation.complete(advance, elsewhere)
        except KeyboardInterrupt:
            _say("stopped; the same command goes on from here.")
            raise
    _report(dataset, outcome, evaluation.store)
    note_assumed(evaluation.loader.assumed)
    note_lost(outcome.lost, evaluation.warned)
    return outcome


def _of_suite(suite: Suite, dataset: Dataset) -> tuple[str, ...]:
    """The suite's metrics that the data set can answer."""
    if any(sample.objects for sample in dataset):
        return suite.metrics + suite.located
    if not suite.located:
        return suite.metrics
    if not suite.metrics:
        raise ValueError(
            f"--suite {suite.name} asks where objects are, and {dataset.name} doesn't say: give Pascal VOC "
            "or COCO."
        )
    note(f"{dataset.name} doesn't say where objects are, so these are left out: {', '.join(suite.located)}")
    return suite.metrics


def _report(dataset: Dataset, outcome: Outcome, store: Store) -> None:
    if outcome.damaged:
        note(f"damaged, and made anew: {', '.join(outcome.damaged)}")
    for problem in outcome.problems[:_SHOWN]:
        _say(f"no rows for {problem}")
    if len(outcome.problems) > _SHOWN:
        _say(f"... and {len(outcome.problems) - _SHOWN} more")
    others = [problem for problem in dataset.problems if problem.kind not in GAVE_NONE]
    if others:
        note(f"{len(others)} other files are no part of the data set, first: {others[0]}")
    listed = store.files.place(PROBLEMS)
    damaged = f", {len(outcome.problems)} gave no rows ({listed})" if outcome.problems else ""
    sys.stdout.write(
        f"{outcome.images} images, {outcome.computed} of them computed now{damaged}: "
        f"{store.files.place(ROWS)}\n"
        f"tables: clarp report {store.folder}\n"
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
