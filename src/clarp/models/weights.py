"""Weights into a model: names without the prefixes that training adds, strictly matched."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from clarp.models.checkpoint import SavedWeights, some

_USUAL = ("", "model.", "net.", "network.", "module.")
_INNER = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What compilation, sharding and recomputation put into the middle of names, too."""
_OPTIONAL = "num_batches_tracked"  # old files lack it, and nothing in eval mode reads it


@dataclass(frozen=True)
class _Fit:
    """One interpretation of the names in a file.

    Attributes:
        tensors: by their names, without the wrappers' in their middle.
        inner: wrappers that were taken out of the middle of names.
        prefix: what stands before the model's names in the file.
        lacking: what the model's names begin with and the file's don't.
        found: how many of the model's names the file has.
        of_shape: how many of these in the model's shape.
    """

    tensors: Mapping[str, Tensor]
    inner: str
    prefix: str
    lacking: str
    found: int
    of_shape: int

    @property
    def averaged(self) -> bool:
        """Whether the prefix is one of averages over training."""
        return bool({"ema", "averaged"} & set(re.split(r"[._]", self.prefix.lower())))

    def renamed(self, *, whole: bool) -> tuple[dict[str, Tensor], list[str]]:
        """The tensors by the model's names, and the names of those that belong to something else.

        Args:
            whole: the model has all its weights, so what lies beside them is something else.
        """
        inside = {name: name.startswith(self.prefix) for name in self.tensors}
        ours = {
            (self.lacking + name.removeprefix(self.prefix)) if inside[name] else name: value
            for name, value in self.tensors.items()
            if inside[name] or not whole
        }
        others = [name for name, own in inside.items() if whole and not own]
        if whole and ours.keys() >= {"n_averaged"}:
            others.append("n_averaged")
            del ours["n_averaged"]
        return ours, others


def load_weights(module: nn.Module, state: SavedWeights, source: str) -> tuple[str, ...]:
    """Put weights into a fresh model; every tensor must have its place, and every place its tensor.

    What wrappers put before all names (``module.``, ``model.``, ``_orig_mod.``, several of them, or any
    other) is taken off. Where the file then has all of the model's weights, what lies beside them (a loss's,
    a teacher's) is left out; averages (EMA) count before others, unless some are missing, as a batch norm's
    statistics often are.

    Args:
        module: the model; half-precision weights become its own precision.
        state: what was read.
        source: where the weights are from, for the message.

    Returns:
        What was done to make them fit, and how the file was unwrapped, a sentence each.

    Raises:
        ValueError: names or shapes differ; the message has how many, and the first few. Or several readings
            fit.
    """
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    needed = [name for name in expected if not name.endswith(_OPTIONAL)]
    fit = _best(expected, needed, state.tensors, source)
    if state.plain is not None and fit.found < len(needed):
        note = (
            f"weights: the averages over training (EMA) in {source} lack {len(needed) - fit.found} of the "
            "model's, so others were taken"
        )
        return (note, *load_weights(module, state.plain, source))
    tensors, others = fit.renamed(whole=fit.found == len(needed))
    misshapen = {
        name: (tuple(value.shape), tuple(expected[name].shape))
        for name, value in tensors.items()
        if name in expected and value.shape != expected[name].shape
    }
    result = module.load_state_dict(
        {name: value for name, value in tensors.items() if name not in misshapen}, strict=False
    )
    missing = [name for name in result.missing_keys if name not in tensors]
    shapes = [f"{name} {given} instead of {own}" for name, (given, own) in misshapen.items()]
    problems = {"missing": missing, "unexpected": result.unexpected_keys, "of another shape": shapes}
    listed = [f"{len(names)} {problem} ({some(names)})" for problem, names in problems.items() if names]
    if listed:
        hints = [_prefixes(fit, needed), _of_shapes(list(misshapen.values()))]
        problem_list = "; ".join([*listed, *filter(None, hints)])
        raise ValueError(f"{source}: the weights don't fit the model: {problem_list}.")
    return state.notes + tuple(_notes(fit, others, source))


def _best(
    expected: Mapping[str, Tensor], needed: Sequence[str], tensors: Mapping[str, Tensor], source: str
) -> _Fit:
    """The interpretation of the names with which most of the model's are there."""
    fits = []
    for inner, names in _cleaned(tensors):
        for prefix, lacking in _candidates(needed, names):
            pairs = [(names.get(prefix + name.removeprefix(lacking)), expected[name]) for name in needed]
            same = [given.shape == own.shape for given, own in pairs if given is not None]
            fits.append(_Fit(names, inner, prefix, lacking, len(same), sum(same)))
    most = max((fit.found, fit.of_shape) for fit in fits)
    best = [fit for fit in fits if (fit.found, fit.of_shape) == most]
    by_prefix: dict[str, _Fit] = {}
    for fit in best:  # the least changed comes first
        if fit.inner == best[0].inner:
            by_prefix.setdefault(fit.prefix, fit)
    averaged = [fit for fit in by_prefix.values() if fit.averaged]
    usual = [by_prefix[prefix] for prefix in _USUAL if prefix in by_prefix]
    chosen = (averaged or usual or list(by_prefix.values()))[0]
    if len(by_prefix) > 1 and not averaged and not usual and most[0] == len(needed) > 0:
        raise ValueError(
            f"{source}: the weights of the model are there several times, under "
            f"{some([repr(p) for p in by_prefix])}, and the names don't say which are meant; save the one "
            "that is meant with torch.save(model.state_dict(), path)."
        )
    return chosen


def _cleaned(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The names as given; without wrappers in their middle; without ``module.`` of parallel training too."""
    yield "", tensors
    inner = next((found[0] for found in map(_INNER.search, tensors) if found), "")
    plain = {_INNER.sub("", name): value for name, value in tensors.items()}
    if inner:
        yield inner, plain
    parallel = {re.sub(r"(?<=\.)module\.", "", name): value for name, value in plain.items()}
    if parallel.keys() != plain.keys() and len(parallel) == len(tensors):
        yield "module.", parallel


def _candidates(needed: Sequence[str], names: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Prefixes that the file may have before the model's names, and beginnings of those that it may lack."""
    found = {("", ""): None}
    for anchor in dict.fromkeys((*needed[:1], *needed[-1:], *needed[len(needed) // 2 :][:1])):
        parts = anchor.split(".")
        for k in range(len(parts)):
            lacking, rest = "".join(f"{part}." for part in parts[:k]), ".".join(parts[k:])
            if not all(name.startswith(lacking) for name in needed):
                break
            for name in names:
                if name == rest or name.endswith(f".{rest}"):
                    found[name.removesuffix(rest), lacking] = None
    return sorted(found, key=lambda pair: (pair[1].count("."), pair[0].count(".")))


def _notes(fit: _Fit, others: list[str], source: str) -> Iterator[str]:
    if fit.inner:
        yield f"weights: {fit.inner!r} was taken out of the names in {source}"
    if fit.prefix:
        kind = " (averages over training, EMA)" if fit.averaged else ""
        yield f"weights: those whose names begin with {fit.prefix!r} in {source}{kind}"
    if fit.lacking:
        yield f"weights: {fit.lacking!r} was put before the names in {source}"
    if others:
        averaged = (
            ", which says that the weights are averages over training" if "n_averaged" in others else ""
        )
        yield (
            f"weights: {len(others)} of {source} that are not the model's were left out "
            f"({some(others)}){averaged}"
        )


def _prefixes(fit: _Fit, needed: Sequence[str]) -> str:
    """A hint from what the names have in common."""
    if fit.prefix:
        return f"the names are read without {fit.prefix!r} before them"
    heads = {name.partition(".")[0] for name in fit.tensors}
    if fit.found == 0 and len(heads) == 1 and len(fit.tensors) > 1:
        prefix = f"{heads.pop()}."
        if not any(name.startswith(prefix) for name in needed):
            return f"all {len(fit.tensors)} names start with {prefix!r}, and none of the model's do"
    return ""


def _of_shapes(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    """A hint for tensors that differ in their first or in their second dimension only."""
    meanings = (
        (
            "the head has another number of classes, {} instead of {}: give their names (--labels), or "
            "build the model with as many"
        ),
        "the first layer takes another number of channels, {} instead of {}: build it for as many",
    )
    for axis, meaning in enumerate(meanings):
        sizes = {_only_difference(given, own, axis) for given, own in pairs}
        if len(sizes) == 1 and (size := sizes.pop()):
            return meaning.format(*size)
    return ""


def _only_difference(given: tuple[int, ...], own: tuple[int, ...], axis: int) -> tuple[int, int] | None:
    """Both sizes along an axis if the shapes differ in it alone."""
    if len(given) != len(own) or len(own) <= axis:
        return None
    rest = given[:axis] + own[axis : axis + 1] + given[axis + 1 :]
    return (given[axis], own[axis]) if rest == own else None
