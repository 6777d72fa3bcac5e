"""Work in threads, with results in the order of the items and a bound on items in progress."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from torch import Tensor


class Imaged(Protocol):
    """Something with a preprocessed image (C, H, W)."""

    @property
    def image(self) -> Tensor:
        """(C, H, W)."""
        ...


Item = TypeVar("Item")
Result = TypeVar("Result")
One = TypeVar("One", bound=Imaged)


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, most: int, workers: int | None = None
) -> Generator[Result, None, None]:
    """``map`` in the items' order, some items ahead of the consumer.

    If it ends early (an error, ``close()``), items that have not begun are dropped, and the others are not
    waited for.

    Args:
        work: done in a thread.
        items: taken as they are needed.
        most: how many are in progress or wait to be taken, at most.
        workers: how many threads; None: one for each processor, at most 4.

    >>> list(ahead(abs, [-1, 2, -3], most=2))
    [1, 2, 3]
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers or min(4, cores()))
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def behind(
    work: Callable[[Item], Result], items: Iterable[Item], *, most: int, workers: int | None = None
) -> Generator[Result, None, None]:
    """``map`` in the items' order, while the next items are made: for costly items, such as explanations.

    Each result is yielded as soon as it and those before it are there. If it ends early, the work on every
    item that was taken is still done.

    Args:
        work: done in a thread.
        items: the next is taken when there is room for it.
        most: how many are in progress or wait to be yielded, at most.
        workers: how many threads; None: one for each processor.

    >>> list(behind(abs, [-1, 2, -3], most=2))
    [1, 2, 3]
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers or cores()) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            while waiting and (len(waiting) >= most or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def batches(units: Iterable[One], size: int) -> Iterator[list[One]]:
    """Units in their order, at most ``size`` together, and only images of one shape."""
    batch: list[One] = []
    for unit in units:
        if batch and (len(batch) == size or batch[0].image.shape != unit.image.shape):
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch
