"""Where a command computes: in this process, in others of this machine, or on a cluster."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from clarp.evaluation.workers import Workers
from clarp.models import Classifier

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Placement:
    """Where to compute, as the options of the command line say it.

    Attributes:
        engine: ``local`` or ``ray``.
        workers: how many processes, or on a cluster how many parts at once; None: this process alone, or as
            many as the cluster has room for.
        address: of a Ray cluster; None: ``RAY_ADDRESS``, or else a cluster of this machine alone.
        gpus: of a Ray cluster for each part; None: one where the cluster has any, and none with
            ``--device cpu``.

    Raises:
        ValueError: an engine that does not exist, or options of a cluster without one.
    """

    engine: str = "local"
    workers: int | None = None
    address: str | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"--engine is {self.engine!r}, expected {' or '.join(ENGINES)}.")
        given = [
            name
            for name, value in (("--address", self.address), ("--gpus-per-worker", self.gpus))
            if value is not None
        ]
        if given and self.engine != "ray":
            raise ValueError(f"{' and '.join(given)} are for a cluster: add --engine ray, or leave them out.")

    def workers_for(
        self, model: str, *, load: Callable[[str], Classifier], device: str | None
    ) -> Workers | None:
        """Who computes with a model; None: this process.

        Args:
            model: its name.
            load: makes a classifier from a name; it pickles.
            device: what ``--device`` names; None: all GPUs where there are some, else the CPU.

        Raises:
            ValueError: one GPU of a cluster is named, where Ray chooses.
        """
        if self.engine == "ray":
            return self._cluster(partial(load, model), device)
        if self.workers is None:
            return None
        from clarp.evaluation.processes import Processes  # noqa: PLC0415  one process does without

        return Processes(partial(load, model), self.workers, _devices(device), _threads())

    def _cluster(self, load: Callable[[], Classifier], device: str | None) -> Workers:
        from clarp.evaluation.cluster import RayTasks  # noqa: PLC0415  as above

        if device not in {None, "cpu", "cuda"}:
            raise ValueError(
                f"--device is {device!r}, and Ray chooses the GPUs of its machines: give cpu or cuda, or "
                "leave it out."
            )
        if device == "cpu" and self.gpus:
            raise ValueError(f"--device is cpu, and --gpus-per-worker {self.gpus:g}: leave out one of them.")
        gpus = {"cpu": 0.0, "cuda": 1.0}.get(device or "") if self.gpus is None else self.gpus
        return RayTasks(load, self.address, self.workers, _threads(), gpus)


def _threads() -> int:
    """Of each worker: one, unless the user asks for others, so that the table is the same with any number."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else 1


def _devices(device: str | None) -> tuple[str, ...]:
    """Those that the processes of this machine take in turn.

    >>> _devices("cpu"), _devices("cuda:1")
    (('cpu',), ('cuda:1',))
    """
    count = torch.cuda.device_count()
    if count and device in {None, "cuda"}:
        return tuple(f"cuda:{number}" for number in range(count))
    return (device or "cpu",)
