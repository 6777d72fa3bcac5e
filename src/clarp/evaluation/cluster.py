"""Workers that are tasks of a Ray cluster, one task for each part of a run.

Tasks keep no state that a run needs: a process of the cluster loads the model for its first part and keeps it
for the next. What is lost with a process or a machine is the part that it computed.
"""

import os
import socket
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch

from clarp.allocation import keep_freed_memory
from clarp.evaluation.fingerprint import changes, differs
from clarp.evaluation.measuring import PartRows, RunPart
from clarp.evaluation.processes import portable, silence_warnings
from clarp.evaluation.workers import Advance, Attempts, Floats32, Setup, WorkerSide
from clarp.models import Classifier
from clarp.optional import optional

_ATTEMPTS = 5
_REMEDY = (
    "Larger machines or more GPU for each worker (--gpus-per-worker) give a part more memory, and a picture "
    "that is at fault can be taken out."
)
_IN_FLIGHT = 2
_SECONDS_TO_ANSWER = 10


@dataclass(frozen=True)
class RayTasks:
    """The processes of a Ray cluster, which compute a part at a time.

    A part whose process dies is computed anew, at most five times; a machine that is lost is no fault of the
    part. No more than twice as many parts as the cluster has room for are given to it at once, so its memory
    and what a kill costs stay small.

    Attributes:
        load: makes the classifier in each process; it must pickle, and the files it names must be on every
            machine.
        address: of the cluster: ``auto`` (the one that this machine belongs to), ``ray://HOST:PORT``, or
            None: ``RAY_ADDRESS``, or else a cluster of this machine alone, which ends with the run.
        count: at most so many parts at once; None: as many as there is room for.
        threads: of PyTorch for each part, and CPUs that Ray reserves for it.
        gpus: that Ray reserves for a part, such as 0.5; 0: parts are computed on the CPU; None: one where the
            cluster has any.
    """

    load: Callable[[], Classifier]
    address: str | None = None
    count: int | None = None
    threads: int = 1
    gpus: float | None = None

    @contextmanager
    def started(self, setup: Setup, *, most: int) -> Iterator["RayCrew"]:
        """Connect to the cluster, and leave it with the context; what it computes then is cancelled.

        Raises:
            ModuleNotFoundError: Ray is not installed.
            ValueError: there is no cluster at the address, or none that could ever run a part.
        """
        del most  # Ray starts processes as tasks come
        ray = optional("ray", "--engine ray", extra="ray")
        connected = ray.is_initialized()
        if not connected:
            _connect(ray, self.address)
        try:
            crew = RayCrew(ray, self, setup)
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
        _check_answers(where)
        ray.init(where, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ValueError(
            f"no Ray cluster answers at {where!r}: {_first_line(error)}. Start one (`ray start --head`), or "
            "leave out --address, and clarp starts one on this machine."
        ) from error


def _check_answers(address: str) -> None:
    """Ask for a connection, for Ray tries for minutes.

    Raises:
        OSError: nobody answers at HOST:PORT.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


class RayCrew:
    """A cluster at work on a run."""

    def __init__(self, ray: Any, workers: RayTasks, setup: Setup) -> None:
        self._ray = ray
        gpus = float("GPU" in ray.cluster_resources()) if workers.gpus is None else workers.gpus
        self._count, self._needs = workers.count, {"CPU": float(workers.threads), "GPU": gpus}
        self._job = _Job(workers.load, setup, workers.threads, gpu=gpus > 0)
        options = {
            "num_cpus": workers.threads,
            "num_gpus": gpus,
            "max_retries": 0,  # attempts are counted here
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(workers.threads)}},
        }
        self._hello = ray.remote(_fingerprint).options(**options)
        self._compute = ray.remote(_rows).options(**options)
        self._running: dict[Any, RunPart] = {}
        self.fingerprint: Mapping[str, Any] = {}

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
                        f"{_first_line(error)}. {_REMEDY} The same command goes on."
                    ) from error

    def _check_room(self) -> None:
        """Refuse a part that no machine can take, for Ray would wait for a larger one without a word."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(machine.get(kind, 0) >= n for kind, n in self._needs.items()) for machine in machines):
            has = "; ".join(
                f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines
            )
            cpus, gpus = self._needs.values()
            raise ValueError(
                f"a part needs {cpus:g} CPUs and {gpus:g} GPUs of one machine, and those of the cluster have "
                f"{has}. Set OMP_NUM_THREADS or --gpus-per-worker to less."
            )

    def close(self) -> None:
        """Cancel what is not needed any more."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()

    def rows(
        self, parts: Iterable[RunPart], mean_image: Floats32 | None, advance: Advance
    ) -> Iterator[PartRows]:
        coming, waiting = iter(parts), deque[RunPart]()
        attempts, done = Attempts(_ATTEMPTS, _REMEDY), 0
        mean = None if mean_image is None else self._ray.put(mean_image)
        while True:
            free = self._room() - len(self._running)
            waiting.extend(islice(coming, max(0, free - len(waiting))))
            while waiting and free > 0:
                self._give(waiting.popleft(), mean)
                free -= 1
            if not self._running:
                break
            for task in self._ray.wait([*self._running], num_returns=1, timeout=None)[0]:
                part = self._running.pop(task)
                found = self._result(task)
                if isinstance(found, PartRows):
                    done += found.stop - found.start
                    yield found
                    advance(done)
                elif found is None or attempts.again(part, found):
                    waiting.appendleft(part)
        attempts.check()

    def _room(self) -> int:
        """How many parts may be with the cluster: it may grow and shrink meanwhile."""
        if self._count is not None:
            return self._count
        total = self._ray.cluster_resources()
        room = min(int(total.get(kind, 0) / amount) for kind, amount in self._needs.items() if amount)
        return max(1, _IN_FLIGHT * room)

    def _give(self, part: RunPart, mean: Any) -> None:
        self._running[self._compute.remote(self._job, part, self.fingerprint, mean)] = part

    def _result(self, task: Any) -> PartRows | str | None:
        """The rows; or how the part's process ended; or None, where its machine was lost.

        Raises:
            Exception: what the worker met.
        """
        kinds = self._ray.exceptions
        try:
            found: PartRows = self._ray.get(task)
        except kinds.RayTaskError as error:
            raise _cause(error) from None
        except (kinds.WorkerCrashedError, kinds.OutOfMemoryError) as error:
            return _first_line(error)
        except kinds.RayError:  # of a machine: NodeDiedError, ObjectLostError, LocalRayletDiedError
            return None
        return found


def _cause(error: Any) -> Exception:
    cause = error.cause
    return cause if isinstance(cause, Exception) else RuntimeError(str(cause))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


@dataclass(frozen=True, eq=False)
class _Job:
    """What a process needs before its first part of a run."""

    load: Callable[[], Classifier]
    setup: Setup
    threads: int
    gpu: bool
    folder: str = field(default_factory=os.getcwd)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


_sides: dict[str, WorkerSide] = {}
"""In a process of the cluster: the model of the run that it works for, by the job's key."""


def _side(job: _Job) -> WorkerSide:
    if job.key not in _sides:
        _sides.clear()
        keep_freed_memory()
        silence_warnings()
        with suppress(OSError):  # relative paths are of this folder, where the machine has it
            os.chdir(job.folder)
        device = torch.device("cuda:0" if job.gpu else "cpu")
        _sides[job.key] = WorkerSide(
            job.load, job.setup, device, job.threads, decoders=1, place=socket.gethostname()
        )
    return _sides[job.key]


@contextmanager
def _portably() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  whatever it is, the run's own process raises it
        raise portable(error) from None


def _fingerprint(job: _Job) -> Mapping[str, Any]:
    """Task: what this process computes with."""
    with _portably():
        return _side(job).fingerprint


def _rows(job: _Job, part: RunPart, expected: Mapping[str, Any], mean_image: Floats32 | None) -> PartRows:
    """Task: the rows of a part."""
    with _portably():
        side, host = _side(job), socket.gethostname()
        lines = changes(expected, side.fingerprint)
        if lines:
            raise ValueError(
                differs(f"a worker on {host} computes with something else than the first", lines)
            )
        # Ray's arrays are read-only.
        mean = None if mean_image is None else np.array(mean_image)
        return side.rows(part, mean, lambda _: None)
