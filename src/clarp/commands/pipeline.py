"""Photos through reading, explaining and writing, side by side: a photo is written while others are explained and read."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from clarp import decoding
from clarp.background import ahead, batches, behind, cores
from clarp.commands.notes import lost_as_notes, note
from clarp.commands.writing import Explained, Opened
from clarp.explainer import Explainer
from clarp.images import notes_of, open_photo
from clarp.models import Classifier
from clarp.render import Seen
from clarp.task import Task


@dataclass(eq=False)
class Outcome:
    """What became of the photos so far.

    Attributes:
        records: of each photo that was written what the manifest says of it.
        failed: of each photo that could not be read, explained or drawn why.
        task: what the model's last layer means; None where nothing was explained.
    """

    records: dict[Path, dict[str, Any]] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    task: Task | None = None

    @property
    def count(self) -> int:
        """How many photos are done with."""
        return len(self.records) + len(self.failed)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Reading in threads, ahead of what explains; explaining in the caller's thread; writing in threads behind it.

    Batches are those that one photo after the other would make, so the numbers are the same to the last bit.

    Attributes:
        classifier: reads the photos and names the classes.
        explainer: of its model.
        targets: classes to explain; none: the top one of each photo.
        against: rivals; none: those of the task.
        layers: modules whose relevance is kept too.
        batch_size: how many photos are explained at once.
        framed: from a photo and what the preprocessing made of it to what maps are drawn over; None: nothing is drawn.
        write: writes one photo in whatever thread, and returns its record.
        outcome: is filled.
    """

    classifier: Classifier
    explainer: Explainer
    targets: Sequence[int]
    against: Sequence[int]
    layers: Sequence[str]
    batch_size: int
    framed: Callable[[Image.Image, Tensor], Seen] | None
    write: Callable[[Explained], dict[str, Any]]
    outcome: Outcome

    def run(self, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
        """The records of the photos that were written, in their order.

        Whatever ends it early, every photo that was explained by then is written, and is in ``outcome``.

        Raises:
            OSError: a file can't be written.
        """
        photos = ahead(self._opened, paths, most=self.batch_size + 1)
        explained = self._explained(batches(self._good(photos), self.batch_size))
        # A whole batch comes at once, and those before it may not be done yet.
        written = behind(self._written, explained, most=self.batch_size + cores())
        with closing(photos), closing(written):
            try:
                for record in written:
                    if record is not None:
                        yield record
            except BaseException:
                decoding.interrupt()  # nobody waits for what is read
                raise

    def _opened(self, path: Path) -> Opened | tuple[Path, str]:
        """A photo, or its path and why it can't be read."""
        try:
            image = open_photo(path)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (ValueError, OSError, ModuleNotFoundError) as error:
            return path, str(error)
        try:
            preprocessed = self.classifier.preprocess(image)
            seen = None if self.framed is None else self.framed(image, preprocessed)
        except Exception as error:  # noqa: BLE001  the user's own preprocessing may raise anything
            return path, f"the preprocessing failed with {type(error).__name__}: {error}."
        return Opened(path, preprocessed, notes_of(image), digest, seen)

    def _good(self, photos: Iterable[Opened | tuple[Path, str]]) -> Iterator[Opened]:
        for photo in photos:
            if isinstance(photo, Opened):
                yield photo
            else:
                path, reason = photo
                self.outcome.failed[path] = reason

    def _explained(self, found: Iterable[list[Opened]]) -> Iterator[Explained]:
        for batch in found:
            for item in self._explanations(batch):
                if self.outcome.task is None:
                    self.outcome.task = item.explanation.question
                    for assumed in item.explanation.notes:
                        note(assumed)
                yield item

    def _explanations(self, batch: list[Opened]) -> Iterator[Explained]:
        """Each photo with its explanation; a photo that spoils its batch is left out."""
        target = [list(self.targets)] * len(batch) if self.targets else None
        try:
            images = torch.stack([photo.image for photo in batch])
            with lost_as_notes(lambda k, index: f"{batch[k].path}, {self.classifier.labels[index]}"):
                explanation = self.explainer(
                    images,
                    target=target,
                    against=list(self.against) or None,
                    layers=self.layers,
                    batch_size="auto",
                )
        except ValueError as error:
            if len(batch) == 1:
                self.outcome.failed[batch[0].path] = str(error)
                return
            for photo in batch:
                yield from self._explanations([photo])
            return
        yield from Explained.of(batch, explanation)

    def _written(self, item: Explained) -> dict[str, Any] | None:
        try:
            record = self.write(item)
        except ValueError as error:
            self.outcome.failed[item.photo.path] = f"it can't be drawn: {error}"
            return None
        self.outcome.records[item.photo.path] = record
        return record
