"""A setting of the memory allocator for freed memory."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_KEPT = 1 << 30  # bytes
_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next tensors.

    Programs call it once at their start; libraries must not.

    By default glibc returns every tensor of more than 32 MiB to the system when it is freed, and the system
    clears the pages of the next one: a third of the time of a batch of explanations (docs/performance.md).
    The process stays as large as it was at most.

    Returns:
        Whether it was set: not under another C library or allocator, nor where the user's environment has
        settings of its own.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_KEPT - 1))
