"""``clarp pack``: a data set as shards, which any number of machines read without unpacking."""

import sys
from pathlib import Path

from clarp.commands.notes import note
from clarp.data.opening import open_dataset
from clarp.data.packing import pack
from clarp.data.problems import GAVE_NONE
from clarp.models import labels as names_of
from clarp.text import printable

_SHOWN = 10


def run(dataset: str, out: str, labels: Path | None, photos_per_shard: int, *, outside: bool) -> int:
    """Pack, and say on standard output what came of it.

    Returns:
        0 if every photo is in the shards, 1 if some could not be read.

    Raises:
        ValueError, OSError, ImportError: the data set can't be opened, or the shards can't be written.
    """
    opened = open_dataset(dataset, names_of.read(labels) if labels else (), outside=outside)
    outcome = pack(opened, out, photos_per_shard=photos_per_shard)
    problems = [problem for problem in opened.problems if problem.kind in GAVE_NONE] + list(outcome.problems)
    for problem in problems[:_SHOWN]:
        sys.stderr.write(f"clarp: not packed: {problem}\n")
    if len(problems) > _SHOWN:
        sys.stderr.write(f"clarp: ... and {len(problems) - _SHOWN} more\n")
    others = [problem for problem in opened.problems if problem.kind not in GAVE_NONE]
    if others:
        note(f"{len(others)} other files are no part of the data set, first: {others[0]}")
    left = f", {len(problems)} could not be read" if problems else ""
    sys.stdout.write(
        f"{outcome.samples} photos in {outcome.shards} shards{left}: {printable(out)}\n"
        f"evaluate: clarp evaluate {printable(out)}\n"
    )
    return 1 if problems else 0
