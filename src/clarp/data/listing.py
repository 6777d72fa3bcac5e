"""Photos of a listing, held in a hundred bytes each: of a million files, what is known fits into memory."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, overload

from clarp.data.photo import ByteSource, Photo
from clarp.data.sample import Sample


class ListedFile(NamedTuple):
    """What a file system says of a file.

    Attributes:
        path: below the listed folder, with forward slashes.
        length: in bytes.
        version: what changes when the file does.
    """

    path: str
    length: int
    version: str


class Strings:
    """Strings in one buffer, 8 bytes more than their own each; as objects they would take 50 more."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, text: str) -> None:
        """Add one at the end."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __getitem__(self, number: int) -> str:
        start, stop = self._ends[number], self._ends[number + 1]
        return self._bytes[start:stop].decode("utf-8", "surrogatepass")


class ListedSamples(Sequence[Sample]):
    """Photos with a class each, made when they are asked for.

    Args:
        source: makes the place of a photo's bytes from its length and version.
    """

    def __init__(self, source: Callable[[int, str], ByteSource]) -> None:
        self._source = source
        self._paths, self._versions = Strings(), Strings()
        self._lengths, self._folders = array("Q"), array("Q")
        self.classes: Sequence[int] = ()
        """By the number of a folder its class; set when all folders are known."""

    def append(self, file: ListedFile, folder: int) -> None:
        """Add a photo at the end, in the folder of this number."""
        self._paths.append(file.path)
        self._versions.append(file.version)
        self._lengths.append(file.length)
        self._folders.append(folder)

    def __len__(self) -> int:
        return len(self._lengths)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, place: int | slice) -> Sample | tuple[Sample, ...]:
        numbers = range(len(self))[place]
        if isinstance(numbers, int):
            return self._sample(numbers)
        return tuple(map(self._sample, numbers))

    def __iter__(self) -> Iterator[Sample]:
        return map(self._sample, range(len(self)))

    def _sample(self, number: int) -> Sample:
        path = self._paths[number]
        photo = Photo(path, self._source(self._lengths[number], self._versions[number]))
        return Sample(path, photo, ((self.classes[self._folders[number]],),))
