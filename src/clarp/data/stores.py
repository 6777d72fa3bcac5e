"""Folders that shards and remote photos lie in: on a disk, or behind fsspec (``s3://bucket/photos``)."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Protocol

from clarp.data.listing import ListedFile
from clarp.data.photo import leaves
from clarp.data.photo import outside as outside_of
from clarp.data.problems import Problem, StoreError, UnreadableImageError
from clarp.files import kind, write_atomically
from clarp.optional import optional

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VERSION = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime", "created")
"""What file systems call what changes with a file, in listings as for single files, the surest first."""
_WITHOUT_FOLDERS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
"""Object stores: to make a folder there would make the bucket, if its name is mistyped."""


class StoredFolder(Protocol):
    """A folder with files; frozen, and pickles. ``str`` is its place for messages."""

    @property
    def name(self) -> str:
        """The last part of its place."""
        ...

    def entries(self) -> dict[str, int | None]:
        """What lies directly in it, by name and sorted: bytes of files, None of what is no readable file.

        Raises:
            ValueError: there is no such folder.
        """
        ...

    def length(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            UnreadableImageError: it is missing, no regular file, or leaves the folder.
        """
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """A piece of a file, shorter where the file ends.

        Raises:
            UnreadableImageError: as of :meth:`length`.
        """
        ...

    def opened(self, name: str) -> BinaryIO:
        """The file, to read and to seek in.

        Raises:
            UnreadableImageError: as of :meth:`length`.
        """
        ...

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Make a file, whole or not at all; the folder is made if it is not there."""
        ...


def is_url(place: str) -> bool:
    """Whether it is of another file system, such as ``s3://bucket/photos``."""
    return _URL.match(place) is not None


def stored_folder(place: str | Path) -> StoredFolder:
    """The folder at a path or a URL; it need not exist."""
    return RemoteFolder(str(place).rstrip("/")) if is_url(str(place)) else LocalFolder(Path(place))


def read_whole(folder: StoredFolder, name: str, most: int) -> bytes:
    """All bytes of a table.

    Raises:
        ValueError: there are more than ``most``.
        UnreadableImageError, StoreError: it can't be read.
    """
    length = folder.length(name)
    if length > most:
        raise ValueError(f"{folder}/{name}: {length:,} bytes, expected at most {most:,}: give a smaller one")
    return folder.read(name)


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk."""

    root: Path
    outside: bool = False

    def __str__(self) -> str:
        return str(self.root)

    @property
    def name(self) -> str:
        return self.root.name

    def entries(self) -> dict[str, int | None]:
        if not self.root.is_dir():
            raise ValueError(f"{self.root} is not a folder: give the folder that holds the data set")
        found: dict[str, int | None] = {}
        for name in sorted(path.name for path in self.root.iterdir()):
            try:
                found[name] = self.length(name)
            except UnreadableImageError:
                found[name] = None
        return found

    def length(self, name: str) -> int:
        path = self._checked(name)
        return path.stat().st_size

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        with self.opened(name) as file:
            file.seek(start)
            return file.read() if stop is None else file.read(stop - start)

    def opened(self, name: str) -> BinaryIO:
        return self._checked(name).open("rb")

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.root / name, write)

    def _checked(self, name: str) -> Path:
        path = self.root / name
        try:
            if not self.outside and leaves(self.root, name):
                raise UnreadableImageError(outside_of(name))
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            if isinstance(error, UnreadableImageError):
                raise
            raise UnreadableImageError(Problem("missing", name, "no such file")) from error
        if not S_ISREG(mode):
            raise UnreadableImageError(Problem("not an image", name, f"{kind(mode)}, expected a file"))
        return path


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind fsspec; credentials and options are those of its own configuration.

    Attributes:
        url: without a slash at its end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def entries(self) -> dict[str, int | None]:
        with self._answering("") as (system, root):
            system.invalidate_cache(root)
            listed = system.ls(root, detail=True)
        found = {
            about["name"].rstrip("/").removeprefix(root).lstrip("/"): about
            for about in sorted(listed, key=lambda about: about["name"])
        }
        return {
            name: int(about["size"]) if about["type"] == "file" else None
            for name, about in found.items()
            if name
        }

    def files(self) -> Iterator[ListedFile]:
        """All files at any depth, in the order of their paths' parts.

        A folder is listed when the files before it have been taken, and nothing is kept of it afterwards.
        """
        waiting: list[ListedFile | str] = [""]  # folders by their paths; what comes next is last
        while waiting:
            found = waiting.pop()
            if isinstance(found, ListedFile):
                yield found
            else:
                waiting += reversed(self._in(found))

    def _in(self, below: str) -> list[ListedFile | str]:
        """What lies directly in a folder, by name."""
        with self._answering("") as (system, root):
            folder = f"{root}/{below}".rstrip("/")
            system.invalidate_cache(folder)
            listed = system.ls(folder, detail=True)
            system.invalidate_cache(folder)  # or it keeps the listing
        found: list[tuple[str, ListedFile | str]] = []
        while listed:
            about = listed.pop()
            path = about["name"].rstrip("/").removeprefix(root).lstrip("/")
            if path != below:  # of object stores, the mark of an empty folder
                is_folder = about["type"] == "directory"
                found.append((path, path if is_folder else ListedFile(path, *_version(about))))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    def version(self, name: str) -> tuple[int, str]:
        """A file's length now, and what changes when it does.

        Args:
            name: its path below the folder.
        """
        with self._answering(name) as (system, root):
            system.invalidate_cache(f"{root}/{name}".rpartition("/")[0])
            about = system.info(f"{root}/{name}")
        return _version(about)

    def length(self, name: str) -> int:
        return self.version(name)[0]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        with self._answering(name) as (system, root):
            if stop is not None and stop <= start:  # an empty range has no meaning in HTTP
                return b""
            data: bytes = system.cat_file(f"{root}/{name}", start=start or None, end=stop)
        return data

    def opened(self, name: str) -> BinaryIO:
        with self._answering(name) as (system, root):
            file: BinaryIO = system.open(f"{root}/{name}", "rb")
        return file

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        # A stream that is closed after an error would leave the half of it.
        with TemporaryFile() as file:
            write(file)
            file.seek(0)
            self.put(name, file)

    def put(self, name: str, file: BinaryIO) -> None:
        """Copy a file there, from where it stands; if that fails, a half of it may be there."""
        with self._answering("") as (system, root):
            place = f"{root}/{name}"
            if self.url.partition("://")[0] not in _WITHOUT_FOLDERS:
                system.makedirs(place.rpartition("/")[0], exist_ok=True)
            with system.open(place, "wb") as stream:
                shutil.copyfileobj(file, stream, 1 << 20)

    def remove(self, name: str) -> None:
        """Remove a file.

        Raises:
            UnreadableImageError: it is not there.
        """
        with self._answering(name) as (system, root):
            system.rm_file(f"{root}/{name}")

    @contextmanager
    def _answering(self, name: str) -> Iterator[tuple[Any, str]]:
        """The file system and the folder in it; what it raises becomes a missing file, or one sentence."""
        found = _file_system(self.url, os.getpid())
        try:
            yield found
        except FileNotFoundError as error:
            if not name:
                raise ValueError(f"{self.url} does not exist, or has nothing in it") from error
            raise UnreadableImageError(Problem("missing", name, "no such file")) from error
        except Exception as error:  # libraries of all kinds lie behind it
            said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
            place = f"{self.url}/{name}".rstrip("/")
            raise StoreError(f"{place} can't be read or written: {type(error).__name__}: {said}.") from error


def _version(about: Mapping[str, Any]) -> tuple[int, str]:
    """A file's length and version, from what a file system says of it."""
    said = next((about[key] for key in _VERSION if about.get(key)), "")
    return int(about["size"] or 0), str(said.timestamp() if isinstance(said, datetime) else said)


@lru_cache(maxsize=16)
def _file_system(url: str, process: int) -> tuple[Any, str]:
    """The file system, and the path in it; one for all threads of a process, and none of another process."""
    del process
    optional("fsspec", f"A data set at {url}", "remote")
    core = optional("fsspec.core", f"A data set at {url}", "remote")
    try:
        system, path = core.url_to_fs(url)
    except ImportError as error:
        scheme = url.partition("://")[0]
        raise ModuleNotFoundError(
            f'{url} needs another library ({error}): pip install "clarp[remote]" has that of s3://; of '
            f"{scheme}:// install what fsspec asks for."
        ) from error
    except ValueError as error:
        raise ValueError(f"{url} can't be opened: {error}.") from error
    return system, str(path).rstrip("/")
