"""What the words of options mean, and what every command does before it imports PyTorch."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarp.task import TaskName


def checked_task(name: str | None) -> "TaskName | None":
    """What was given as ``--task``.

    Raises:
        ValueError: an unknown name.
    """
    from clarp import task

    return task.checked_task(name)


def listed(text: str | None) -> tuple[str, ...]:
    """The words of a text with commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


@contextmanager
def without_collection() -> Iterator[None]:
    """Without garbage collection, which takes a fifth of the time of importing PyTorch."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
