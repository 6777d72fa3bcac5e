"""Photos from disk or from bytes: found, opened upright, and as 8-bit RGB whatever they were."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from clarp import decoding

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".jfif", ".png", ".tif", ".tiff", ".webp"})
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
"""What strangers may send. Of Pillow's other readers some start programs or write files (EPS, for one)."""


class TooManyPixels(ValueError):  # noqa: N818  the name says what is wrong
    """A picture has more pixels than are allowed; it was not decoded."""


def open_photo(path: Path, *, upright: bool = True) -> Image.Image:
    """Open a photo as people see it: turned as its EXIF data says, RGB with 8 bits a channel.

    Transparent parts are laid on white, 16-bit greys are divided by 257, CMYK, palettes and greys
    become RGB, and of a moving picture the first frame counts.

    Args:
        path: the file.
        upright: otherwise the rotation tag is left alone, for annotations that count stored pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture, is damaged, or has no 8-bit meaning (floating point).
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file.")
    decoding.check_regular(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty.")
    return _opened(path, str(path), decoding.OWN, upright=upright)


def decode_photo(data: bytes, most_pixels: int) -> Image.Image:
    """Decode a photo that a stranger sent: as `open_photo`, but of the usual formats only, and of limited size.

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
    return _opened(data, "the photo", decoding.STRANGERS, formats=FORMATS, most_pixels=most_pixels)


def _opened(source: Path | bytes, name: str, bounds: decoding.Bounds, **arguments: Any) -> Image.Image:
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
        TooManyPixels, ValueError: as of `open_photo` and `decode_photo`.
    """
    try:
        with Image.open(source, formats=None if formats is None else tuple(formats)) as file:
            if most_pixels is not None:
                _check_pixels(name, file.size, most_pixels)
                _check_scans(file)
            file.load()
            return _rgb(ImageOps.exif_transpose(file) if upright else file)
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
            f"{name}: {size[0]} x {size[1]} pixels, expected at most {most / 1e6:.3g} million; make it smaller."
        )


def _check_scans(file: Image.Image) -> None:
    """Each scan of a progressive JPEG goes over all pixels, and may be ten bytes; usual files have ten scans."""
    if isinstance(file, JpegImageFile) and file.fp is not None:
        place = file.fp.tell()
        scans = file.fp.read().count(b"\xff\xda")  # within the pixels' data, 0xff is always followed by 0
        file.fp.seek(place)
        if scans * file.width * file.height > _MOST_SCANNED:
            raise ValueError(
                f"{scans} scans of {file.width} x {file.height} pixels; save it anew as a plain JPEG"
            )


_MOST_SCANNED = 1_500_000_000


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its 32-bit values don't fit 16 bits; save it with 8 bits a channel")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its values are floating point, of unknown range; save it with 8 bits a channel")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """List the photos that are meant: files as given, folders with everything inside, sorted.

    A file that is named counts whatever its suffix; in folders the suffix decides, hidden files
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
    return [path for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]


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
