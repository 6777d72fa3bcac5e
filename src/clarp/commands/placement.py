"""Where ``clarp evaluate`` computes: in this process, or in others of this machine."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from clarp.evaluation.workers import Workers
from clarp.models import Classifier


@dataclass(frozen=True)
class Placement:
    """Where to compute, as the options of the command line say it.

    Attributes:
        workers: how many processes; None: this process alone.
    """

    workers: int | None = None

    def workers_for(
        self, model: str, *, load: Callable[[str], Classifier], device: str | None
    ) -> Workers | None:
        """Who computes with a model; None: this process.

        Args:
            model: its name.
            load: makes a classifier from a name; it pickles.
            device: what ``--device`` names; None: all GPUs where there are some, else the CPU.
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
