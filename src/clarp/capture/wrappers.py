"""What people put around a model: the model inside is explained, or the wrapper is refused by its name."""

import copy
from collections.abc import Iterator
from types import CellType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from clarp.errors import CaptureError

WRAPPERS: dict[str, str] = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
    "OptimizedModule": "_orig_mod",
}
"""Classes that only hand on to a model, and where they keep it: PyTorch's, and timm's averages of weights."""

QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "bitsandbytes.", "torchao.")
"""Where the classes of quantised modules and tensors are from."""

ATTEMPTS = 5
"""How often a copy is tried: in 200 rounds of 32 threads one failed, because a tensor was kept in the
meantime."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model in its wrappers."""
    while (name := WRAPPERS.get(type(model).__name__)) is not None:
        inner = getattr(model, name, None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
    return model


def check_kind(model: nn.Module) -> None:
    """Refuse what can't be captured whatever it computes, by its name and with what to load instead.

    Raises:
        CaptureError: TorchScript, quantised or sharded modules, or parameters that have no values yet.
    """
    for path, module in model.named_modules():
        where = f"its module {path!r}" if path else "the model"
        own = f"{type(module).__module__}.{type(module).__name__}"
        if isinstance(module, torch.jit.ScriptModule):
            raise CaptureError(
                f"{where} is TorchScript (scripted, traced or frozen by torch.jit), which torch.export "
                "can't read. Load the model from its Python class, with the weights of this one: "
                "model.load_state_dict(scripted.state_dict())."
            )
        if own.startswith(QUANTISED) or any(_is_quantised(t) for t in _own_tensors(module)):
            raise CaptureError(
                f"{where} is quantised ({own}), and its whole numbers hand no relevance on. Load the "
                "floating model that it was made from."
            )
        if type(module).__name__ in ("FullyShardedDataParallel", "FSDPModule"):
            raise CaptureError(
                f"{where} is sharded ({own}), and its weights lie in several processes. Load the whole "
                "state dict into the model without FSDP."
            )
        lazy = any(is_lazy(tensor) for tensor in _own_tensors(module))
        if lazy or any(tensor.is_meta for tensor in _own_tensors(module)):
            raise CaptureError(
                f"{where} ({own}) has parameters without values "
                f"({'lazy' if lazy else 'on the device meta'}). Load its weights first"
                + (", and call the model once on images." if lazy else ".")
            )


def _is_quantised(tensor: Tensor) -> bool:
    return tensor.is_quantized or type(tensor).__module__.startswith(QUANTISED)


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def shared_copy(model: nn.Module) -> nn.Module:
    """A model to work on: the same modules anew, with the very tensors of the user's own.

    ``torch.export`` swaps the parameters of the module that it traces for stand-ins, and a forward may keep
    what it computed: both happen to the copy, and the user's model can be used beside it. Wrappers inside are
    taken off; tensors of inference mode, which can't be traced, are copied. A model that can't be copied, or
    whose functions know its modules by name, is worked on itself.
    """
    if any(_knows_modules(value) for module in model.modules() for value in vars(module).values()):
        return model
    twin = _copied(model)
    if twin is None:
        return model
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if (inner := unwrapped(child)) is not child:
                setattr(module, name, inner)
    return twin


def _copied(model: nn.Module) -> nn.Module | None:
    """A copy that shares the tensors, None where there can't be one.

    Inference beside it may keep another tensor in the model between the look at its tensors and the copy, so
    that is tried again.
    """
    for _ in range(ATTEMPTS):
        known: dict[int, object] = {}
        try:
            for module in model.modules():
                for value in (*_own_tensors(module), *_tensors_in(vars(module))):
                    known[id(value)] = _traceable(value) if value.is_inference() else value
                known.update(
                    (id(value), value) for name, value in vars(module).items() if _is_shared(name, value)
                )
            with torch.inference_mode(mode=False):
                twin: nn.Module = copy.deepcopy(model, known)
        except Exception:  # noqa: BLE001, S112  whatever an attribute of the user's says against being copied
            continue
        return twin
    return None


def _is_shared(name: str, value: object) -> bool:
    """Whether a module keeps it for itself (Lightning's trainer): no part of its function, perhaps large."""
    return name.startswith("_") and not isinstance(value, nn.Module | dict | list | tuple | set)


def _knows_modules(value: object) -> bool:
    """Whether an attribute is a function, or hooks, that would call the modules of the original in a copy."""
    if isinstance(value, dict):
        return any(_knows_modules(part) for part in value.values() if not isinstance(part, nn.Module))
    cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or () if _filled(cell)]
    return any(isinstance(getattr(held, "__self__", held), nn.Module) for held in cells)


def _filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  an empty one raises
    except ValueError:
        return False
    return True


def _tensors_in(value: object, depth: int = 3) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for part in value.values():
            yield from _tensors_in(part, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for part in value:
            yield from _tensors_in(part, depth - 1)


def _traceable(value: Tensor) -> Tensor:
    with torch.inference_mode(mode=False):
        plain = value.clone()
        return nn.Parameter(plain, requires_grad=False) if isinstance(value, nn.Parameter) else plain
