"""Pictures: what can be opened as an image, and the file that most of them are."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from clarp.data.geometry import Size
from clarp.data.problems import Problem, UnreadableImageError
from clarp.dicom import dicom_size, is_dicom
from clarp.images import open_photo

_QUARTER_TURNS = frozenset({5, 6, 7, 8})


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
            if is_dicom(self.path):
                return dicom_size(self.path)
        with self._opened() as image, self._damage_named():
            if image.format == "TIFF" and _lies(image):
                # Pillow itself turns a TIFF when it decodes it, whoever asks, and then drops the tag.
                image.load()
            lying = not self.as_stored and _lies(image)
            return (image.width, image.height) if lying else (image.height, image.width)

    def open(self) -> Image.Image:
        """The image as RGB."""
        with self._damage_named(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_photo(self.path, upright=not self.as_stored)

    def open_with_alpha(self) -> Image.Image:
        """The image as RGBA, as stored."""
        with self._opened() as image, self._damage_named():
            return image.convert("RGBA")

    def indices(self) -> NDArray[np.uint8]:
        """(H, W) palette indices of an indexed image."""
        with self._opened() as image, self._damage_named():
            return np.array(image, dtype=np.uint8)

    def files(self) -> tuple["Photo", ...]:
        """This file."""
        return (self,)

    def _opened(self) -> Image.Image:
        # Pillow warns of very large images and of odd metadata; neither is a reason to leave one out.
        with self._damage_named(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(self.path)

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        """Turn whatever Pillow raises into an error that names this file."""
        try:
            yield
        except FileNotFoundError as error:
            raise UnreadableImageError(Problem("missing", self.file, "no such file")) from error
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            reason = _reason(error).removeprefix(f"{self.path}: ")
            raise UnreadableImageError(Problem("damaged", self.file, reason)) from error


def _lies(image: Image.Image) -> bool:
    """Whether its rotation tag asks for a quarter turn."""
    return image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
