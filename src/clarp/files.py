"""Writing files so that nobody ever reads half of one."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISREG, S_ISSOCK
from typing import BinaryIO

_KINDS = (
    (S_ISREG, "a file"),
    (S_ISDIR, "a folder"),
    (S_ISFIFO, "a named pipe"),
    (S_ISSOCK, "a socket"),
    (S_ISCHR, "a device"),
    (S_ISBLK, "a device"),
)


def kind(mode: int) -> str:
    """What a mode of ``stat`` is of, in words.

    >>> kind(Path("/").stat().st_mode)
    'a folder'
    """
    return next((words for is_one, words in _KINDS if is_one(mode)), "something unknown")


def read_regular(path: Path, most: int) -> bytes:
    """A file's content, if it is a file of bytes on a disk: nobody waits for a pipe, or reads a device to its end.

    Args:
        path: the file.
        most: bytes; it may not have more.

    Raises:
        OSError: it is missing, can't be read, is none, or is too large.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == _NO_DEVICE:
            raise OSError(f"{path}: a socket, where a file was expected") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not S_ISREG(found.st_mode):
            raise OSError(f"{path}: {kind(found.st_mode)}, where a file was expected")
        if found.st_size > most:
            raise OSError(f"{path}: {found.st_size:,} bytes, expected at most {most:,}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


_NO_DEVICE = 6
"""ENXIO, which opening a socket gives."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file completely, or leave what was there before.

    The bytes go to a temporary name in the same folder, reach the disk, and are then renamed.

    Args:
        path: the file to make or to replace; its folder must exist.
        write: gets the open binary file and writes everything to it.

    Raises:
        OSError: the folder is missing or can't be written to. Whatever ``write`` raises passes through.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "a.txt", lambda file: file.write(b"whole"))
    ...     (Path(folder) / "a.txt").read_text()
    'whole'
    """
    # Not tempfile: its files are readable by their owner only, and the rename would keep that.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
