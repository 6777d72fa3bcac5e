"""Names of files, and writing them so that nobody ever reads half of one."""

import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def slug(label: str) -> str:
    """A label as part of a file name.

    >>> slug("Crock Pot")
    'crock-pot'
    """
    return "-".join(re.findall(r"\w+", label.lower()))[:40] or "class"


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
