"""The process that decodes photos for :mod:`clarp.decoding`: jobs from standard input, answers to its output.

A job is a line of JSON and the file's bytes, where there is no path; an answer is a line of JSON, the pixels,
and the greys of a photo that has more than its pixels.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from clarp.dicom import dicom_size, is_dicom
from clarp.greys import NotedPhoto, notes_of

Source = Path | BytesIO
_QUARTER_TURNS = frozenset({5, 6, 7, 8})
_STRIP = 1 << 20
"""Pixels that are written at once: a second copy of the whole picture would be counted."""


def main() -> None:
    """Answer until standard input ends, which is when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    asked, told = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    _rgb({}, BytesIO(), "", warm=True)
    while line := asked.readline():
        _answer(json.loads(line), asked, told)


def _answer(head: dict[str, Any], asked: BinaryIO, told: BinaryIO) -> None:
    """Do one job, within its bounds."""
    data = asked.read(head["bytes"])
    _bound(**head["bounds"])
    Image.MAX_IMAGE_PIXELS = head["most"]
    source = BytesIO(data) if head["path"] is None else Path(head["path"])
    del data
    try:
        answer = _JOBS[head["job"]](head["arguments"], source, head["name"])
    except MemoryError:
        amount = head["bounds"]["memory"] >> 20
        words = f"{head['name']}: decoding the picture takes more than {amount} MiB; make it smaller."
        _tell(told, {"error": "MemoryError", "message": words})
    except UnidentifiedImageError as error:
        # Pillow's own words would name a path, or an address in memory.
        words = f"{head['name']}: not a picture in a format that Pillow reads."
        _tell(told, {"error": type(error).__name__, "message": words})
    except Exception as error:  # noqa: BLE001  Pillow's readers raise whatever they run into
        _tell(told, {"error": type(error).__name__, "message": str(error) or type(error).__name__})
    else:
        if isinstance(answer, Image.Image):
            _tell_picture(told, answer)
        else:
            _tell(told, answer)


def _bound(seconds: int, memory: int) -> None:
    """The process ends where it takes more seconds from now, and memory beyond is refused."""
    if sys.platform == "win32":  # where the parent's clock is all there is
        return
    import resource  # noqa: PLC0415  not on Windows

    used = resource.getrusage(resource.RUSAGE_SELF)
    total = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (total, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, most))


def _tell(told: BinaryIO, answer: dict[str, Any]) -> None:
    told.write(json.dumps(answer).encode() + b"\n")
    told.flush()


def _tell_picture(told: BinaryIO, image: Image.Image) -> None:
    width, height = image.size
    levels = image.levels if isinstance(image, NotedPhoto) else None
    parts = [width * height * len(image.getbands()), *([] if levels is None else [levels.nbytes])]
    answer = {"mode": image.mode, "size": image.size, "notes": notes_of(image), "parts": parts}
    told.write(json.dumps(answer).encode() + b"\n")
    rows = max(1, _STRIP // width)
    told.writelines(
        image.crop((0, top, width, min(top + rows, height))).tobytes() for top in range(0, height, rows)
    )
    if levels is not None:
        told.write(np.ascontiguousarray(levels).data)
    told.flush()


def _rgb(arguments: dict[str, Any], source: Source, name: str, *, warm: bool = False) -> Image.Image:
    from clarp.images import decoded_here  # noqa: PLC0415  which imports the parent's side of this file

    if warm:
        return Image.new("RGB", (1, 1))
    return decoded_here(source, name, **arguments)


def _rgba(_: dict[str, Any], source: Source, __: str) -> Image.Image:
    with Image.open(source) as image:
        return image.convert("RGBA")


def _indices(_: dict[str, Any], source: Source, __: str) -> Image.Image:
    """The values as they are stored, one byte each."""
    with Image.open(source) as image:
        image.load()
        if image.mode not in ("1", "L", "P"):
            raise ValueError(f"it has colours ({image.mode}), expected one index for each pixel")
        if image.mode == "1":
            return image.convert("L").point(lambda value: value // 255)
        return Image.frombytes("L", image.size, image.tobytes())


def _size(arguments: dict[str, Any], source: Source, name: str) -> dict[str, Any]:
    if is_dicom(source, name):
        height, width = dicom_size(source, name)
        return {"size": (width, height)}
    with Image.open(source) as image:
        if image.format == "TIFF" and _lies(image):
            # Pillow itself turns a TIFF when it decodes it, whoever asks, and then drops the tag.
            image.load()
        lying = arguments["upright"] and _lies(image)
        return {"size": image.size[::-1] if lying else image.size}


def _lies(image: Image.Image) -> bool:
    """Whether its rotation tag asks for a quarter turn."""
    return image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS


_JOBS: dict[str, Callable[[dict[str, Any], Source, str], Image.Image | dict[str, Any]]] = {
    "rgb": _rgb,
    "rgba": _rgba,
    "indices": _indices,
    "size": _size,
}
