"""Photos from disk or from bytes: found, opened upright, and as 8-bit RGB whatever they were.

Of greys with more bits, and of what was assumed, `clarp.greys` knows.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from clarp import decoding, dicom
from clarp.greys import deep_photo, greys, noted, notes_of

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "TooManyPixels",
    "as_rgb",
    "decode_photo",
    "files_below",
    "find_photos",
    "greys",
    "is_photo",
    "notes_of",
    "open_bytes",
    "open_photo",
]

SUFFIXES = dicom.SUFFIXES | frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".jfif", ".png", ".tif", ".tiff", ".webp"}
)
_NEARLY_BLACK = 6  # bits of a byte: colours of 14 bits in 16
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
"""What strangers may send. Of Pillow's other readers some start programs or write files (EPS, for one)."""


class TooManyPixels(ValueError):  # noqa: N818  the name says what is wrong
    """A picture has more pixels than are allowed; it was not decoded."""


def open_photo(path: Path, *, upright: bool = True) -> Image.Image:
    """Open a photo as people see it: turned as its EXIF data says, RGB with 8 bits a channel.

    Transparent parts are laid on white, CMYK, palettes and greys become RGB, and of a moving picture the
    first frame counts. Greys of 16 bits are scaled by the bits that are used, and DICOM's by their window;
    :func:`greys` has their full depth, and :func:`notes_of` what was assumed.

    Args:
        path: the file; of DICOM the extra ``dicom`` reads it.
        upright: otherwise the rotation tag is left alone, for annotations that count stored pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture, is damaged, or has no 8-bit meaning (floating point).
        ModuleNotFoundError: a DICOM file, and pydicom is not installed.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file.")
    decoding.check_regular(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty.")
    return _opened(path, str(path), decoding.OWN, upright=upright)


def open_bytes(data: bytes, name: str, *, upright: bool = True) -> Image.Image:
    """As :func:`open_photo`, of a photo of the user's own that is no file on a disk.

    Args:
        data: all of its bytes.
        name: how messages call it; its suffix counts where a format has no mark of its own.
        upright: as there.

    Raises:
        ValueError, ModuleNotFoundError: as there.
    """
    if not data:
        raise ValueError(f"{name}: the file is empty.")
    return _opened(data, name, decoding.OWN, upright=upright)


def decode_photo(data: bytes, most_pixels: int) -> Image.Image:
    """Decode a photo that a stranger sent: as `open_photo`, of the usual formats, and of limited size.

    The size is read from the picture's head and checked before any pixel is decoded.

    Args:
        data: a file's content, in one of `FORMATS`.
        most_pixels: width times height may not be more.

    Raises:
        TooManyPixels: they are more.
        ValueError: no picture in one of these formats, a damaged one, or one without 8-bit meaning.
    """
    if not data:
        raise ValueError("the photo is empty: 0 bytes.")
    if dicom.has_mark(data):
        raise ValueError(
            "the photo is a DICOM file, which is not read here: explain it on the command line, or save it "
            "as PNG."
        )
    return _opened(data, "the photo", decoding.STRANGERS, formats=FORMATS, most_pixels=most_pixels)


def _opened(
    source: Path | bytes, name: str, bounds: decoding.DecodingLimits, **arguments: Any
) -> Image.Image:
    try:
        return decoding.picture("rgb", source, name, bounds, **arguments)
    except decoding.DecodingError as error:
        if error.kind in ("TooManyPixels", "MemoryError"):
            raise TooManyPixels(str(error)) from error
        raise


def decoded_here(
    source: Path | BytesIO,
    name: str,
    formats: Sequence[str] | None = None,
    most_pixels: int | None = None,
    *,
    upright: bool = True,
) -> Image.Image:
    """Decode in this process, without bounds of time and memory: for `clarp._decoder` alone.

    Raises:
        TooManyPixels, ValueError, ModuleNotFoundError: as of `open_photo` and `decode_photo`.
    """
    if formats is None and dicom.is_dicom(source, name):
        return dicom.open_dicom(source, name)
    try:
        with Image.open(source, formats=None if formats is None else tuple(formats)) as file:
            if most_pixels is not None:
                _check_pixels(name, file.size, most_pixels)
                _check_scans(file)
            stored = _Stored.of(file)
            file.load()
            return _rgb(ImageOps.exif_transpose(file) if upright else file, stored)
    except UnidentifiedImageError as error:
        reads = "that Pillow reads" if formats is None else f"that is read here ({', '.join(formats)})"
        raise ValueError(f"{name}: not a picture in a format {reads}.") from error
    except (TooManyPixels, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels(f"{name}: too many pixels ({error})") from error
    except Exception as error:  # on a damaged file, Pillow's readers raise whatever they run into
        raise ValueError(f"{name}: the picture can't be read: {error}.") from error


def _check_pixels(name: str, size: tuple[int, int], most: int) -> None:
    if size[0] * size[1] > most:
        raise TooManyPixels(
            f"{name}: {size[0]} x {size[1]} pixels, expected at most {most / 1e6:.3g} million; make it "
            "smaller."
        )


def _check_scans(file: Image.Image) -> None:
    """Each scan of a progressive JPEG, which may be ten bytes, goes over all pixels; ten scans are usual."""
    if isinstance(file, JpegImageFile) and file.fp is not None:
        place = file.fp.tell()
        scans = file.fp.read().count(b"\xff\xda")  # within the pixels' data, 0xff is always followed by 0
        file.fp.seek(place)
        if scans * file.width * file.height > _MOST_SCANNED:
            raise ValueError(
                f"{scans} scans of {file.width} x {file.height} pixels; save it anew as a plain JPEG"
            )


_MOST_SCANNED = 1_500_000_000


@dataclass(frozen=True)
class _Stored:
    """How a file keeps its pixels, where Pillow's mode doesn't tell.

    Attributes:
        bits: of a grey, if the file says that it has fewer than 16; None otherwise.
        inverted: 0 is white, and Pillow has not turned it.
        deep_colours: its colours have 16 bits, of which Pillow reads the upper 8.
    """

    bits: int | None
    inverted: bool
    deep_colours: bool

    @classmethod
    def of(cls, file: Image.Image) -> "_Stored":
        """Of an opened file whose pixels were not read yet."""
        tags = getattr(file, "tag_v2", {})  # TIFF's
        bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
        deep = file.mode.startswith("I")
        return cls(
            bits if deep and bits < 16 else None,
            deep and tags.get(ExifTags.Base.PhotometricInterpretation) == 0,
            not deep and any(";16" in str(tile[3]) for tile in getattr(file, "tile", ())),
        )


def as_rgb(photo: Image.Image) -> Image.Image:
    """A PIL photo that is open already, as :func:`open_photo` returns one.

    Raises:
        ValueError: it has no 8-bit meaning.
    """
    return _rgb(photo, _Stored.of(photo))


def _rgb(image: Image.Image, stored: _Stored) -> Image.Image:
    if image.mode.startswith("I"):
        return deep_photo(np.asarray(image), stored.bits, inverted=stored.inverted)
    if image.mode == "F":
        raise ValueError("its values are floating point, of unknown range; save it with 8 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    brightest = int(np.asarray(image).max()) if stored.deep_colours else 255
    if brightest < 2**_NEARLY_BLACK:
        said = (
            f"colours: of its 16 bits the upper 8 are read, and no value of these is above {brightest} of "
            "255, so it is nearly black; save it with 8 bits a channel"
        )
        return noted(image, (said,))
    return image


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """List the photos that are meant: files as given, folders with everything inside, sorted.

    A file that is named counts whatever its suffix; in folders :func:`is_photo` decides, hidden files
    and folders are left out, and links are followed. A photo that is reached twice is listed once.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a folder has no photo in it, or it or a folder in it can't be read.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder.")
        photos = _inside(path) if path.is_dir() else [path]
        if not photos:
            raise ValueError(f"{path}: no photo in this folder (looked for {', '.join(sorted(SUFFIXES))}).")
        for photo in photos:
            found.setdefault(photo.resolve(), photo)
    return list(found.values())


def _inside(folder: Path) -> list[Path]:
    def refuse(path: Path, reason: str) -> None:
        raise ValueError(f"{path}: the folder can't be read ({reason}); allow it, or name the photos.")

    files = files_below(folder, refuse)
    return [path for path in files if path.is_file() and is_photo(path)]


def is_photo(path: Path) -> bool:
    """Whether a file of a folder is taken for a photo: by its suffix, or without one if it has DICOM's mark.

    Archives of DICOM files call them ``IM000001`` or ``1.2.840.113619``, and have a table of contents,
    ``DICOMDIR``.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix and not suffix.isdecimal():
        return f".{suffix}" in SUFFIXES
    try:
        return path.name.upper() != "DICOMDIR" and dicom.is_dicom(path)
    except OSError:
        return False


def files_below(
    folder: Path, unreadable: Callable[[Path, str], None], enter: Callable[[Path], bool] = lambda _: True
) -> list[Path]:
    """Everything in a folder, at any depth, that is no folder; sorted, hidden files and folders left out.

    Links to folders are followed, except one to a folder that it lies in: what is there is listed anyway.

    Args:
        folder: an existing one.
        unreadable: told of each folder that can't be listed, and why.
        enter: whether to look into a folder; one that is not looked into is listed like a file.
    """
    return sorted(_walk(folder, (), unreadable, enter))


def _walk(
    folder: Path,
    above: tuple[tuple[int, int], ...],
    unreadable: Callable[[Path, str], None],
    enter: Callable[[Path], bool],
) -> Iterator[Path]:
    """The files of a folder; ``above`` are device and number of the folders that it lies in."""
    try:
        here = folder.stat()
        paths = list(folder.iterdir())
    except OSError as error:
        unreadable(folder, error.strerror or type(error).__name__)
        return
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        # Path.is_dir raises where a link's end may not be looked at.
        if os.path.isdir(path) and enter(path):  # noqa: PTH112
            yield from _walk(path, (*above, identity), unreadable, enter)
        else:
            yield path
