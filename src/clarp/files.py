"""File names, and atomic writing of files."""

import hashlib
import os
import re
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


def slug(label: str) -> str:
    """A label as part of a file name, of at most 60 bytes.

    >>> slug("Crock Pot")
    'crock-pot'
    """
    return shortened("-".join(re.findall(r"\w+", label.lower()))[:40], 60) or "class"


def shortened(text: str, most: int) -> str:
    """The beginning of a text with at most so many bytes in UTF-8; file systems allow 255 for a name.

    >>> shortened("樹樹", 4)
    '樹'
    """
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def kind(mode: int) -> str:
    """The kind of file of a mode of ``stat``, in words.

    >>> kind(Path("/").stat().st_mode)
    'a folder'
    """
    return next((words for is_one, words in _KINDS if is_one(mode)), "something unknown")


def read_regular(path: Path, most: int, *, own: bool = False) -> bytes:
    """The content of a regular file; pipes and devices, which may never end, are refused.

    Args:
        path: the file.
        most: bytes; it may not have more.
        own: it must be no link, the user's own, and writable by nobody else.

    Raises:
        OSError: it is missing, unreadable, not a regular file, too large, or not the user's own.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if own:
        flags |= getattr(os, "O_NOFOLLOW", 0)
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
        if own and hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
            raise OSError(
                f"{path}: somebody else's, or writable for others, where the user's own file was expected"
            )
        if found.st_size > most:
            raise OSError(f"{path}: {found.st_size:,} bytes, expected at most {most:,}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def write_summed(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """As :func:`write_atomically`, with a checksum beside the file, as ``sha256sum`` writes it.

    The checksum is written last: a new file with an old checksum counts as damaged.
    """
    write_atomically(path, write)
    line = f"{file_sha256(path)}  {path.name}\n"
    write_atomically(_sum_of(path), lambda file: file.write(line.encode()))


def whole(path: Path) -> bool:
    """Whether a file has the bytes that :func:`write_summed` wrote.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a"
    ...     write_summed(path, lambda file: file.write(b"abc"))
    ...     before = whole(path)
    ...     _ = path.write_bytes(b"abb")
    ...     before, whole(path)
    (True, False)
    """
    try:
        return _sum_of(path).read_text(encoding="utf-8", errors="replace").partition(" ")[0] == file_sha256(
            path
        )
    except OSError:
        return False


def has_sum(path: Path) -> bool:
    """Whether there is a checksum beside a file."""
    return _sum_of(path).exists()


def _sum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits.

    Raises:
        OSError: it is missing or unreadable.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_NO_DEVICE = 6
"""ENXIO, which opening a socket gives."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, private: bool = False) -> None:
    """Write a file completely, or leave what was there before.

    The bytes go to a temporary name in the same folder, reach the disk, and are then renamed.

    Args:
        path: the file to make or to replace; its folder must exist.
        write: gets the open binary file and writes everything to it.
        private: nobody but the user may read it.

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
            if private:
                temporary.chmod(0o600)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
