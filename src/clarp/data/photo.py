"""Pictures: what can be opened as an image, and the file that most of them are."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarp import decoding
from clarp.data.problems import Problem, StoreError, UnreadableImageError
from clarp.geometry import Size
from clarp.images import open_bytes, open_photo

UNREADABLE = hashlib.sha256(b"unreadable").digest()
"""The digest of a photo that can't be read."""
_ENDS = 4096
_MOST_BYTES = 1 << 30


class Picture(Protocol):
    """What can be opened as an RGB image; frozen, picklable, and with a ``repr`` without folders."""

    def size(self) -> Size:
        """(height, width) in pixels.

        Raises:
            UnreadableImageError: it is missing or not an image.
        """
        ...

    def open(self) -> Image.Image:
        """The whole image, decoded, RGB.

        Raises:
            UnreadableImageError: it is missing or damaged.
        """
        ...

    def files(self) -> tuple["Photo", ...]:
        """The files it is made of."""
        ...


class ByteSource(Protocol):
    """Where a photo's bytes lie, if it is no file of its own on a disk; frozen, and pickles."""

    def read(self, file: str) -> bytes:
        """All bytes of the photo, which messages call ``file``.

        Raises:
            UnreadableImageError: they are not there, or not those of the data set.
            StoreError: where they lie does not answer, or changed since the data set was opened.
        """
        ...

    def digest(self, file: str, *, anew: bool) -> bytes:
        """As of :meth:`Photo.digest`."""
        ...


@dataclass(frozen=True)
class Photo:
    """An image file, on a disk or somewhere else.

    Attributes:
        file: its path below ``root``, with forward slashes.
        root: the data set's folder, or another source of the photo's bytes; not part of ``repr``, so that a
            moved or packed data set keeps its fingerprint.
        as_stored: leave rotation tags (EXIF) alone, because annotations count the stored pixels, and
            published results on annotated data sets ignore the tags. Otherwise the photo is upright, as
            people see it.
        outside: it may lie outside of ``root``, by ``..``, an absolute path or a link.
    """

    file: str
    root: Path | ByteSource = field(repr=False)
    as_stored: bool = False
    outside: bool = field(default=False, repr=False)

    @property
    def path(self) -> Path:
        """Where it lies on a disk.

        Raises:
            TypeError: it is no file of its own there.
        """
        if not isinstance(self.root, Path):
            raise TypeError(f"{self.file} is no file of its own on a disk: use read() or open()")
        return self.root / self.file

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        return str(self.path) if isinstance(self.root, Path) else self.file

    def checked(self) -> Path:
        """Where it lies on the disk, inside of the data set unless it may lie elsewhere.

        Raises:
            UnreadableImageError: it lies elsewhere.
        """
        path = self.path
        if not self.outside and leaves(cast("Path", self.root), self.file):
            raise UnreadableImageError(outside(self.file))
        return path

    def content(self) -> Path | bytes:
        """The file that was checked; of another source its bytes.

        Raises:
            UnreadableImageError, StoreError: as of :meth:`checked` and :meth:`ByteSource.read`.
        """
        return self.checked() if isinstance(self.root, Path) else self.root.read(self.file)

    def size(self) -> Size:
        """(height, width) of what ``open`` returned, or else from the file's header."""
        if "_opened" in vars(self):
            found: Size = vars(self)["_opened"]
            return found
        with self._damage_named():
            return decoding.size(self.content(), self.place, upright=not self.as_stored)

    def open(self) -> Image.Image:
        """The image as RGB."""
        with self._damage_named():
            content = self.content()
            if isinstance(content, bytes):
                photo = open_bytes(content, self.place, upright=not self.as_stored)
                # Another look at the header would read all bytes again; kept as cached_property does.
                vars(self)["_opened"] = (photo.height, photo.width)
                return photo
            return open_photo(content, upright=not self.as_stored)

    def open_with_alpha(self) -> Image.Image:
        """The image as RGBA, as stored."""
        with self._damage_named():
            return decoding.picture("rgba", self.content(), self.place)

    def indices(self) -> NDArray[np.uint8]:
        """(H, W) palette indices of an indexed image."""
        with self._damage_named():
            return np.array(decoding.picture("indices", self.content(), self.place))

    def read(self) -> bytes:
        """All bytes, as stored.

        Raises:
            UnreadableImageError: it is missing, or can't be read.
        """
        with self._damage_named():
            content = self.content()
            if isinstance(content, bytes):
                return content
            decoding.check_regular(content)
            check_size(self.file, content.stat().st_size)
            return content.read_bytes()

    def digest(self, *, anew: bool = False) -> bytes:
        """32 bytes that tell this file from others: SHA-256 of its length, its first and its last 4 KiB.

        Args:
            anew: by what lies there now; otherwise a source may tell what lay there when it was opened.
        """
        if not isinstance(self.root, Path):
            return self.root.digest(self.file, anew=anew)
        return _digest_on_disk(self.path)

    def files(self) -> tuple["Photo", ...]:
        return (self,)

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        """Turn whatever Pillow raises into an error that names this file."""
        try:
            yield
        except (UnreadableImageError, StoreError):
            raise
        except FileNotFoundError as error:
            raise UnreadableImageError(Problem("missing", self.file, "no such file")) from error
        except (OSError, ValueError) as error:
            reason = _reason(error).removeprefix(f"{self.place}: ")
            raise UnreadableImageError(Problem("damaged", self.file, reason)) from error


def check_size(file: str, length: int) -> None:
    """Refuse a photo that is too large to hold all its bytes.

    Raises:
        UnreadableImageError: it is.
    """
    if length > _MOST_BYTES:
        reason = f"{length:,} bytes, expected at most {_MOST_BYTES:,}"
        raise UnreadableImageError(Problem("damaged", file, reason))


def digest_of_ends(length: int, read: Callable[[int, int], bytes]) -> bytes:
    """What :meth:`Photo.digest` is of so many bytes; ``read(start, stop)`` gives some of them."""
    head, tail = read(0, min(_ENDS, length)), read(max(length - _ENDS, 0), length)
    return hashlib.sha256(str(length).encode() + head + tail).digest()


def _digest_on_disk(path: Path) -> bytes:
    try:
        if not path.is_file():  # reading a pipe would block
            return UNREADABLE
        with path.open("rb") as file:

            def read(start: int, stop: int) -> bytes:
                file.seek(start)
                return file.read(stop - start)

            return digest_of_ends(path.stat().st_size, read)
    except OSError:
        return UNREADABLE


def leaves(root: Path, file: str) -> bool:
    """Whether a file of a data set lies outside of its folder, by ``..``, an absolute path or a link."""
    own = _real(root)
    place = os.path.realpath(root / file)
    return os.path.commonpath([own, place]) != own


def within(root: Path, path: Path, *, outside: bool) -> Path:
    """A table, a list or a folder of a data set, from which no link leads out of the data set's folder.

    Args:
        root: the data set's folder.
        path: below it; one that lies elsewhere by its name was named by the user, and is taken as it is.
        outside: links may lead out of the folder.

    Raises:
        ValueError: a link leads out, and that is not allowed.
    """
    if not outside and path.is_relative_to(root) and leaves(root, path.relative_to(root).as_posix()):
        raise ValueError(
            f"{path} leads out of the data set's folder, {root}, so it is not read; --outside allows that, "
            "or outside=True."
        )
    return path


def outside(file: str) -> Problem:
    return Problem("outside", file, "it leaves the data set's folder; --outside allows that, or outside=True")


@lru_cache(maxsize=64)
def _real(root: Path) -> str:
    return os.path.realpath(root)


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
