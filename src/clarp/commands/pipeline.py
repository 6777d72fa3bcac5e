"""Reading, explaining and writing side by side: a photo is written while others are explained and read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clarp import decoding
from clarp.background import ahead, batches, behind, cores
from clarp.commands.notes import lost_as_notes, note
from clarp.commands.writing import ExplainedPhoto, Opened, Writer
from clarp.explainer import Explainer
from clarp.exporting.explaining import FileExplainer, FileExplanation
from clarp.files import file_sha256
from clarp.images import notes_of, open_photo
from clarp.maps import PhotoMaps
from clarp.method import Method
from clarp.session import Session
from clarp.task import Task
from clarp.workers.base import Advance, piece_size


@dataclass(frozen=True)
class Remark:
    """What is said of photos while they are explained.

    Attributes:
        text: the sentence.
        subject: what it is said of once only; "": of every photo that it holds for.
    """

    text: str
    subject: str = ""


def _say(remark: Remark) -> None:
    note(remark.text)


def explainer_of(session: Session, method: Method) -> Explainer | FileExplainer:
    """The explainer of a session's model by this method, or of its file by the file's own."""
    file = session.classifier.file
    return session.explainer(method) if file is None else FileExplainer(file)


if TYPE_CHECKING:
    from clarp.explanation import Explanation


@dataclass(eq=False)
class Pipeline:
    """Reads photos in threads, explains them in the caller's thread, and writes in threads.

    Batches are those that one photo after the other would make, so the numbers are the same to the last bit.
    They also end where a piece of the work of several processes does (:func:`~clarp.workers.base.ranges`), so
    that these make the same.

    Attributes:
        paths: the photos' files.
        session: reads the photos and names the classes.
        method: that was asked for; a file has its own.
        explainer: of the session's model, or of the file that explains.
        targets: classes to explain; none: the top one of each photo.
        against: rivals; none: those of the task.
        layers: modules whose relevance is kept too.
        batch_size: how many photos are explained at once.
        writer: writes one photo in whatever thread.
        threads: how many read, and how many write; None: one for each processor.
        say: says what has to be said before the photo that it is about is there.
        asked: the options that decide what the maps are, as they were given, for the manifest.
        expected: the class that each photo's prediction is contrasted with, both ways; None: no such.
        entries: of each photo that was written what the manifest says of it.
        failed: of each photo that could not be read, explained or drawn why.
        task: what the model's last layer means; None where nothing was explained.
        dtype: the type in which it was computed; likewise.
        devices: where they were explained.
        machine: on what, where that was another process.
    """

    paths: Sequence[Path]
    session: Session
    method: Method
    explainer: Explainer | FileExplainer
    targets: Sequence[int]
    against: Sequence[int]
    layers: Sequence[str]
    batch_size: int
    writer: Writer
    threads: int | None = None
    say: Callable[[Remark], None] = _say
    asked: dict[str, Any] = field(default_factory=dict)
    expected: int | None = None
    entries: dict[Path, dict[str, Any]] = field(default_factory=dict, init=False)
    failed: dict[Path, str] = field(default_factory=dict, init=False)
    task: Task | None = field(default=None, init=False)
    dtype: str | None = field(default=None, init=False)
    devices: set[str] = field(default_factory=set, init=False)
    machine: dict[str, Any] = field(default_factory=dict, init=False)

    def run(self, advance: Advance) -> Iterator[dict[str, Any]]:
        """The manifest's entries of the photos that were written, in their order.

        Whatever ends it early, every photo that was explained by then is written, and is in ``entries``.

        Args:
            advance: told how many photos are done.

        Raises:
            OSError: a file can't be written.
        """
        photos = ahead(self._opened, self.paths, most=self.batch_size + 1, workers=self.threads)
        explained = self._explained(self._batches(photos))
        # A whole batch comes at once, and those before it may not be done yet.
        most = self.batch_size + (self.threads or cores())
        written = behind(self._written, explained, most=most, workers=self.threads)
        with closing(photos), closing(written):
            try:
                for entry in written:
                    advance(len(self.entries) + len(self.failed))
                    if entry is not None:
                        yield entry
            except BaseException:
                decoding.interrupt()  # nobody waits for what is read
                raise

    def _opened(self, path: Path) -> Opened | tuple[Path, str]:
        """A photo, or its path and why it can't be read."""
        try:
            photo = open_photo(path)
            digest = file_sha256(path)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            return path, str(error)
        side = self.writer.look.side(max(photo.size))
        try:
            image = self.session.classifier.preprocess(photo)
            seen = None if self.writer.format is None else self.session.framing.seen(photo, image, side)
        except Exception as error:  # noqa: BLE001  the user's own preprocessing may raise anything
            return path, f"the preprocessing failed with {type(error).__name__}: {error}."
        return Opened(path, image, notes_of(photo), digest, seen)

    def _batches(self, photos: Iterable[Opened | tuple[Path, str]]) -> Iterator[list[Opened]]:
        size = piece_size(self.batch_size)
        for _, piece in groupby(enumerate(photos), key=lambda numbered: numbered[0] // size):
            yield from batches(self._good(photo for _, photo in piece), self.batch_size)

    def _good(self, photos: Iterable[Opened | tuple[Path, str]]) -> Iterator[Opened]:
        for photo in photos:
            if isinstance(photo, Opened):
                yield photo
            else:
                path, reason = photo
                self.failed[path] = reason

    def _explained(self, found: Iterable[list[Opened]]) -> Iterator[ExplainedPhoto]:
        for batch in found:
            yield from self._explanations(batch)

    def _explanations(self, batch: list[Opened]) -> Iterator[ExplainedPhoto]:
        """Each photo with its maps; a photo that spoils its batch is left out."""
        try:
            images = torch.stack([photo.image for photo in batch])
            found = self._answered(batch, images)
        except ValueError as error:
            if len(batch) == 1:
                self.failed[batch[0].path] = str(error)
                return
            for photo in batch:
                yield from self._explanations([photo])
            return
        yield from found

    def _answered(self, batch: list[Opened], images: Tensor) -> list[ExplainedPhoto]:
        """The photos of images (B, C, H, W) with their maps, in their order."""
        if self.expected is None:
            target = [list(self.targets)] * len(batch) if self.targets else None
            return self._explanation(batch, images, target, list(self.against) or None)
        assert isinstance(self.explainer, Explainer)
        top = self.explainer.probabilities(images).argmax(1).tolist()
        found: dict[int, ExplainedPhoto] = {}
        for right in (True, False):
            rows = [row for row, index in enumerate(top) if (index == self.expected) is right]
            if rows:
                pairs = None if right else [[top[row], self.expected] for row in rows]
                photos = [batch[row] for row in rows]
                found.update(zip(rows, self._explanation(photos, images[rows], pairs, pairs), strict=True))
        return [replace(found[row], expected=self.expected) for row in range(len(batch))]

    def _explanation(
        self,
        batch: list[Opened],
        images: Tensor,
        target: list[list[int]] | None,
        against: list[int] | list[list[int]] | None,
    ) -> list[ExplainedPhoto]:
        """Photos with the maps of their images (B, C, H, W), against rivals for all or for each."""
        labels = self.session.classifier.labels
        explanation: Explanation | FileExplanation
        size = f"images {tuple(images.shape[1:])}"
        with lost_as_notes(
            lambda k, index: f"{batch[k].path}, {labels[index]}",
            say=lambda text, once: self.say(Remark(text, size if once else "")),
        ):
            if isinstance(self.explainer, FileExplainer):
                explanation = self.explainer(images, target, list(self.against) or None)
                maps = PhotoMaps.of_file(explanation, self.against)
                self.dtype = str(explanation.heatmap.dtype)
            else:
                explanation = self.explainer(images, target, against, layers=self.layers, batch_size="auto")
                maps = PhotoMaps.explained(explanation, self.against)
                self.dtype = str(explanation.relevance.dtype)
        if self.expected is not None and target is not None:
            maps = [replace(one, against=pair) for one, pair in zip(maps, target, strict=True)]
        if self.task is None:
            self.devices.add(str(self.session.device))
            self.task = explanation.question
            for assumed in explanation.notes:
                self.say(Remark(assumed, assumed))
        return list(map(ExplainedPhoto, batch, maps, explanation.probabilities.double().cpu()))

    def _written(self, item: ExplainedPhoto) -> dict[str, Any] | None:
        try:
            entry = self.writer.write(item)
        except ValueError as error:
            self.failed[item.photo.path] = f"it can't be drawn: {error}"
            return None
        self.entries[item.photo.path] = entry
        return entry
