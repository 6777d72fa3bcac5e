"""Work in the background: in order, bounded, and what is kept and what is dropped when it ends early."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from clarp.background import ahead, behind, cores


class Items:
    """Counts how many of 100 items were taken, and how many of these are done with."""

    def __init__(self) -> None:
        self.taken = self.done = self.most = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(100):
            self.taken += 1
            self.most = max(self.most, self.taken - self.done)
            yield number


@pytest.mark.parametrize("run", [ahead, behind])
def test_in_order_whatever_takes_longest(run) -> None:
    def slow(number: int) -> int:
        time.sleep(0.02 * (number % 3 == 0))
        return -number

    assert list(run(slow, range(12), most=5, workers=4)) == [-number for number in range(12)]
    assert list(run(abs, [], most=5)) == []


@pytest.mark.parametrize("run", [ahead, behind])
def test_no_more_than_so_many_at_once(run) -> None:
    items = Items()
    for _ in run(abs, items, most=4, workers=2):
        items.done += 1
    assert items.taken == items.done == 100
    assert items.most <= 4 + 1  # and the one that is taken to be worked on next


def test_ahead_works_while_nobody_asks() -> None:
    begun = []
    results = ahead(begun.append, range(9), most=5, workers=1)
    next(results)
    time.sleep(0.05)
    assert begun == [0, 1, 2, 3, 4]
    assert len(list(results)) == 8
    assert begun == list(range(9))


def test_behind_hands_on_what_is_done_before_there_is_no_more_room() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(3):
            taken.append(number)
            yield number
            time.sleep(0.05)

    told = [(result, len(taken)) for result in behind(abs, items(), most=50, workers=1)]
    assert [result for result, _ in told] == [0, 1, 2]
    assert told[0][1] < 3


def test_what_was_taken_from_dear_items_is_worked_on_whatever_ends_it() -> None:
    done = []

    def slow(number: int) -> None:
        time.sleep(0.01)
        done.append(number)

    def items() -> Iterator[int]:
        yield from range(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(behind(slow, items(), most=50, workers=1))
    assert done == [0, 1, 2, 3, 4]


def test_what_was_read_ahead_is_dropped_and_nobody_waits() -> None:
    gate, begun = threading.Event(), []

    def stuck(number: int) -> None:
        begun.append(number)
        if number:
            gate.wait(10)

    results = ahead(stuck, range(9), most=5, workers=1)
    next(results)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 5
    gate.set()
    time.sleep(0.05)
    assert begun in ([0], [0, 1])


@pytest.mark.parametrize("run", [ahead, behind])
def test_an_error_reaches_whoever_takes_the_result(run) -> None:
    def halve(number: int) -> float:
        return 1 / (2 - number)

    results = run(halve, range(5), most=2)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_cores_are_those_that_this_process_may_use() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
