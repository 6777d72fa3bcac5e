"""Class folders and ``labels.csv`` on another file system, such as ``s3://bucket/photos``."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from clarp.data._located import decoded, header, read_rows
from clarp.data.dataset import Dataset
from clarp.data.folder import class_column, index_of_folders, labelled
from clarp.data.listing import ListedSamples
from clarp.data.photo import UNREADABLE, Photo, check_size
from clarp.data.problems import Problem, UnreadableImageError
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
    problems: list[Problem] = []
    samples = ListedSamples(partial(RemoteFile, folder))
    names: list[str] = []
    for file in folder.files():
        name, _, inside = file.path.partition("/")
        if inside and not name.startswith(".") and name not in names[-1:]:
            names.append(name)
        if not _is_photo(file.path, problems):
            continue
        if inside:
            samples.append(file, len(names) - 1)
        else:
            problems.append(Problem("unlabelled", file.path, "outside the class folders"))
    if not names:
        raise ValueError(
            f"{folder} has neither class folders, nor {TABLE}, nor shards (index.parquet, *.tar): these are "
            "read from other file systems; others can be packed by `clarp pack` where they lie on a disk."
        )
    index = index_of_folders(names, classes)
    samples.classes = [index[name] for name in names]
    return Dataset(
        folder.name,
        samples,
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
    files = {file.path: file for file in folder.files()}
    place = f"{folder}/{TABLE}"
    text = decoded(read_whole(folder, TABLE, _TABLE_BYTES), place)
    column = class_column(header(place, text))
    others: list[Problem] = []

    def opened(file: str, absent: str) -> Photo | Problem:
        found = files.get(file)
        if found is None:
            return Problem("missing", file, absent)
        return Photo(file, RemoteFile(folder, found.length, found.version))

    rows = read_rows(place, ("file", column), f"call them file and {column}", text)
    photos = (file for file in files if _is_photo(file, others))
    return labelled(folder.name, TABLE, rows, classes, opened=opened, photos=photos, others=others)


def _is_photo(file: str, problems: list[Problem]) -> bool:
    """Whether a file is one by its name; others are added to the problems, but for hidden ones."""
    path = PurePosixPath(file)
    if any(part.startswith(".") for part in path.parts):
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    problems.append(Problem("not an image", file, f"its name ends in {path.suffix or 'nothing'!r}"))
    return False
