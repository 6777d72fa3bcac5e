import asyncio
import gc
import threading
import weakref
from types import SimpleNamespace

import pytest

from clarp.serve import worker as worker_module
from clarp.serve.worker import Busy, Worker
from serve.servers import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def worker():
    found = Worker("test", 2)
    yield found
    found.close()


def never():
    return asyncio.ensure_future(asyncio.Event().wait())


async def test_free(worker):
    with worker.place() as place:
        assert await place.run(lambda: threading.current_thread().name, never(), 5) == "test_0"
    assert worker.taken == 0


async def test_jobs_run_one_after_the_other(worker):
    running, most = 0, 0

    def job():
        nonlocal running, most
        running += 1
        most = max(most, running)
        threading.Event().wait(0.02)
        running -= 1

    async def one():
        with worker.place() as place:
            await place.run(job, never(), 5)

    await asyncio.gather(one(), one(), one())
    assert most == 1


async def test_errors_come_back(worker):
    with pytest.raises(ValueError, match="of the job"), worker.place() as place:
        await place.run(fails, never(), 5)
    assert worker.taken == 0


def fails():
    raise ValueError("of the job")


def test_full(worker):
    places = [worker.place() for _ in range(3)]
    with pytest.raises(Busy) as error:
        worker.place()
    assert error.value.seconds >= 1
    with places[0]:
        pass
    worker.place()


def test_who_is_refused_hears_when_a_place_should_be_free(worker, monkeypatch):
    """A running mean of what jobs took, for each place that is taken."""
    for _ in range(3):
        worker.place()
    with pytest.raises(Busy) as error:
        worker.check()
    assert error.value.seconds == 2  # 3 x 0.5
    readings = iter([100.0, 110.5])
    monkeypatch.setattr(worker_module, "time", SimpleNamespace(monotonic=lambda: next(readings)))
    worker.submit(lambda: None).result(10)
    with pytest.raises(Busy) as error:
        worker.check()
    assert error.value.seconds == 5  # 3 x (0.5 + 0.1 (10.5 - 0.5))


async def test_who_gives_up_leaves_the_queue_with_all_that_the_job_holds(worker):
    go, ran = threading.Event(), []

    class Heavy:
        pass

    async def first():
        with worker.place() as place:
            return await place.run(lambda: go.wait(10), never(), 10)

    async def second(gone):
        heavy = Heavy()
        held.append(weakref.ref(heavy))
        with worker.place() as place:
            await place.run(lambda: ran.append(heavy), gone, 10)

    held = []
    gone = asyncio.Event()
    runs = asyncio.ensure_future(first())
    waits = asyncio.ensure_future(second(asyncio.ensure_future(gone.wait())))
    await asyncio.sleep(0.05)
    assert worker.taken == 2
    gone.set()
    await asyncio.wait({waits})
    kind = type(waits.exception())  # not the error: its traceback holds the frames
    assert kind is ConnectionAbortedError
    assert worker.taken == 1
    del waits
    gc.collect()
    assert held[0]() is None
    go.set()
    assert await runs
    assert ran == []


async def test_a_job_that_runs_keeps_its_place_until_it_looks_up(worker):
    began, free = threading.Event(), threading.Event()

    def job(place):
        began.set()
        while not place.given_up():
            threading.Event().wait(0.01)
        free.wait(10)

    with pytest.raises(TimeoutError), worker.place() as place:
        await place.run(lambda: job(place), never(), 0.1)
    assert began.is_set()
    assert worker.taken == 1
    free.set()
    until(lambda: worker.taken == 0)
