"""Pictures: what can be opened as an image, and the file that most of them are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarp import decoding
from clarp.data.geometry import Size
from clarp.data.problems import Problem, UnreadableImageError
from clarp.images import open_photo


class Picture(Protocol):
    """Something that can be opened as an RGB image; frozen, picklable, and with a ``repr`` free of folders."""

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
    """

    file: str
    root: Path = field(repr=False)
    as_stored: bool = False

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.root / self.file

    def size(self) -> Size:
        """(height, width) of what ``open`` returns, from the file's header."""
        with self._damage_named():
            return decoding.size(self.path, str(self.path), upright=not self.as_stored)

    def open(self) -> Image.Image:
        """The image as RGB."""
        with self._damage_named():
            return open_photo(self.path, upright=not self.as_stored)

    def open_with_alpha(self) -> Image.Image:
        """The image as RGBA, as stored."""
        with self._damage_named():
            return decoding.picture("rgba", self.path, str(self.path))

    def indices(self) -> NDArray[np.uint8]:
        """(H, W) palette indices of an indexed image."""
        with self._damage_named():
            return np.array(decoding.picture("indices", self.path, str(self.path)))

    def files(self) -> tuple["Photo", ...]:
        """This file."""
        return (self,)

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        """Turn whatever Pillow raises into an error that names this file."""
        try:
            yield
        except FileNotFoundError as error:
            raise UnreadableImageError(Problem("missing", self.file, "no such file")) from error
        except (OSError, ValueError) as error:
            reason = _reason(error).removeprefix(f"{self.path}: ")
            raise UnreadableImageError(Problem("damaged", self.file, reason)) from error


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
