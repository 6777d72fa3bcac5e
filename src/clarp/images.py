"""Photos from disk or from bytes: found, opened upright, and as 8-bit RGB whatever they were."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

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
    if path.is_dir():
        raise ValueError(f"{path}: a folder, where a photo was expected.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty.")
    return _opened(path, str(path), upright=upright)


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
    return _opened(BytesIO(data), "the photo", FORMATS, most_pixels)


def _opened(
    source: Path | BytesIO,
    name: str,
    formats: tuple[str, ...] | None = None,
    most_pixels: int | None = None,
    *,
    upright: bool = True,
) -> Image.Image:
    try:
        with Image.open(source, formats=formats) as file:
            if most_pixels is not None:
                _check_pixels(name, file.size, most_pixels)
            file.load()
            return _rgb(ImageOps.exif_transpose(file) if upright else file)
    except UnidentifiedImageError as error:
        reads = "that Pillow reads" if formats is None else f"that is read here ({', '.join(formats)})"
        raise ValueError(f"{name}: not a picture in a format {reads}.") from error
    except TooManyPixels:
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

    A file that is named counts whatever its suffix; in folders the suffix decides, and hidden files
    and folders are left out. A photo that is reached twice is listed once.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a folder has no photo in it.
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
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
