"""Checkpoint files, read without executing anything, and unwrapped to names and tensors."""

import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_AVERAGED = ("state_dict_ema", "model_state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module")
"""Entries that training code puts weights into: the first that exists is taken, averages before others."""
_DEEPEST = 5


@dataclass(frozen=True)
class SavedWeights:
    """Weights from a file.

    Attributes:
        tensors: by their names in the file.
        notes: how they were unwrapped, a sentence each.
        plain: for averages, the weights beside them that are none; None where there are none.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    plain: "SavedWeights | None" = None


def read_state(path: Path) -> SavedWeights:
    """Read weights: safetensors by its suffix, else what ``torch.save`` wrote, also a training checkpoint.

    Nothing in the file is executed (``weights_only``), and no class that it names is imported: an object of
    one, such as a checkpoint's settings, is passed over. Of averaged weights (EMA) and others, the averaged
    are taken.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something else: a whole model, a TorchScript or exported
            program.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file.")
    if path.suffix == ".safetensors":
        try:
            return SavedWeights(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file, or damaged ({error}).") from error
    _refuse_programs(path)
    content = _loaded(path)
    keys = _keys(content, 0)
    if keys is None:
        raise ValueError(f"{path}: {_whole_model(path, content) or _no_state(content)}")
    return _state_under(path, content, keys)


def _state_under(path: Path, content: Any, keys: tuple[str, ...]) -> SavedWeights:
    found = content
    for key in keys:
        found = found[key]
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not keys:
        return SavedWeights(tensors)
    note = f"weights: those under {' / '.join(keys)!r} in {path.name}"
    if not set(keys) & set(_AVERAGED):
        return SavedWeights(tensors, (note,))
    others = {key: value for key, value in content.items() if key not in _AVERAGED}
    plain = _keys(others, 0)
    if plain is None:
        return SavedWeights(tensors, (f"{note}, averages over training (EMA)",))
    beside = f"under {' / '.join(plain)!r}" if plain else "beside them"
    averaged = f"{note}, averages over training (EMA), and not those {beside}"
    return SavedWeights(tensors, (averaged,), _state_under(path, others, plain))


def _refuse_programs(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            # Of most formats, and versions of them, all members lie in one folder.
            members = {part for name in archive.namelist() for part in (name, name.partition("/")[2])}
    except (zipfile.BadZipFile, OSError):
        return  # an older format, or damaged: the reading that follows says so
    if "constants.pkl" in members:
        raise ValueError(
            f"{path}: a TorchScript program (torch.jit.save), which has its model inside. "
            + _two_lines(f'torch.jit.load("{path.name}")')
        )
    if any(name.startswith("models/") or name == "serialized_exported_program.json" for name in members):
        raise ValueError(
            f"{path}: an exported program (torch.export.save), which has its model inside; give the file "
            "itself as the model, with the suffix .pt2 and without --weights, if you trust whoever made "
            "it: loading it can execute code that is in it."
        )


def _two_lines(loading: str) -> str:
    return f'Turn it into weights: model = {loading}; torch.save(model.state_dict(), "weights.pt").'


def _loaded(path: Path) -> Any:
    """The file's content, with :func:`_inert` stand-ins for objects of classes that PyTorch distrusts."""
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001  an older format, or damaged: the reading that follows says so
        foreign = []
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([_inert(name) for name in foreign]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch documents none; on a text it is an IndexError
        named = re.search(r"GLOBAL (\S+)", str(error))
        foreign = foreign or ([named[1]] if named else [])
        if foreign:
            raise ValueError(
                f"{path}: not a file of weights alone: it has objects of {', '.join(sorted(foreign)[:3])}, "
                "which are not loaded, because that may execute code. If it is a whole model "
                "(torch.save(model)) of yours: "
                + _two_lines(f'torch.load("{path.name}", weights_only=False)')
            ) from error
        raise ValueError(
            f"{path}: not a file of weights alone, or damaged; expected safetensors, or what "
            "torch.save(model.state_dict(), path) writes."
        ) from error


def _inert(name: str) -> tuple[Any, str]:
    """Something that the pickle may call by the name of a foreign class, and that runs none of its code.

    The reader fills nothing but plain dictionaries and calls ``__setstate__`` of what it was given. Numbers
    of NumPy need the second, all else (settings, paths, whole models) the first.
    """

    def new(cls: type, *_: object) -> object:
        if name.startswith("numpy"):
            return object.__new__(cls)
        stands_in: Any = OrderedDict()
        stands_in.foreign = name
        return stands_in

    members = {"__new__": new, "__init__": lambda *_: None, "__setstate__": lambda *_: None}
    return type("Inert", (), members), name


def _keys(content: Any, depth: int) -> tuple[str, ...] | None:
    """The keys that lead to the weights; None where none or several do."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return None
    for key in (*_AVERAGED, *_WRAPPERS):
        below = _keys(content.get(key), depth + 1)
        if below is not None:
            return (key, *below)
    tensors = [
        value for name, value in content.items() if isinstance(value, Tensor) and isinstance(name, str)
    ]
    if any(value.ndim for value in tensors):
        return ()
    others = _others(content, depth)
    if len(others) == 1:
        return others[0]
    return () if tensors and not others else None


def _others(content: Mapping[Any, Any], depth: int = 0) -> list[tuple[str, ...]]:
    """Paths of keys to weights in entries of other names than the usual ones."""
    paths = [(key, _keys(value, depth + 1)) for key, value in content.items() if isinstance(key, str)]
    return [(key, *keys) for key, keys in paths if keys is not None]


def _whole_model(path: Path, content: Any) -> str:
    """The error message for a pickled model, alone or in an entry; empty where there is none."""
    entries = {"": content} | (dict(content) if isinstance(content, Mapping) else {})
    for key, value in entries.items():
        inside = getattr(value, "__dict__", {})
        if "_modules" in inside and "foreign" in inside:
            where = f'["{key}"]' if key else ""
            what = f"its entry {key!r} is" if key else "this is"
            return (
                f"{what} a whole model that was pickled, a {inside['foreign']}, and no file of weights; "
                "loading it may execute code. "
                + _two_lines(f'torch.load("{path.name}", weights_only=False){where}')
            )
    return ""


def _no_state(content: Any) -> str:
    if not isinstance(content, Mapping):
        return (
            f"holds a {type(content).__name__}, expected a state dict (names and tensors); save it again "
            "with torch.save(model.state_dict(), path)."
        )
    several = [keys[0] for keys in _others(content)]
    if several:
        return (
            f"holds weights in several entries, {some(several)}, and their names don't say which are meant; "
            "save those alone: "
            f'torch.save(torch.load(path)["{several[0]}"], "weights.pt").'
        )
    return (
        f"holds the entries {some(list(map(str, content)))}, expected a state dict (names and tensors); "
        "save it again with torch.save(model.state_dict(), path)."
    )


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
