"""What computes, and where: in this process, in others of this machine, or on a cluster."""

import os
from dataclasses import dataclass

import torch

from clarp.arguments import EngineName
from clarp.workers.base import Workers

ENGINES = ("torch", "onnxruntime", "ray")


def engine_named(name: str) -> str:
    """What was given as ``--engine``.

    Raises:
        ValueError: none of :data:`ENGINES`.
    """
    if name not in ENGINES:
        raise ValueError(f"--engine is {name!r}, expected one of {', '.join(ENGINES)}.")
    return name


def served_by(name: str) -> EngineName:
    """What computes in a server, of what was given as ``--engine``.

    Raises:
        ValueError: no engine, or a cluster.
    """
    if engine_named(name) == "ray":
        raise ValueError(
            "--engine is 'ray', and `clarp serve` computes in its own process: expected torch or onnxruntime."
        )
    return Placement(name).computing


@dataclass(frozen=True)
class Placement:
    """What computes, and where, as the options of the command line say it.

    Attributes:
        engine: one of :data:`ENGINES`: PyTorch or ONNX Runtime in processes of this machine, or PyTorch on a
            Ray cluster.
        workers: how many processes, or on a cluster how many pieces of the work at once; None: this process
            alone, or as many as the cluster has room for.
        address: of a Ray cluster; None: ``RAY_ADDRESS``, or else a cluster of this machine alone.
        gpus: of a Ray cluster for each piece; None: one where the cluster has any, and none with ``--device
            cpu``.

    Raises:
        ValueError: an engine that does not exist, or options of a cluster without one.
    """

    engine: str = "torch"
    workers: int | None = None
    address: str | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        engine_named(self.engine)
        given = [
            name
            for name, value in (("--address", self.address), ("--gpus-per-worker", self.gpus))
            if value is not None
        ]
        if given and self.engine != "ray":
            raise ValueError(f"{' and '.join(given)} are for a cluster: add --engine ray, or leave them out.")

    @property
    def computing(self) -> EngineName:
        """What computes explanations in each process."""
        return "onnxruntime" if self.engine == "onnxruntime" else "torch"

    def workers_for(self, device: str | None) -> Workers | None:
        """Which other processes compute; None: none, but this one.

        Args:
            device: what ``--device`` names; None: all GPUs where there are some, else the CPU; of a cluster
                likewise.

        Raises:
            ValueError: one GPU of a cluster is named, where Ray chooses.
        """
        if self.engine == "ray":
            return self._cluster(device)
        if self.workers is None:
            return None
        from clarp.workers.processes import Processes  # noqa: PLC0415  one process does without

        if device is None and self.computing != "torch":
            device = "cpu"
        return Processes(self.workers, _devices(device), _threads())

    def _cluster(self, device: str | None) -> Workers:
        from clarp.workers.cluster import RayTasks  # noqa: PLC0415  as above

        if device not in {None, "cpu", "cuda"}:
            raise ValueError(
                f"--device is {device!r}, and Ray chooses the GPUs of its machines: give cpu or cuda, or "
                "leave it out."
            )
        if device == "cpu" and self.gpus:
            raise ValueError(f"--device is cpu, and --gpus-per-worker {self.gpus:g}: leave out one of them.")
        gpus = {"cpu": 0.0, "cuda": 1.0}.get(device or "") if self.gpus is None else self.gpus
        return RayTasks(self.address, self.workers, _threads(), gpus)


def _threads() -> int:
    """Of each worker: one, unless the user asks for others, so that results are the same with any number."""
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
