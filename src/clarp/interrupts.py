"""A signal that interrupts where nothing is lost by it, and waits everywhere else."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """While it is entered, a signal raises :class:`KeyboardInterrupt` only where that is allowed.

    One that comes elsewhere is raised where it is next allowed, at the latest at the end. A second one is
    raised at once. In a thread that is not the main one nothing changes, because Python handles signals in
    the main one.

    Args:
        number: of the signal, such as ``signal.SIGINT``, which is Ctrl-C.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._allowed, self._came = False, False
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._main:
            self._before = signal.signal(self._number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._main:
            signal.signal(self._number, signal.SIG_DFL if self._before is None else self._before)
        if self._came and kind is None:
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Where it may be raised.

        Raises:
            KeyboardInterrupt: the signal came, now or before.
        """
        with self._set(allowed=True):
            if self._came:
                self._came = False
                raise KeyboardInterrupt
            yield

    @contextmanager
    def held(self) -> Iterator[None]:
        """Where it may not, within what :meth:`allowed` it."""
        with self._set(allowed=False):
            yield
        if self._came and self._allowed:
            self._came = False
            raise KeyboardInterrupt

    @contextmanager
    def _set(self, *, allowed: bool) -> Iterator[None]:
        before, self._allowed = self._allowed, allowed
        try:
            yield
        finally:
            self._allowed = before

    def _handle(self, _: int, __: FrameType | None) -> None:
        if self._allowed or self._came:
            self._came = False
            raise KeyboardInterrupt
        self._came = True
