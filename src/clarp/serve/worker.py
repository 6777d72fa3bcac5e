"""One thread per model, and a bounded queue before it: two at once would only be slower."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Lock
from types import TracebackType
from typing import Any, Self, TypeVar

Result = TypeVar("Result")


class Busy(Exception):  # noqa: N818  nothing went wrong
    """The queue is full.

    Attributes:
        seconds: after which a place should be free.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full, expected a free place in {seconds} s.")
        self.seconds = seconds


class Worker:
    """Runs one job after the other in a thread of its own.

    Args:
        name: of the thread.
        waiting: so many may wait besides the one that runs.
    """

    def __init__(self, name: str, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._places = waiting + 1
        self._taken = 0
        self._usual = 0.5  # seconds a job takes, a running mean
        self._lock = Lock()

    @property
    def taken(self) -> int:
        """How many places are taken now."""
        return self._taken

    def place(self) -> "Place":
        """Take a place in the queue, for one job; use it in a ``with`` statement.

        Raises:
            Busy: there is none.
        """
        with self._lock:
            self.check()
            self._taken += 1
        return Place(self)

    def check(self) -> None:
        """See whether there is a place.

        Raises:
            Busy: there is none.
        """
        if self._taken >= self._places:
            raise Busy(max(1, math.ceil(self._taken * self._usual)))

    def close(self) -> None:
        """Finish the job that runs, and drop those that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def submit(self, job: Callable[[], Result]) -> "Future[Result]":
        """Run a job when its turn comes."""

        def timed() -> Result:
            began = time.monotonic()
            try:
                return job()
            finally:
                self._usual += 0.1 * (time.monotonic() - began - self._usual)

        return self._pool.submit(timed)

    def leave(self) -> None:
        """Free a place."""
        with self._lock:
            self._taken -= 1


class Place:
    """A place in a worker's queue.

    Leaving it takes a waiting job out of the queue, with all that it holds. A job that already runs goes on
    until it looks at ``given_up``, and the place is free when it ends.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._job: Callable[[], Any] | None = None
        self._future: Future[Any] | None = None
        self._given_up = Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given_up.set()
        self._job = None  # the pool keeps a cancelled job until its turn; what it holds shall go now
        if self._future is None:
            self._worker.leave()
            return
        self._future.cancel()
        self._future.add_done_callback(lambda _: self._worker.leave())

    def given_up(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self._given_up.is_set()

    async def run(self, job: Callable[[], Result], hung_up: "asyncio.Task[None]", seconds: float) -> Result:
        """The job's result.

        Args:
            job: is called in the worker's thread.
            hung_up: ends when nobody wants the result any more.
            seconds: after which nobody waits any longer.

        Raises:
            ConnectionAbortedError: hung up.
            TimeoutError: it took too long.
        """
        self._job = job
        self._future = self._worker.submit(self._run)
        result: asyncio.Future[Result] = asyncio.wrap_future(self._future)
        waiting: set[asyncio.Future[Any]] = {result, hung_up}
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            if hung_up.done():
                raise ConnectionAbortedError
            raise TimeoutError
        finally:
            result.cancel()

    def _run(self) -> Any:
        job, self._job = self._job, None
        assert job is not None
        return job()
