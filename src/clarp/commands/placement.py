"""Where ``clarp evaluate`` computes: in this process, in others of this machine, or on a cluster."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from clarp.evaluation.workers import Workers
from clarp.models import Classifier

ENGINES = ("torch", "ray")
"""What ``--engine`` may name: what computes (torch), and where, if not on this machine (ray)."""


@dataclass(frozen=True)
class Placement:
    """Where to compute, as the options of the command line say it.

    Attributes:
        engines: of :data:`ENGINES`.
        workers: how many; None: this process alone, and with ray as many as the cluster has room for.
        address: of the Ray cluster; None: as Ray has it ($RAY_ADDRESS, or a new one on this machine).
        gpus_per_worker: of a worker of Ray's, .5 for two workers on a GPU; None: the CPU.

    Raises:
        ValueError: an engine that does not exist, or options that don't go together.
    """

    engines: tuple[str, ...] = ()
    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        for name in self.engines:
            if name not in ENGINES:
                raise ValueError(f"--engine is {name!r}, expected one of {', '.join(ENGINES)}.")
        for option, value in (("--address", self.address), ("--gpus-per-worker", self.gpus_per_worker)):
            if value is not None and not self.on_ray:
                raise ValueError(f"{option} is for Ray: add --engine ray, or leave it out.")

    @property
    def on_ray(self) -> bool:
        """Whether a Ray cluster computes."""
        return "ray" in self.engines

    @property
    def elsewhere(self) -> bool:
        """Whether other processes compute than that of the command."""
        return self.on_ray or self.workers is not None

    def workers_for(
        self, model: str, *, load: Callable[[str], Classifier], device: str | None
    ) -> Workers | None:
        """Who computes with a model; None: this process.

        Args:
            model: its name.
            load: makes a classifier from a name; it pickles.
            device: what ``--device`` names; None: all GPUs where there are some, else the CPU.

        Raises:
            ValueError: the device is not one of Ray's workers.
            ModuleNotFoundError: Ray is not installed.
        """
        if self.workers is None:
            return None
        from clarp.evaluation.processes import Processes  # noqa: PLC0415  one process does without

        return Processes(partial(load, model), self.workers, _devices(device), _threads())


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
