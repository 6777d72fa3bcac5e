"""Workers that are processes of this machine, started anew (spawn) and told what to do through pipes."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, Generic

import torch

from clarp.allocation import keep_freed_memory
from clarp.background import cores
from clarp.errors import EmptyMap, RelevanceLost
from clarp.interrupts import Interrupts
from clarp.workers.base import AbandonedPiece, Advance, Attempts, Crew, P, Piece, R, Work, WorkerPlace
from clarp.workers.fingerprint import changes, differs

_ATTEMPTS = 2
_STILLBORN = 3
_SECONDS_TO_END = 10
_SECONDS_TO_STOP = 60
_REMEDY = "Fewer workers need less memory (--workers), and a picture that is at fault can be taken out."
_SPAWN = multiprocessing.get_context("spawn")
_STOP = getattr(signal, "SIGUSR1", None)
"""What tells a process to stop a piece and give what there is of it; Windows has no such signal."""


@dataclass(frozen=True)
class Processes:
    """So many processes of this machine, each with the model and one piece at a time.

    A process that dies costs its piece, which another does anew; a piece that ends its process twice is given
    up.

    Attributes:
        count: of processes.
        devices: where to compute; the processes take them in turn.
        threads: of PyTorch in each process. They are in the fingerprint.
    """

    count: int
    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1

    @contextmanager
    def started(self, work: Work[P, R], *, most: int) -> Iterator[Crew[P, R]]:
        """Start the processes, at most as many as there is work for, and end them with the context.

        Raises:
            ChildProcessError: they end while they load the model.
        """
        crew = ProcessCrew(self, work, min(self.count, most))
        try:
            crew.begin()
            yield crew
        finally:
            crew.close()

    def place(self, device: str) -> WorkerPlace:
        """What one of them computes with."""
        return WorkerPlace(torch.device(device), self.threads, max(1, min(4, cores() // self.count)))


class _Process(Generic[P, R]):
    """One process: which piece it does, and how far it is."""

    def __init__(self, workers: Processes, work: Work[P, R], device: str) -> None:
        self.device, self.ready, self.done = device, False, 0
        self.piece: P | None = None
        self.connection, other = _SPAWN.Pipe()
        self.process = _SPAWN.Process(
            target=serve, args=(other, work, workers.place(device)), name="clarp worker", daemon=True
        )
        with _for_children(workers.threads):
            self.process.start()
        other.close()  # so that the end of the process is the end of the pipe

    @property
    def idle(self) -> bool:
        """Whether it waits for work."""
        return self.ready and self.piece is None

    def give(self, piece: P, shared: Any) -> bool:
        """Give it a piece; whether it took it."""
        try:
            self.connection.send((piece, shared))
        except OSError:
            return False
        self.piece, self.done = piece, 0
        return True

    def stop(self) -> None:
        """Tell it to give what there is of its piece."""
        if _STOP is not None and self.process.is_alive():
            os.kill(self.process.pid or 0, _STOP)

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


@dataclass(frozen=True)
class _Ready:
    """A process has loaded the model, and waits for work."""

    fingerprint: Mapping[str, Any]


@dataclass(frozen=True)
class _Result(Generic[R]):
    """What came of a piece."""

    value: R


class ProcessCrew(Crew[P, R]):
    """The processes at work."""

    def __init__(self, workers: Processes, work: Work[P, R], count: int) -> None:
        self._workers, self._work = workers, work
        self._devices = [workers.devices[number % len(workers.devices)] for number in range(count)]
        self._processes: list[_Process[P, R]] = []
        self._stillborn = 0
        self.fingerprint = {}

    def begin(self) -> None:
        """Start all, and wait for the first."""
        for device in self._devices:
            self._processes.append(_Process(self._workers, self._work, device))
        while not self.fingerprint:
            for process in self._speaking(self._processes):
                self._hear(process)

    def close(self) -> None:
        """End all."""
        for process in self._processes:
            process.end()

    def results(self, pieces: Iterable[P], shared: Any, advance: Advance) -> Iterator[R | AbandonedPiece[P]]:
        """As of :class:`~clarp.workers.base.Crew`, with its errors."""
        coming, waiting = iter(pieces), deque[P]()
        attempts, before = Attempts[P](_ATTEMPTS, _REMEDY, self._work.after), 0
        with Interrupts(signal.SIGINT) as interrupts:
            while True:
                waiting.extend(islice(coming, max(0, len(self._processes) - len(waiting))))
                for process in self._processes:
                    if waiting and process.idle and process.give(waiting[0], shared):
                        waiting.popleft()
                if not waiting and all(process.piece is None for process in self._processes):
                    break
                with interrupts.allowed():
                    speaking = self._speaking(self._processes)
                for process in speaking:
                    piece = process.piece
                    heard = self._hear(process)
                    if isinstance(heard, _Result):
                        attempts.found()
                        before += 0 if piece is None else piece.stop - piece.start
                        yield heard.value
                    elif heard is not None and piece is not None:
                        lost = attempts.ended(piece, heard)
                        if lost is None:
                            waiting.appendleft(piece)
                        else:
                            before += piece.stop - piece.start
                            yield lost
                advance(before + sum(process.done for process in self._processes))

    def stopped(self) -> Iterator[R]:
        """As of :class:`~clarp.workers.base.Crew`: a minute is left for what was explained to be written."""
        busy = [process for process in self._processes if process.piece is not None]
        for process in busy:
            process.stop()
        until = time.monotonic() + _SECONDS_TO_STOP
        with Interrupts(signal.SIGINT) as interrupts:
            while busy and (left := until - time.monotonic()) > 0:
                with interrupts.allowed():
                    speaking = self._speaking(busy, left)
                for process in speaking:
                    found = process_said(process.connection)
                    if isinstance(found, int):
                        continue
                    busy.remove(process)
                    if isinstance(found, _Result):
                        process.piece = None
                        yield found.value

    def _speaking(
        self, processes: list[_Process[P, R]], seconds: float | None = None
    ) -> list[_Process[P, R]]:
        """Those that have something to say, or have ended; waits for the first."""
        found = wait([process.connection for process in processes], seconds)
        return [process for process in processes if process.connection in found]

    def _hear(self, process: _Process[P, R]) -> _Result[R] | str | None:
        """The result of a piece, or how the process ended; another is in its place then.

        Raises:
            ValueError: it computes with something else than the first.
            Exception: what it met.
        """
        found = process_said(process.connection)
        if found is None:
            return self._replaced(process)
        if isinstance(found, Exception):
            raise found
        if isinstance(found, int):
            process.done = found
        elif isinstance(found, _Ready):
            lines = changes(self.fingerprint or found.fingerprint, found.fingerprint)
            if lines:
                raise ValueError(differs("two workers compute with something else", lines))
            self.fingerprint, process.ready, self._stillborn = found.fingerprint, True, 0
        else:
            process.piece, process.done = None, 0
            return found
        return None

    def _replaced(self, process: _Process[P, R]) -> str:
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
                    f"{_REMEDY} {self._work.after}"
                )
        process.end()
        place = self._processes.index(process)
        self._processes[place] = _Process(self._workers, self._work, process.device)
        return reason


def process_said(connection: Connection) -> Any:
    """The next message; None: the process has ended."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None


@contextmanager
def _for_children(threads: int) -> Iterator[None]:
    """What a process that is started here inherits: its threads, and no Ctrl-C, which is for the command."""
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


def serve(connection: Connection, work: Work[Piece, Any], place: WorkerPlace) -> None:
    """What a process does until the command's own closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # what a library prints is no answer of the command
    keep_freed_memory()
    silence_warnings()
    settle(place)
    try:
        with Interrupts(_STOP or signal.SIGTERM) as interrupts:

            def told(done: int) -> None:
                with interrupts.held():
                    connection.send(done)

            loaded = work.loaded(place)
            connection.send(_Ready(loaded.fingerprint))
            while True:
                piece, shared = connection.recv()
                with interrupts.allowed():
                    found = loaded.done(piece, shared, told)
                connection.send(_Result(found))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        sys.exit()
    except Exception as error:  # noqa: BLE001  whatever it is, the command's own process raises it
        connection.send(portable(error))


def settle(place: WorkerPlace) -> None:
    """Compute with these threads, and on this GPU, from now on."""
    torch.set_num_threads(place.threads)
    if place.device.type == "cuda":
        torch.cuda.set_device(place.device)


def silence_warnings() -> None:
    """Leave it to the command's own process to warn: it is told of all relevance that was lost."""
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
