"""Pictures: what can be opened as an image, and the file that most of them are."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarp import decoding
from clarp.data.problems import Problem, UnreadableImageError
from clarp.geometry import Size
from clarp.images import open_photo


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


@dataclass(frozen=True)
class Photo:
    """An image file.

    Attributes:
        file: its path below ``root``, with forward slashes.
        root: the data set's folder; not part of ``repr``, so that a moved data set keeps its fingerprint.
        as_stored: leave rotation tags (EXIF) alone, because annotations count the stored pixels, and
            published results on annotated data sets ignore the tags. Otherwise the photo is upright, as
            people see it.
        outside: it may lie outside of ``root``, by ``..``, an absolute path or a link.
    """

    file: str
    root: Path = field(repr=False)
    as_stored: bool = False
    outside: bool = field(default=False, repr=False)

    @property
    def path(self) -> Path:
        return self.root / self.file

    def checked(self) -> Path:
        """Where it lies, inside of the data set unless it may lie elsewhere.

        Raises:
            UnreadableImageError: it does not.
        """
        if not self.outside and leaves(self.root, self.file):
            raise UnreadableImageError(outside(self.file))
        return self.path

    def size(self) -> Size:
        """(height, width) of what ``open`` returns, from the file's header."""
        with self._damage_named():
            return decoding.size(self.checked(), str(self.path), upright=not self.as_stored)

    def open(self) -> Image.Image:
        """The image as RGB."""
        with self._damage_named():
            return open_photo(self.checked(), upright=not self.as_stored)

    def open_with_alpha(self) -> Image.Image:
        """The image as RGBA, as stored."""
        with self._damage_named():
            return decoding.picture("rgba", self.checked(), str(self.path))

    def indices(self) -> NDArray[np.uint8]:
        """(H, W) palette indices of an indexed image."""
        with self._damage_named():
            return np.array(decoding.picture("indices", self.checked(), str(self.path)))

    def files(self) -> tuple["Photo", ...]:
        return (self,)

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        """Turn whatever Pillow raises into an error that names this file."""
        try:
            yield
        except UnreadableImageError:
            raise
        except FileNotFoundError as error:
            raise UnreadableImageError(Problem("missing", self.file, "no such file")) from error
        except (OSError, ValueError) as error:
            reason = _reason(error).removeprefix(f"{self.path}: ")
            raise UnreadableImageError(Problem("damaged", self.file, reason)) from error


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
