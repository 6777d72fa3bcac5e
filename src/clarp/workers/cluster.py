"""Workers that are tasks of a Ray cluster, one task for each piece of work.

Tasks keep no state that the work needs: a process of the cluster loads the model for its first piece and
keeps it for the next. What is lost with a process or a machine is the piece that it did.
"""

import os
import signal
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic

import numpy as np
import torch

from clarp.allocation import keep_freed_memory
from clarp.interrupts import Interrupts
from clarp.optional import optional
from clarp.workers.base import (
    AbandonedPiece,
    Advance,
    Attempts,
    Crew,
    LoadedWork,
    P,
    Piece,
    R,
    Work,
    WorkerPlace,
)
from clarp.workers.fingerprint import changes, differs
from clarp.workers.processes import portable, settle, silence_warnings

_ATTEMPTS = 5
_REMEDY = (
    "Larger machines or more GPU for each worker (--gpus-per-worker) give it more memory, and a picture "
    "that is at fault can be taken out."
)
_IN_FLIGHT = 2
_SECONDS_TO_ANSWER = 10
_SECONDS_TO_STOP = 60


@dataclass(frozen=True)
class RayTasks:
    """The processes of a Ray cluster, which do a piece at a time.

    A piece whose process dies is done anew, at most five times; a machine that is lost is no fault of the
    piece. No more than twice as many pieces as the cluster has room for are given to it at once, so its
    memory and what a kill costs stay small. What the work names, files above all, must be on every machine.

    Attributes:
        address: of the cluster: ``auto`` (the one that this machine belongs to), ``ray://HOST:PORT``, or
            None: ``RAY_ADDRESS``, or else a cluster of this machine alone, which ends with the command.
        count: at most so many pieces at once; None: as many as there is room for.
        threads: of PyTorch for each piece, and CPUs that Ray reserves for it.
        gpus: that Ray reserves for a piece, such as 0.5; 0: pieces are done on the CPU; None: one where the
            cluster has any.
    """

    address: str | None = None
    count: int | None = None
    threads: int = 1
    gpus: float | None = None

    @contextmanager
    def started(self, work: Work[P, R], *, most: int) -> Iterator[Crew[P, R]]:
        """Connect to the cluster, and leave it with the context; what it does then is cancelled.

        Raises:
            ModuleNotFoundError: Ray is not installed.
            ValueError: there is no cluster at the address, or none that could ever do a piece.
        """
        del most  # Ray starts processes as tasks come
        ray = optional("ray", "--engine ray", extra="ray")
        connected = ray.is_initialized()
        if not connected:
            _connect(ray, self.address)
        try:
            crew = RayCrew(ray, self, work)
            try:
                crew.begin()
                yield crew
            finally:
                crew.close()
        finally:
            if not connected:
                ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    # Ray has no passwords: a cluster that is started here listens to this machine only.
    own = {"_node_ip_address": "127.0.0.1"} if where == "local" else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nor does it report to its makers
    try:
        _check_answers(_known_to_ray(ray, where) if where == "auto" else where)
        ray.init(where, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ValueError(
            f"no Ray cluster answers at {where!r}: {_first_line(error)}. Start one (`ray start --head`), or "
            "leave out --address, and clarp starts one on this machine."
        ) from error


def _known_to_ray(ray: Any, address: str) -> str:
    """What Ray takes for the cluster of this machine: HOST:PORT, of a cluster that may have ended long ago.

    Raises:
        ConnectionError: it knows of none.
    """
    services = getattr(getattr(ray, "_private", None), "services", None)
    found = getattr(services, "canonicalize_bootstrap_address", None)
    # It is no public function; without it Ray looks for itself, and tries for minutes.
    return address if found is None else str(found(address))


def _check_answers(address: str) -> None:
    """Ask for a connection, for Ray tries for minutes.

    Raises:
        OSError: nobody answers at HOST:PORT.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


@dataclass(frozen=True)
class _Ended:
    """A task without a result: how its process ended; None: with its machine, or as it was told."""

    reason: str | None = None


class RayCrew(Crew[P, R]):
    """A cluster at work."""

    def __init__(self, ray: Any, workers: RayTasks, work: Work[P, R]) -> None:
        self._ray, self._after = ray, work.after
        gpus = float("GPU" in ray.cluster_resources()) if workers.gpus is None else workers.gpus
        self._count, self._needs = workers.count, {"CPU": float(workers.threads), "GPU": gpus}
        self._job = _Job(work, workers.threads, gpu=gpus > 0)
        options = {
            "num_cpus": workers.threads,
            "num_gpus": gpus,
            "max_retries": 0,  # attempts are counted here
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(workers.threads)}},
        }
        self._hello = ray.remote(_fingerprint).options(**options)
        self._compute = ray.remote(_done).options(**options)
        self._running: dict[Any, P] = {}
        self.fingerprint = {}

    def begin(self) -> None:
        """Wait for the first worker's model."""
        self._check_room()
        attempts = 0
        while not self.fingerprint:
            try:
                self.fingerprint = self._ray.get(self._hello.remote(self._job))
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            except self._ray.exceptions.RayError as error:
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise ChildProcessError(
                        f"{attempts} workers one after the other ended while they loaded the model: "
                        f"{_first_line(error)}. {_REMEDY} {self._after}"
                    ) from error

    def _check_room(self) -> None:
        """Refuse pieces that no machine can take, for Ray would wait for a larger one without a word."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(machine.get(kind, 0) >= n for kind, n in self._needs.items()) for machine in machines):
            has = "; ".join(
                f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines
            )
            cpus, gpus = self._needs.values()
            raise ValueError(
                f"a worker needs {cpus:g} CPUs and {gpus:g} GPUs of one machine, and those of the cluster "
                f"have {has}. Set OMP_NUM_THREADS or --gpus-per-worker to less."
            )

    def close(self) -> None:
        """Cancel what is not needed any more."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()

    def results(self, pieces: Iterable[P], shared: Any, advance: Advance) -> Iterator[R | AbandonedPiece[P]]:
        """As of :class:`~clarp.workers.base.Crew`, with its errors."""
        coming, waiting = iter(pieces), deque[P]()
        attempts, done = Attempts[P](_ATTEMPTS, _REMEDY, self._after), 0
        held = None if shared is None else self._ray.put(shared)
        with Interrupts(signal.SIGINT) as interrupts:
            while True:
                free = self._room() - len(self._running)
                waiting.extend(islice(coming, max(0, free - len(waiting))))
                while waiting and free > 0:
                    self._give(waiting.popleft(), held)
                    free -= 1
                if not self._running:
                    break
                with interrupts.allowed():
                    ready = self._ray.wait([*self._running], num_returns=1, timeout=None)[0]
                for task in ready:
                    piece = self._running.pop(task)
                    found = self._result(task)
                    if not isinstance(found, _Ended):
                        attempts.found()
                        done += piece.stop - piece.start
                        yield found
                    elif found.reason is None:
                        waiting.appendleft(piece)
                    else:
                        lost = attempts.ended(piece, found.reason)
                        if lost is None:
                            waiting.appendleft(piece)
                        else:
                            done += piece.stop - piece.start
                            yield lost
                    advance(done)

    def stopped(self) -> Iterator[R]:
        """As of :class:`~clarp.workers.base.Crew`: a minute is left for what was explained to be written."""
        for task in self._running:
            self._ray.cancel(task, force=False)  # KeyboardInterrupt, where it is begun
        until = time.monotonic() + _SECONDS_TO_STOP
        with Interrupts(signal.SIGINT) as interrupts:
            while self._running and (left := until - time.monotonic()) > 0:
                with interrupts.allowed():
                    ready = self._ray.wait([*self._running], num_returns=1, timeout=left)[0]
                for task in ready:
                    del self._running[task]
                    try:
                        found = self._result(task)
                    except Exception:  # noqa: BLE001, S112  of what was told to stop, only what it has counts
                        continue
                    if not isinstance(found, _Ended):
                        yield found

    def _room(self) -> int:
        """How many pieces may be with the cluster: it may grow and shrink meanwhile."""
        if self._count is not None:
            return self._count
        total = self._ray.cluster_resources()
        room = min(int(total.get(kind, 0) / amount) for kind, amount in self._needs.items() if amount)
        return max(1, _IN_FLIGHT * room)

    def _give(self, piece: P, shared: Any) -> None:
        self._running[self._compute.remote(self._job, piece, self.fingerprint, shared)] = piece

    def _result(self, task: Any) -> R | _Ended:
        """What came of a piece.

        Raises:
            Exception: what the worker met.
        """
        kinds = self._ray.exceptions
        try:
            found: R = self._ray.get(task)
        except kinds.RayTaskError as error:
            raise _cause(error) from None
        except (kinds.WorkerCrashedError, kinds.OutOfMemoryError) as error:
            return _Ended(_first_line(error))
        except kinds.RayError:  # of a machine: NodeDiedError, ObjectLostError, LocalRayletDiedError
            return _Ended()
        return found


def _cause(error: Any) -> Exception:
    cause = error.cause
    return cause if isinstance(cause, Exception) else RuntimeError(str(cause))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


@dataclass(frozen=True, eq=False)
class _Job(Generic[P, R]):
    """What a process needs before its first piece."""

    work: Work[P, R]
    threads: int
    gpu: bool
    folder: str = field(default_factory=os.getcwd)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


_loaded: dict[str, LoadedWork[Any, Any]] = {}
"""In a process of the cluster: the work that it does, by the job's key."""


def _work(job: _Job[P, R]) -> LoadedWork[P, R]:
    if job.key not in _loaded:
        _loaded.clear()
        keep_freed_memory()
        silence_warnings()
        with suppress(OSError):  # relative paths are of this folder, where the machine has it
            os.chdir(job.folder)
        place = WorkerPlace(
            torch.device("cuda:0" if job.gpu else "cpu"), job.threads, helpers=1, machine=socket.gethostname()
        )
        settle(place)
        _loaded[job.key] = job.work.loaded(place)
    return _loaded[job.key]


@contextmanager
def _portably() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  whatever it is, the command's own process raises it
        raise portable(error) from None


def _fingerprint(job: _Job[Piece, Any]) -> Mapping[str, Any]:
    """Task: what this process computes with."""
    with _portably():
        return _work(job).fingerprint


def _done(job: _Job[P, R], piece: P, expected: Mapping[str, Any], shared: Any) -> R:
    """Task: what comes of a piece."""
    with _portably():
        work, host = _work(job), socket.gethostname()
        lines = changes(expected, work.fingerprint)
        if lines:
            raise ValueError(
                differs(f"a worker on {host} computes with something else than the first", lines)
            )
        # Ray's arrays are read-only.
        own = np.array(shared) if isinstance(shared, np.ndarray) else shared
        return work.done(piece, own, lambda _: None)
