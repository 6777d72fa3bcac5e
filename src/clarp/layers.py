"""What a user may pass as ``layers``: modules by name, and where their outputs are in the captured graph."""

from collections.abc import Sequence
from difflib import get_close_matches

from clarp.capture import Graph, HookPoint


def layer_names(graph: Graph) -> tuple[str, ...]:
    """The names for :func:`resolve_layers`: a module's path; ``path#1``, ``path#2``, ... of several calls."""
    return tuple(
        label
        for path, points in graph.outputs.items()
        for label, point in _calls(path, points).items()
        if point is not None
    )


def resolve_layers(layers: Sequence[str], graph: Graph) -> dict[str, HookPoint]:
    """Where the outputs of these modules are.

    Args:
        layers: paths as in ``model.named_modules()``. A module that is called several times gives all its
            calls; ``path#2`` gives the second alone.
        graph: the captured network.

    Raises:
        TypeError: not several names.
        ValueError: no such module, or it has not one output of its own.
    """
    if isinstance(layers, str) or not all(isinstance(name, str) for name in layers):
        raise TypeError(f"layers is {layers!r}, expected a list of module names, for example ['layer4'].")
    found: dict[str, HookPoint] = {}
    for name in layers:
        path, _, number = name.partition("#")
        calls = _calls(path, graph.outputs.get(path, ()))
        wanted = {
            label: point
            for label, point in calls.items()
            if not number or label in (name, name.removesuffix("#1"))
        }
        if not wanted:
            names = layer_names(graph)
            near = get_close_matches(name, names, n=3, cutoff=0.0)
            raise ValueError(
                f"layers has {name!r}, which is no module of the model that computes something for the "
                f"logits. The nearest of its {len(names)} are {', '.join(near)}."
            )
        for label, point in wanted.items():
            if point is None:
                raise ValueError(
                    f"layers has {label!r}, which has not one output of its own: it returns several values, "
                    "its input is also read around it, or it is part of another operation (a padding of "
                    "the convolution behind it). Name a module before or behind it."
                )
            found[label] = point
    return found


def _calls(path: str, points: Sequence[HookPoint | None]) -> dict[str, HookPoint | None]:
    if len(points) == 1:
        return {path: points[0]}
    return {f"{path}#{number}": point for number, point in enumerate(points, start=1)}
