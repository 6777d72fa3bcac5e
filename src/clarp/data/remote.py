"""Class folders and ``labels.csv`` on another file system, such as ``s3://bucket/photos``."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from clarp.data._located import decoded, header, read_rows
from clarp.data.dataset import Dataset
from clarp.data.folder import class_column, index_of_folders, labelled
from clarp.data.photo import UNREADABLE, Photo, check_size
from clarp.data.problems import Problem, UnreadableImageError
from clarp.data.sample import Sample
from clarp.data.stores import RemoteFolder, read_whole
from clarp.images import SUFFIXES

TABLE = "labels.csv"
_TABLE_BYTES = 2 << 30


@dataclass(frozen=True)
class RemoteFile:
    """A photo on another file system.

    Attributes:
        folder: the data set's.
        length: in bytes, when it was listed.
        version: what the file system said then that changes with the file.
    """

    folder: RemoteFolder
    length: int
    version: str

    def read(self, file: str) -> bytes:
        check_size(file, self.length)
        data = self.folder.read(file)
        if len(data) != self.length:
            reason = f"{len(data):,} bytes were read, and {self.length:,} were listed"
            raise UnreadableImageError(Problem("damaged", file, reason))
        return data

    def digest(self, file: str, *, anew: bool) -> bytes:
        """By length and version, which a listing tells without reading any file."""
        length, version = self.length, self.version
        if anew:
            try:
                length, version = self.folder.version(file)
            except UnreadableImageError:
                return UNREADABLE
        return hashlib.sha256(f"{length} {version}".encode()).digest()


def remote_folders(folder: RemoteFolder, classes: Sequence[str] | None = None) -> Dataset:
    """As :func:`~clarp.data.folder.image_folder`; files count as photos by their suffix alone.

    Raises:
        ValueError: there is nothing, or no class folder, or a folder's name is no class.
        StoreError: the file system does not answer.
    """
    files = folder.files()
    problems: list[Problem] = []
    photos = list(_photos(files, problems))
    names = sorted({name.partition("/")[0] for name in files if "/" in name and not name.startswith(".")})
    if not names:
        raise ValueError(
            f"{folder} has neither class folders, nor {TABLE}, nor shards (index.parquet, *.tar): these are "
            "read from other file systems; others can be packed by `clarp pack` where they lie on a disk."
        )
    index = index_of_folders(names, classes)
    samples: list[Sample] = []
    for file in photos:
        name, _, inside = file.partition("/")
        if inside:
            samples.append(Sample(file, _photo(folder, file, files), ((index[name],),)))
        else:
            problems.append(Problem("unlabelled", file, "outside the class folders"))
    return Dataset(
        folder.name,
        tuple(samples),
        tuple(names if classes is None else classes),
        tuple(problems),
        own_classes=classes is None,
    )


def remote_table(folder: RemoteFolder, classes: Sequence[str] = ()) -> Dataset:
    """As :func:`~clarp.data.folder.image_table`, of ``labels.csv`` with a column ``class`` or ``classes``.

    Raises:
        ValueError, AnnotationError: as there.
        StoreError: the file system does not answer.
    """
    files = folder.files()
    place = f"{folder}/{TABLE}"
    text = decoded(read_whole(folder, TABLE, _TABLE_BYTES), place)
    column = class_column(header(place, text))
    others: list[Problem] = []

    def opened(file: str, absent: str) -> Photo | Problem:
        return _photo(folder, file, files) if file in files else Problem("missing", file, absent)

    rows = read_rows(place, ("file", column), f"call them file and {column}", text)
    photos = _photos(files, others)
    return labelled(folder.name, TABLE, rows, classes, opened=opened, photos=photos, others=others)


def _photo(folder: RemoteFolder, file: str, files: Mapping[str, Mapping[str, Any]]) -> Photo:
    return Photo(file, RemoteFile(folder, *folder.version(file, files[file])))


def _photos(files: Iterable[str], problems: list[Problem]) -> Iterator[str]:
    """The photos, in the order of a folder on a disk; other files are added to the problems."""
    for path in sorted(map(PurePosixPath, files)):
        if any(part.startswith(".") for part in path.parts):
            continue
        if path.suffix.lower() in SUFFIXES:
            yield str(path)
        else:
            problems.append(
                Problem("not an image", str(path), f"its name ends in {path.suffix or 'nothing'!r}")
            )
