"""Data sets: samples in a fixed order, and the files that gave none."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from clarp.data.problems import MAXIMUM_SHOWN, Problem, UnreadableImageError
from clarp.data.sample import Sample


@dataclass(frozen=True)
class Dataset:
    """Samples in a fixed order, and the files that gave none.

    Attributes:
        name: for tables and messages.
        samples: sorted by the reader; the same files give the same order everywhere.
        classes: the names of the class ids, by index; empty where they are unknown.
        problems: the files that gave no sample, by name.
        as_is: the pictures already have the size for the model (mosaics, composites): no resize, no crop.

    Raises:
        ValueError: two samples have the same id: tables and pictures would mix them up.
    """

    name: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    as_is: bool = False

    def __post_init__(self) -> None:
        count = Counter(sample.id for sample in self.samples)
        if len(count) < len(self.samples):
            twice = [identity for identity, number in count.items() if number > 1]
            shown = ", ".join(map(repr, twice[:MAXIMUM_SHOWN]))
            raise ValueError(
                f"{self.name} has {len(twice)} ids more than once: {shown}; an id belongs to one sample"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __str__(self) -> str:
        count = Counter(problem.kind for problem in self.problems)
        found = [f"{number} {kind}" for kind, number in sorted(count.items())]
        return ", ".join([f"{self.name}: {len(self)} samples", *found])

    def select(self, keep: Callable[[Sample], bool]) -> "Dataset":
        """The samples that ``keep`` says yes to, in the same order; the problems stay."""
        return replace(self, samples=tuple(sample for sample in self.samples if keep(sample)))

    def verified(self) -> "Dataset":
        """Decode every picture once; those that can't be decoded become problems."""
        good: list[Sample] = []
        problems = list(self.problems)
        for sample in self.samples:
            try:
                sample.image()
            except UnreadableImageError as error:
                problems.append(error.problem)
            else:
                good.append(sample)
        return replace(self, samples=tuple(good), problems=tuple(problems))

    def fingerprint(self) -> str:
        """SHA-256 of ids, labels, objects, and each file's name, length, first and last 4 KiB.

        The files are those of pictures and regions. Folders and dates are no part of it: a copy has the same
        fingerprint. Pixels in the middle of a file that change without changing its length are not seen; that
        keeps it fast for a million files.
        """
        digest = hashlib.sha256(repr((self.name, self.classes, self.as_is)).encode())
        for sample in self.samples:
            digest.update(repr(sample).encode())
            for photo in sample.files():
                digest.update(_ends(photo.path))
        return digest.hexdigest()


def file_digest(sample: Sample) -> bytes:
    """SHA-256 of what `Dataset.fingerprint` looks at in a sample's files."""
    return hashlib.sha256(b"".join(_ends(photo.path) for photo in sample.files())).digest()


def _ends(path: Path, length: int = 4096) -> bytes:
    try:
        if not path.is_file():  # reading a pipe would block
            return b"unreadable"
        with path.open("rb") as file:
            total = path.stat().st_size
            head = file.read(length)
            file.seek(max(total - length, 0))
            return f"{total}".encode() + head + file.read(length)
    except OSError:
        return b"unreadable"
