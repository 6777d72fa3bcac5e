"""Workers that are processes of this machine, started anew (spawn) and told what to do through pipes."""

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from clarp.allocation import keep_freed_memory
from clarp.background import cores
from clarp.errors import EmptyMap, RelevanceLost
from clarp.evaluation.fingerprint import changes, differs
from clarp.evaluation.measuring import PartRows, RunPart
from clarp.evaluation.workers import Advance, Attempts, Floats32, Setup, WorkerSide
from clarp.models import Classifier

_ATTEMPTS = 2
_STILLBORN = 3
_SECONDS_TO_END = 10
_REMEDY = "Fewer workers need less memory (--workers), and a picture that is at fault can be taken out."
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Processes:
    """So many processes of this machine, each with the model and one part at a time.

    A process that dies costs its part, which another computes anew; a part that ends its process twice is
    given up, and named when all others are there.

    Attributes:
        load: makes the classifier in each process; it must pickle.
        count: of processes.
        devices: where to compute; the processes take them in turn.
        threads: of PyTorch in each process. They are in the run's fingerprint.
    """

    load: Callable[[], Classifier]
    count: int
    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1

    @contextmanager
    def started(self, setup: Setup, *, most: int) -> Iterator["ProcessCrew"]:
        """Start the processes, at most as many as there is work for, and end them with the context.

        Raises:
            ChildProcessError: they end while they load the model.
        """
        crew = ProcessCrew(self, setup, min(self.count, most))
        try:
            crew.begin()
            yield crew
        finally:
            crew.close()


class _Process:
    """One process: which part it computes, and how far it is."""

    def __init__(self, workers: Processes, setup: Setup, device: str) -> None:
        self.device, self.ready, self.done = device, False, 0
        self.part: RunPart | None = None
        self.connection, other = _SPAWN.Pipe()
        self.process = _SPAWN.Process(
            target=work,
            args=(other, workers.load, setup),
            kwargs={
                "device": device,
                "threads": workers.threads,
                "decoders": max(1, min(4, cores() // workers.count)),
            },
            name="clarp worker",
            daemon=True,
        )
        with _for_children(workers.threads):
            self.process.start()
        other.close()  # so that the end of the process is the end of the pipe

    @property
    def idle(self) -> bool:
        """Whether it waits for work."""
        return self.ready and self.part is None

    def give(self, part: RunPart, mean_image: Floats32 | None) -> bool:
        """Give it a part; whether it took it."""
        try:
            self.connection.send((part, mean_image))
        except OSError:
            return False
        self.part, self.done = part, 0
        return True

    def ended(self) -> str:
        """How it ended, in words."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        return f"signal {-code} ({signal.Signals(-code).name})"

    def end(self) -> None:
        """Let it go if it waits for work, else kill it."""
        self.connection.close()
        if self.idle:
            self.process.join(_SECONDS_TO_END)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class ProcessCrew:
    """The processes at work on a run."""

    def __init__(self, workers: Processes, setup: Setup, count: int) -> None:
        self._workers, self._setup = workers, setup
        self._devices = [workers.devices[number % len(workers.devices)] for number in range(count)]
        self._processes: list[_Process] = []
        self._stillborn = 0
        self.fingerprint: Mapping[str, Any] = {}

    def begin(self) -> None:
        """Start all, and wait for the first."""
        for device in self._devices:
            self._processes.append(_Process(self._workers, self._setup, device))
        while not self.fingerprint:
            for process in self._speaking():
                self._hear(process)

    def close(self) -> None:
        """End all."""
        for process in self._processes:
            process.end()

    def rows(
        self, parts: Iterable[RunPart], mean_image: Floats32 | None, advance: Advance
    ) -> Iterator[PartRows]:
        coming, waiting = iter(parts), deque[RunPart]()
        attempts, before = Attempts(_ATTEMPTS, _REMEDY), 0
        while True:
            waiting.extend(islice(coming, max(0, len(self._processes) - len(waiting))))
            for process in self._processes:
                if (
                    waiting
                    and process.ready
                    and process.part is None
                    and process.give(waiting[0], mean_image)
                ):
                    waiting.popleft()
            if not waiting and not any(process.part for process in self._processes):
                break
            for process in self._speaking():
                part = process.part
                heard = self._hear(process)
                if isinstance(heard, PartRows):
                    before += heard.stop - heard.start
                    yield heard
                elif isinstance(heard, str) and part is not None and attempts.again(part, heard):
                    waiting.appendleft(part)
            advance(before + sum(process.done for process in self._processes))
        attempts.check()

    def _speaking(self) -> list[_Process]:
        """Those that have something to say, or have ended; waits for the first."""
        found = wait([process.connection for process in self._processes])
        return [process for process in self._processes if process.connection in found]

    def _hear(self, process: _Process) -> PartRows | str | None:
        """The rows of a part, or how the process ended; another is in its place then.

        Raises:
            ValueError: it computes with something else than the first.
            Exception: what it met.
        """
        try:
            found = process.connection.recv()
        except (EOFError, OSError):
            return self._replaced(process)
        if isinstance(found, Exception):
            raise found
        if isinstance(found, int):
            process.done = found
        elif isinstance(found, PartRows):
            process.part, process.done = None, 0
            return found
        else:
            lines = changes(self.fingerprint or found, found)
            if lines:
                raise ValueError(differs("two workers compute with something else", lines))
            self.fingerprint, process.ready, self._stillborn = found, True, 0
        return None

    def _replaced(self, process: _Process) -> str:
        """How a process ended; another is started.

        Raises:
            ChildProcessError: one after the other ends before it has loaded the model.
        """
        reason = process.ended()
        if not process.ready:
            self._stillborn += 1
            if self._stillborn == _STILLBORN:
                raise ChildProcessError(
                    f"{_STILLBORN} workers one after the other ended while they loaded the model: {reason}. "
                    f"{_REMEDY} The same command goes on."
                )
        process.end()
        place = self._processes.index(process)
        self._processes[place] = _Process(self._workers, self._setup, process.device)
        return reason


@contextmanager
def _for_children(threads: int) -> Iterator[None]:
    """What a process that is started here inherits: its threads, and no Ctrl-C, which is the run's own."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read once by each library, when it is imported
    blocks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else set()
    try:
        yield
    finally:
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def work(
    connection: Connection,
    load: Callable[[], Classifier],
    setup: Setup,
    *,
    device: str,
    threads: int,
    decoders: int,
) -> None:
    """What a process does until the run's own closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # what a library prints is no answer of the command
    keep_freed_memory()
    silence_warnings()
    try:
        side = WorkerSide(load, setup, torch.device(device), threads, decoders=decoders)
        connection.send(side.fingerprint)
        while True:
            part, mean_image = connection.recv()
            connection.send(side.rows(part, mean_image, connection.send))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit()
    except Exception as error:  # noqa: BLE001  whatever it is, the run's own process raises it
        connection.send(portable(error))


def silence_warnings() -> None:
    """Leave it to the run's own process to warn: it hears of each method that lost relevance."""
    for kind in (RelevanceLost, EmptyMap):
        warnings.simplefilter("ignore", kind)


def portable(error: Exception) -> Exception:
    """The error with its traceback as a note, or if it doesn't pickle another with its words."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  an error's own code may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
