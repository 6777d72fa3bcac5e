"""Which composite loses less, tried on the image that a warning of lost relevance is about."""

from dataclasses import replace

from torch import Tensor

from clarp.passes import ENOUGH, TOO_MUCH, Passes, arrived
from clarp.programs import program_of
from clarp.propagation.plan import composite_on
from clarp.rules.composites import Composite, default, get

_CONSERVING = ("zplus-box", "epsilon-plus-box")


def better(passes: Passes, image: Tensor, row: int, column: int) -> tuple[str, float] | None:
    """The composite that brings at least half of this relevance to the pixels, and how much it brings.

    Args:
        passes: those that lost it.
        image: the one where it was lost, (C, H, W).
        row: which target's.
        column: the image's number among those of the passes.

    Returns:
        None where none of those that conserve by their rules does.
    """
    graph, now = passes.program.plan.graph, passes.method.rules
    this, one = slice(row, row + 1), slice(column, column + 1)
    low, high = (end if len(end) == 1 else end[one] for end in passes.bounds)
    alone = replace(
        passes,
        targets=passes.targets[this, one],
        rivals=passes.rivals[this, one],
        seed=passes.seed[this, one],
        bounds=(low, high),
    )
    found = [
        composite for name in _CONSERVING for composite in (composite_on(default(name), graph), get(name))
    ]
    for composite in sorted(found, key=lambda other: other.dense != now.dense):
        if composite.name == now.name:
            continue
        try:
            share = _share(alone, composite, image)
        except ValueError:  # the method can't have this composite, as CLRP2 can't have epsilon in the head
            continue
        if ENOUGH <= share <= TOO_MUCH:
            return composite.name, share
    return None


def _share(passes: Passes, composite: Composite, image: Tensor) -> float:
    """What reaches the pixels with another composite, of one image (C, H, W) and one target."""
    method = replace(passes.method, composite=composite)
    now = passes.program
    program = program_of(now.plan.graph, method, image.device, image.dtype, now.back)
    other = replace(passes, method=method, program=program, cached=program.forward(image[None]))
    return float(arrived(other.amounts(other.maps(()))).min())
