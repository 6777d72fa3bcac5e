"""Which of a model's results are the logits."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from itertools import permutations

import torch
from torch import Tensor, nn

from clarp.errors import CaptureError

Path = tuple[str | int, ...]
Output = str | int | Path | None
"""A key or an attribute, a place in a tuple; of nested results a path, ``(0, 1)`` or ``"head.logits"``; or
None for the only tensor, or the one called "logits"."""
_CLOSE = 1e-3


class LogitsOf(nn.Module):
    """A model that returns several results, as one that returns its logits.

    Args:
        model: is not changed.
        output: which of its results.
    """

    model: nn.Module
    output: Output

    def __init__(self, model: nn.Module, output: Output) -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.training = model.training

    def forward(self, images: Tensor, *rows: Tensor) -> object:
        """The result that was chosen, a row for each image."""
        logits = pick(self.model(images, *rows), self.output)
        return in_rows(logits) if isinstance(logits, Tensor) else logits


def in_rows(logits: Tensor) -> Tensor:
    """Logits (B, N) of a result (B,), or (B, N, 1, ..., 1); any other stays as it is.

    >>> import torch
    >>> [tuple(in_rows(torch.zeros(shape)).shape) for shape in ((3,), (3, 5, 1, 1), (3, 5, 2))]
    [(3, 1), (3, 5), (3, 5, 2)]
    """
    if logits.ndim == 1:
        return logits.unsqueeze(1)
    return logits.flatten(1) if logits.ndim > 2 and all(size == 1 for size in logits.shape[2:]) else logits


def pick(result: object, output: Output, kind: type = Tensor) -> object:
    """The result that ``output`` names; of a single one, that one.

    Args:
        result: one of ``kind``, or a dictionary, a tuple or an object of several, which may be nested.
        output: see :data:`Output`.
        kind: of a result, a tensor or a stand-in for one.

    Raises:
        CaptureError: there is no such result, or several and no way to choose.

    >>> pick({"logits": 1, "features": 2}, None, int), pick((3, 4), 1, int), pick([5], None, int)
    (1, 4, 5)
    >>> pick({"head": {"logits": 1}, "features": [2, 3]}, "head.logits", int), pick(([1, 2], 3), (0, 1), int)
    (1, 2)
    """
    if isinstance(result, kind):
        if output is None:
            return result
        raise CaptureError(
            f"output is {output!r}, and the model returns a single {kind.__name__}. Leave output out."
        )
    found = dict(_leaves(result, kind))
    if output is None and len(found) == 1:
        return next(iter(found.values()))
    for path in _paths("logits" if output is None else output):
        if path in found:
            return found[path]
    listed = ", ".join(f"output={_written(path)!r}{_shape(value)}" for path, value in found.items()) or "none"
    raise CaptureError(
        f"the model returns a {type(result).__name__}"
        + ("" if output is None else f" without a {kind.__name__.lower()} {output!r}")
        + f", expected logits (B, N). Say which of its results they are, Explainer(model, output=...): "
        f"{listed}."
    )


def settled(result: object, output: Output) -> Output:
    """Which results the logits are, where the results say it: of logits and their softmax, the logits.

    Of logits and their sigmoids it is the sigmoids, whose end says what the logits before them mean.

    >>> import torch
    >>> scores = torch.tensor([[1.0, 2.0]])
    >>> settled((scores.softmax(1), scores), None), settled((scores, scores.sigmoid()), None)
    ((1,), (1,))
    """
    found = dict(_leaves(result, Tensor)) if output is None and not isinstance(result, Tensor) else {}
    if len(found) != 2 or ("logits",) in found:
        return output
    for (path, one), (other_path, other) in permutations(found.items(), 2):
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        if one.shape != other.shape or one.ndim != 2 or not one.is_floating_point():
            continue
        if torch.allclose(one.sigmoid(), other, atol=_CLOSE):
            return other_path
        if torch.allclose(one.softmax(1), other, atol=_CLOSE):
            return path
    return output


def assumption(result: object, taken: Output) -> str:
    """Which of several results were taken for the logits where the user named none, a sentence; "" of one.

    Args:
        result: what the model returns.
        taken: as :func:`settled` has it.

    >>> import torch
    >>> assumption({"logits": torch.zeros(1, 2), "features": torch.zeros(1, 3)}, None)
    'output: of its results (logits, features), logits was taken; name another with `--output` or `output=`'
    """
    paths = [] if isinstance(result, Tensor) else [path for path, _ in _leaves(result, Tensor)]
    if len(paths) < 2:
        return ""
    chosen = taken if isinstance(taken, tuple) else ("logits",)
    names = [".".join(map(str, path)) for path in paths]
    return (
        f"output: of its results ({', '.join(names)}), {names[paths.index(chosen)]} was taken; name another "
        "with `--output` or `output=`"
    )


def check_output(output: object) -> None:
    """Refuse what names no result.

    Raises:
        TypeError: it is none of :data:`Output`.
    """
    parts = output if isinstance(output, tuple) and output else (output,)
    if output is not None and any(
        isinstance(part, bool) or not isinstance(part, str | int) for part in parts
    ):
        raise TypeError(
            f"output is {output!r}, expected a key, an attribute or a place in a tuple, for example "
            "'logits' or 0, or of nested results a path, for example (0, 1) or 'head.logits'."
        )


def _leaves(result: object, kind: type, path: Path = ()) -> Iterator[tuple[Path, object]]:
    for name, value in _results(result).items():
        if isinstance(value, kind):
            yield (*path, name), value
        elif isinstance(value, Mapping | tuple | list) or is_dataclass(value):
            yield from _leaves(value, kind, (*path, name))


def _paths(output: str | int | Path) -> Iterator[Path]:
    """Where a name may point: to a key as it is, or with dots for the levels."""
    if isinstance(output, tuple):
        yield output
        return
    yield (output,)
    if isinstance(output, str) and "." in output:
        yield tuple(int(part) if part.isdecimal() else part for part in output.split("."))


def _written(path: Path) -> str | int | Path:
    return path[0] if len(path) == 1 else path


def _results(result: object) -> Mapping[str | int, object]:
    if isinstance(result, Mapping):
        return result
    if isinstance(result, tuple | list):
        return dict(zip(getattr(result, "_fields", range(len(result))), result, strict=True))
    return getattr(result, "__dict__", {})


def _shape(value: object) -> str:
    return f" {tuple(value.shape)}" if isinstance(value, Tensor) else ""
