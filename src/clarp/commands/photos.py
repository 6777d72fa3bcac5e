"""Photos explained by several processes: each takes pieces of their list, and writes their files."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clarp.commands.notes import note, recording_as_notes
from clarp.commands.pipeline import Pipeline, Remark, explainer_of
from clarp.commands.writing import Writer
from clarp.explainer import Explainer
from clarp.manifest import machine
from clarp.method import Method
from clarp.render import Look
from clarp.render.encoding import Format
from clarp.session import Session
from clarp.task import Task
from clarp.workers.base import AbandonedPiece, Advance, LoadedWork, Work, WorkerPlace, Workers, ranges
from clarp.workers.fingerprint import compared, of_classifier, of_engine, of_machine


@dataclass(frozen=True)
class PhotoPiece:
    """A fixed range of the photos: the unit of work.

    Attributes:
        start: number of its first photo in the list.
        stems: all of them, and for each how its files' names begin.
    """

    start: int
    stems: Mapping[Path, str]

    @property
    def stop(self) -> int:
        """Number behind that of its last photo."""
        return self.start + len(self.stems)

    @property
    def name(self) -> str:
        """Numbers from 1 on, and names, of the first and the last of its photos."""
        names = [path.name for path in self.stems]
        return f"photos {self.start + 1} to {self.stop} ({names[0]} to {names[-1]})"


@dataclass(frozen=True)
class ExplainedPiece:
    """What came of a piece.

    Attributes:
        piece: which.
        entries: of each photo that was written what the manifest says of it.
        failed: of each photo that could not be read, explained or drawn why.
        task: what the model's last layer means; None where nothing was explained.
        device: where it was computed.
        remarks: what is to be said of it.
        error: what ended it before its last photo: a file that can't be written.
        dtype: the type in which it was computed; None where nothing was explained.
        method: with the composite that it has in this network; None: a file's own.
        machine: on what, as the manifest says it.
    """

    piece: PhotoPiece
    entries: dict[Path, dict[str, Any]]
    failed: dict[Path, str]
    task: Task | None
    device: str
    remarks: tuple[Remark, ...]
    error: OSError | None
    dtype: str | None = None
    method: Method | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PhotoWork(Work[PhotoPiece, ExplainedPiece]):
    """What another process must know before its first photo.

    Attributes:
        load: makes a session, given its device; it pickles.
        method: to explain by, where the session's model is no file with its own.
        targets: of the :class:`Pipeline`, as are the next three.
        against: likewise.
        layers: likewise.
        batch_size: likewise.
        look: of the pictures.
        format: of the pictures; None: there are none.
        out: the folder that all write to.
        expected: of the :class:`Pipeline`.
    """

    load: Callable[..., Session]
    method: Method
    targets: tuple[int, ...]
    against: tuple[int, ...]
    layers: tuple[str, ...]
    batch_size: int
    look: Look
    format: Format | None
    out: Path
    expected: int | None
    after = "The manifest has the photos that were explained."

    def loaded(self, place: WorkerPlace) -> "LoadedPhotoWork":
        return LoadedPhotoWork(self, place)


class LoadedPhotoWork(LoadedWork[PhotoPiece, ExplainedPiece]):
    """A worker's model, loaded once for all photos that it gets."""

    def __init__(self, work: PhotoWork, place: WorkerPlace) -> None:
        self._work, self._threads = work, place.helpers
        self._session = work.load(device=str(place.device))
        self._explainer = explainer_of(self._session, work.method)
        self._fingerprint = fingerprint_of(self._session)

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return self._fingerprint

    def done(self, piece: PhotoPiece, shared: Any, advance: Advance) -> ExplainedPiece:
        """Explain photos and write their files; what ends it early keeps what was explained by then."""
        del shared
        work, remarks, error = self._work, list[Remark](), None
        pipeline = Pipeline(
            tuple(piece.stems),
            self._session,
            work.method,
            self._explainer,
            work.targets,
            work.against,
            work.layers,
            work.batch_size,
            Writer(self._session, work.look, work.format, work.out, piece.stems),
            self._threads,
            remarks.append,
            expected=work.expected,
        )
        try:
            with recording_as_notes():
                for _ in pipeline.run(advance):
                    pass
        except KeyboardInterrupt:
            pass  # the command has been stopped, and waits for what there is
        except OSError as met:
            error = met
        return ExplainedPiece(
            piece,
            pipeline.entries,
            pipeline.failed,
            pipeline.task,
            str(self._session.device),
            tuple(remarks),
            error,
            pipeline.dtype,
            self._explainer.method if isinstance(self._explainer, Explainer) else None,
            machine(self._session.device),
        )


def fingerprint_of(session: Session) -> dict[str, Any]:
    """All that maps and pictures depend on, besides what a piece of the work says."""
    return {
        "model": of_classifier(session.classifier),
        **of_engine(session.engine),
        **of_machine(session.device),
    }


@dataclass(frozen=True)
class PhotosElsewhere:
    """Other processes for photos.

    Attributes:
        workers: the processes.
        load: makes a session in each, given its device; it pickles.
    """

    workers: Workers
    load: Callable[..., Session]

    def run(self, pipeline: Pipeline, advance: Advance) -> Iterator[dict[str, Any]]:
        """Explain a pipeline's photos; what was explained, and what failed, is noted down there.

        Whatever ends it early, every photo that was explained by then is written, and is in the entries.

        Args:
            pipeline: with everything that can be known before the first photo.
            advance: told how many photos are done.

        Yields:
            The manifest's entries of the photos that were written, in their order.

        Raises:
            OSError: a file can't be written, or is not where this process looks for it; ChildProcessError:
                processes ended one after the other, while they loaded the model or while they explained.
            ValueError: a process has another model.
        """
        work, pieces = _work(pipeline, self.load), _pieces(pipeline)
        with self.workers.started(work, most=len(pieces)) as crew:
            compared(crew.fingerprint, fingerprint_of(pipeline.session))
            try:
                yield from _in_order(_noted(pipeline, crew.results(pieces, None, advance)))
            except BaseException:
                for found in crew.stopped():
                    _note_down(pipeline, found)
                raise


def _pieces(pipeline: Pipeline) -> list[PhotoPiece]:
    paths, stems = pipeline.paths, pipeline.writer.stems
    return [
        PhotoPiece(start, {path: stems[path] for path in paths[start:stop]})
        for start, stop in ranges(len(paths), pipeline.batch_size)
    ]


def _work(pipeline: Pipeline, load: Callable[..., Session]) -> PhotoWork:
    writer = pipeline.writer
    return PhotoWork(
        load,
        pipeline.method,
        tuple(pipeline.targets),
        tuple(pipeline.against),
        tuple(pipeline.layers),
        pipeline.batch_size,
        writer.look,
        writer.format,
        writer.out,
        pipeline.expected,
    )


def _noted(
    pipeline: Pipeline, results: Iterable[ExplainedPiece | AbandonedPiece[PhotoPiece]]
) -> Iterator[ExplainedPiece | AbandonedPiece[PhotoPiece]]:
    """Every result as it comes, noted down in the pipeline.

    Raises:
        OSError: a worker could not write a file, or not where this process sees it.
    """
    for found in results:
        if isinstance(found, AbandonedPiece):
            ending = f"ended {found.deaths} times: {found.reason}. {found.remedy}"
            reason = f"the process that explained {found.piece.name} {ending}"
            pipeline.failed |= dict.fromkeys(found.piece.stems, reason)
        else:
            _note_down(pipeline, found)
            if found.error is not None:
                raise found.error
            _check_here(pipeline.writer.out, found)
        yield found


def _note_down(pipeline: Pipeline, found: ExplainedPiece) -> None:
    pipeline.entries |= found.entries
    pipeline.failed |= found.failed
    pipeline.task = pipeline.task or found.task
    pipeline.dtype = pipeline.dtype or found.dtype
    pipeline.machine = pipeline.machine or dict(found.machine)
    if isinstance(pipeline.explainer, Explainer) and found.method is not None:
        pipeline.explainer.method = found.method  # which this process's own, without a graph, does not know
    pipeline.devices.add(found.device)


def _check_here(out: Path, found: ExplainedPiece) -> None:
    """Refuse a folder that is another one on the worker's machine.

    Raises:
        FileNotFoundError: a file is not there.
    """
    for entry in found.entries.values():
        path = out / entry["explanations"][0]["relevance"]
        if not path.exists():
            raise FileNotFoundError(
                f"a worker wrote {path}, and on this machine there is no such file: --out must be a folder "
                "that all machines of the cluster share."
            )


def _in_order(
    results: Iterable[ExplainedPiece | AbandonedPiece[PhotoPiece]],
) -> Iterator[dict[str, Any]]:
    """The entries of each piece when all before it are there, and before them what is to be said."""
    waiting: dict[int, ExplainedPiece | AbandonedPiece[PhotoPiece]] = {}
    reached, said = 0, set[str]()
    for result in results:
        waiting[result.piece.start] = result
        while reached in waiting:
            found = waiting.pop(reached)
            reached = found.piece.stop
            if isinstance(found, AbandonedPiece):
                continue
            for remark in found.remarks:
                if not remark.subject or remark.subject not in said:
                    note(remark.text)
                    said.add(remark.subject)
            yield from found.entries.values()
