"""Data sets: samples in a fixed order, and the files that gave none."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from clarp.data.problems import MAXIMUM_SHOWN, Problem, UnreadableImageError
from clarp.data.sample import Sample


@dataclass(frozen=True)
class Dataset:
    """Samples in a fixed order, and the files that gave none.

    Attributes:
        name: for tables and messages.
        samples: sorted by the reader; the same files give the same order everywhere. Those of shards are made
            when they are asked for.
        classes: the names of the class ids, by index; empty where they are unknown.
        problems: the files that gave no sample, by name.
        as_is: the pictures already have the size for the model (mosaics, composites): no resize, no crop.
        own_classes: they are numbered in the order of their names, because no model's were given.

    Raises:
        ValueError: two samples have the same id: tables and pictures would mix them up.
    """

    name: str
    samples: Sequence[Sample]
    classes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    as_is: bool = False
    own_classes: bool = False

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

    def fingerprint(self, digests: Iterable[bytes] | None = None) -> str:
        """SHA-256 of ids, labels, objects, and each file's name, length, first and last 4 KiB.

        The files are those of pictures and regions. Folders and dates are no part of it: a copy has the same
        fingerprint. Pixels in the middle of a file that change without changing its length are not seen; that
        keeps it fast for a million files.

        Args:
            digests: :func:`file_digest` of each sample; None: the files are read now.
        """
        digest = hashlib.sha256(repr((self.name, self.classes, self.as_is)).encode())
        found = map(file_digest, self.samples) if digests is None else digests
        for sample, of_files in zip(self.samples, found, strict=True):
            digest.update(repr(sample).encode())
            digest.update(of_files)
        return digest.hexdigest()


def file_digest(sample: Sample, *, anew: bool = False) -> bytes:
    """32 bytes of a sample's files, as of :meth:`~clarp.data.photo.Photo.digest`."""
    digests = [photo.digest(anew=anew) for photo in sample.files()]
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
