"""The files of a run with their checksums: on a disk, or behind fsspec (``s3://bucket/run``)."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from clarp.data.problems import UnreadableImageError
from clarp.data.stores import RemoteFolder, is_url
from clarp.files import has_sum, whole, write_summed
from clarp.optional import optional

_LOCK = ".lock"
_WITH_SUM = re.compile(r"(?P<stem>.+)\.(?P<sum>[0-9a-f]{64})(?P<suffix>\.\w+)")
_REQUESTS = 16
"""To an object store at once: a request takes tens of milliseconds, in which nothing is computed."""


class RunFiles(ABC):
    """The files of a run by their names below its folder, such as ``parts/00000000-00000016.parquet``.

    A file counts if its bytes have its checksum. ``str`` is the folder, for messages.

    Attributes:
        at_once: how many files are best read or written at the same time.
        fixed: whole files never change, so what was read of one may be kept.
    """

    at_once: int
    fixed: bool

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder as a context, where a file system can: the lock goes with the process.

        Raises:
            ValueError: another process has locked it.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Forget what was listed, because other processes may have written meanwhile."""

    @abstractmethod
    def names(self, pattern: str) -> list[str]:
        """The files of a pattern such as ``parts/*.parquet``, sorted; damaged ones too."""

    @abstractmethod
    def contents(self, name: str, *, unsummed: bool = False) -> Iterator[bytes]:
        """The bytes of a file, if it is there and whole; several where processes wrote different ones.

        Args:
            name: of the file.
            unsummed: a file without a checksum, of an old version, counts too.
        """

    @abstractmethod
    def whole(self, name: str) -> bool:
        """Whether a file is there with the bytes that were written."""

    @abstractmethod
    def source(self, name: str) -> Path | BinaryIO:
        """A whole file to read from, for libraries that seek in it."""

    @abstractmethod
    def write(self, name: str, write: Callable[[BinaryIO], object]) -> str:
        """Write a file with its checksum, so that a half of it never counts; returns where it is."""

    @abstractmethod
    def remove(self, place: str) -> None:
        """Take back what :meth:`write` wrote there."""

    @abstractmethod
    def place(self, name: str) -> str:
        """Where a file is, or will be, for messages."""

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None where it is missing or damaged."""
        return next(self.contents(name), None)


def run_files(place: str | Path) -> RunFiles:
    """The files of the run at a path or a URL, which is decided here; it need not exist."""
    if is_url(str(place)):
        return StoredFiles(RemoteFolder(str(place).rstrip("/")))
    return LocalFiles(Path(place))


class LocalFiles(RunFiles):
    """On a disk: files are replaced by renaming, and have checksums beside them as of ``sha256sum``."""

    at_once, fixed = 1, False

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        filelock = optional("filelock", "A run")
        (self._root / "parts").mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self._root / _LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise ValueError(
                f"{self}: another process is at work in this folder. Wait for it, or give another --out."
            ) from error
        try:
            for place in (".", "parts", "pictures"):
                for leftover in self._root.glob(f"{place}/.*.tmp"):
                    leftover.unlink()
            yield
        finally:
            lock.release()

    def refresh(self) -> None:
        """Nothing is kept of a disk's listings."""

    def names(self, pattern: str) -> list[str]:
        return [path.relative_to(self._root).as_posix() for path in sorted(self._root.glob(pattern))]

    def contents(self, name: str, *, unsummed: bool = False) -> Iterator[bytes]:
        path = self._root / name
        if self.whole(name) or (unsummed and path.is_file() and not has_sum(path)):
            yield path.read_bytes()

    def whole(self, name: str) -> bool:
        return whole(self._root / name)

    def source(self, name: str) -> Path:
        return self._root / name

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> str:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_summed(path, write)
        return str(path)

    def remove(self, place: str) -> None:
        Path(place).unlink(missing_ok=True)

    def place(self, name: str) -> str:
        return str(self._root / name)


class StoredFiles(RunFiles):
    """In an object store, which renames nothing: a file's checksum is in its name, ``rows.SHA256.parquet``.

    So a name has one content. A file that was written by half doesn't fit its name and counts as missing; two
    processes that write a part write the same object or two whole ones, and either will do. Nothing is
    overwritten with other bytes, and what is written and read takes one request, not two. (A checksum in an
    object of its own would fit neither of two contents while another process writes.)
    """

    at_once, fixed = _REQUESTS, True

    def __init__(self, root: RemoteFolder) -> None:
        self._root = root
        self._listed: dict[str, dict[str, list[str]]] = {}
        self._fitting: set[str] = set()

    def __str__(self) -> str:
        return str(self._root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """There are no locks: processes that work at one run do some of its parts twice."""
        self.refresh()
        yield

    def refresh(self) -> None:
        self._listed.clear()

    def names(self, pattern: str) -> list[str]:
        folder = pattern.rpartition("/")[0]
        return sorted(name for name in self._versions(folder) if fnmatch(name, pattern))

    def contents(self, name: str, *, unsummed: bool = False) -> Iterator[bytes]:
        del unsummed  # there is no old version
        for stored in self._stored(name):
            try:
                data = self._root.read(stored)
            except UnreadableImageError:  # removed meanwhile
                continue
            if hashlib.sha256(data).hexdigest() == _sum_in(stored):
                self._fitting.add(stored)
                yield data

    def whole(self, name: str) -> bool:
        return not self._fitting.isdisjoint(self._stored(name)) or self.read(name) is not None

    def source(self, name: str) -> BinaryIO:
        data = self.read(name)
        if data is None:
            raise ValueError(f"{self}/{name} is missing or damaged: give the same `clarp evaluate` again.")
        return BytesIO(data)

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> str:
        with TemporaryFile() as file:
            write(file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            stem, _, suffix = name.rpartition(".")
            stored = f"{stem}.{digest}.{suffix}"
            if stored not in self._fitting:
                file.seek(0)
                self._root.put(stored, file)
        self._fitting.add(stored)
        if stored not in self._stored(name):
            self._versions(name.rpartition("/")[0]).setdefault(name, []).append(stored)
        return stored

    def remove(self, place: str) -> None:
        self._root.remove(place)
        self._listed.clear()

    def place(self, name: str) -> str:
        stored = next((one for one in self._stored(name) if one in self._fitting), name)
        return f"{self}/{stored}"

    def _stored(self, name: str) -> list[str]:
        return self._versions(name.rpartition("/")[0]).get(name, [])

    def _versions(self, folder: str) -> dict[str, list[str]]:
        """Of each file in a folder the names with checksums, as they were when they were listed."""
        if folder not in self._listed:
            below = RemoteFolder(f"{self._root}/{folder}".rstrip("/"))
            try:
                there = sorted(below.entries())
            except ValueError:  # nothing is there yet
                there = []
            found: dict[str, list[str]] = {}
            for stored in there:
                if match := _WITH_SUM.fullmatch(stored):
                    name = f"{match['stem']}{match['suffix']}"
                    place = f"{folder}/" if folder else ""
                    found.setdefault(f"{place}{name}", []).append(f"{place}{stored}")
            self._listed[folder] = found
        return self._listed[folder]


def _sum_in(stored: str) -> str:
    match = _WITH_SUM.fullmatch(stored)
    assert match is not None
    return match["sum"]
