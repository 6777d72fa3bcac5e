"""The user's model, and everything around it, is bit for bit what it was: after success and after failure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clarp
from oracle import nets
from oracle.calls import images

METHODS = ("lrp", "clrp1", "clrp2", "sglrp", "slrp", "ssglrp")
PLAN: nets.Plan = (
    ("conv", {"conv": {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "bias": False}, "norm": True}),
    ("relu", {}),
    ("residual", {"inputs": 4, "outputs": 4, "stride": 2, "bias": False}),
    ("global", {"inputs": 4, "outputs": 5}),
)


def model() -> nn.Module:
    """A small network with everything that could be disturbed: frozen weights, a gradient, hooks, in-place modules."""
    made = nets.build(PLAN, "inplace").float()
    first, head = made[0], made[-1]
    first.weight.requires_grad_(False)
    head.weight.grad = torch.ones_like(head.weight)
    head.register_forward_hook(lambda *_: None)
    first.register_forward_pre_hook(lambda *_: None)
    made.register_buffer("unused", torch.arange(3))
    return made


def hooks(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value) for name, value in vars(module).items() if name.endswith("_hooks") and value}


def snapshot(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that a user could notice."""
    return {
        "keys": list(module.state_dict()),
        "values": {name: value.clone() for name, value in module.state_dict().items()},
        "memory": {name: value.data_ptr() for name, value in module.state_dict().items()},
        "versions": {name: value._version for name, value in module.state_dict().items()},
        "identity": {
            name: id(value) for name, value in (*module.named_parameters(), *module.named_buffers())
        },
        "requires_grad": {name: value.requires_grad for name, value in module.named_parameters()},
        "grad": {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()},
        "grad_identity": {name: id(p.grad) for name, p in module.named_parameters() if p.grad is not None},
        "training": {name: child.training for name, child in module.named_modules()},
        "children": {name: (id(child), type(child)) for name, child in module.named_modules()},
        "hooks": {name: hooks(child) for name, child in module.named_modules()},
        "attributes": {name: sorted(vars(child)) for name, child in module.named_modules()},
    }


def surroundings() -> dict[str, Any]:
    """What is global in PyTorch."""
    return {
        "random": torch.random.get_rng_state(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "anomaly": torch.is_anomaly_enabled(),
    }


def same_bits(old: Tensor, new: Tensor) -> bool:
    return torch.equal(old.view(torch.uint8), new.view(torch.uint8))


def same(before: Any, after: Any) -> bool:
    """Equal bit for bit, NaN and all."""
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        old, new = (tensor.detach().reshape(-1).contiguous() for tensor in (before, after))
        return before.dtype == after.dtype and before.shape == after.shape and same_bits(old, new)
    if isinstance(before, dict):
        return list(before) == list(after) and all(same(before[key], after[key]) for key in before)
    return type(before) is type(after) and bool(before == after)


@contextmanager
def untouched(module: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """Fails if anything about the module, the tensors or PyTorch itself is different afterwards."""
    before, around, values = snapshot(module), surroundings(), [tensor.clone() for tensor in tensors]
    versions = [tensor._version for tensor in tensors]
    yield
    after = snapshot(module)
    for aspect, value in before.items():
        assert same(value, after[aspect]), aspect
    for aspect, value in surroundings().items():
        assert same(around[aspect], value), aspect
    assert all(same(value, tensor) for value, tensor in zip(values, tensors, strict=True)), "the images"
    assert versions == [tensor._version for tensor in tensors], "the images were written to"
    assert all(tensor.grad is None for tensor in tensors), "the images have a gradient"


def test_the_snapshot_notices() -> None:
    """A guard that sees nothing would pass everything."""
    changes: list[Callable[[nn.Module], Any]] = [
        lambda m: m.train(),
        lambda m: m[0].weight.requires_grad_(True),
        lambda m: m[-1].register_forward_hook(lambda *_: None),
        lambda m: m[1].running_mean.data.mul_(1.0 + 2**-20),
        lambda m: setattr(m[0], "bias", nn.Parameter(torch.zeros(4))),
        lambda m: setattr(m[-1].weight, "grad", None),
        lambda m: torch.rand(1),
        lambda m: setattr(m[-1], "weight", nn.Parameter(m[-1].weight.detach().clone())),
    ]
    for change in changes:
        made = model()
        with pytest.raises(AssertionError), untouched(made):
            change(made)


@pytest.mark.parametrize("method", METHODS)
def test_after_an_explanation(method: str) -> None:
    made, x = model(), images(2, 3, 8, 8, dtype=torch.float32)
    with untouched(made, x):
        explainer = clarp.Explainer(made, method=method)
        explainer(x)
        explainer(x, target=[[0, 1], [2, 3]])
        str(explainer.plan())
        clarp.attribute(made, x, [1, 2], method)


def test_a_strict_load_state_dict_still_works() -> None:
    """After zennit a convolution without bias keeps a stray one, and this fails."""
    made = model()
    state = {name: value.clone() for name, value in made.state_dict().items()}
    clarp.Explainer(made, method="ssglrp")(images(2, 3, 8, 8, dtype=torch.float32))
    made.load_state_dict(state, strict=True)


def test_the_model_still_trains() -> None:
    made, x = model(), images(2, 3, 8, 8, dtype=torch.float32)
    clarp.Explainer(made, method="ssglrp")(x)
    made[-1].weight.grad = None
    made.train()
    made(x).sum().backward()
    assert made[-1].weight.grad is not None
    assert made[0].weight.grad is None  # frozen before, frozen after


def test_results_carry_no_graph() -> None:
    made, x = model(), images(2, 3, 8, 8, dtype=torch.float32).requires_grad_()
    explanation = clarp.Explainer(made, method="sglrp")(x)
    assert not explanation.relevance.requires_grad
    assert not explanation.logits.requires_grad
    assert x.grad is None


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_inside_every_grad_mode(context: Callable[[], Any]) -> None:
    """The same map; and the mode is still on afterwards."""
    made, x = model(), images(2, 3, 8, 8, dtype=torch.float32)
    expected = clarp.attribute(made, x, [1, 2], "ssglrp")
    with context():
        mode = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        relevance = clarp.attribute(made, x, [1, 2], "ssglrp")
        assert mode == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    assert torch.equal(relevance, expected)


def training(*kinds: type[nn.Module]) -> nn.Module:
    """The model, with its modules of these kinds left in training mode."""
    made = model()
    for module in made.modules():
        module.training = isinstance(module, kinds)
    return made


class Raises(nn.Module):
    """Fails in the middle of its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner[0](x)
        if x.shape[1] == 4:
            raise ZeroDivisionError("the user's own mistake")
        return self.inner[1:](x)


class Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(self.inner(x), 1)


class Counts(nn.Module):
    """Writes to a buffer at every call, as running statistics do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x)


def test_a_model_that_writes_to_a_buffer() -> None:
    """Explained or refused, the buffer is what it was."""
    made, x = Counts().eval(), images(2, 3, 8, 8, dtype=torch.float32)
    with untouched(made, x), suppress(clarp.CaptureError):
        clarp.Explainer(made, method="ssglrp")(x)


class Noisy(nn.Module):
    """Draws random numbers, even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(nn.functional.dropout(x, 0.5))


FAILURES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor], dict[str, Any]]] = {
    "target": (model, lambda x: x, {"target": 99}),
    "target, wrong length": (model, lambda x: x, {"target": [1, 2, 3]}),
    "against": (model, lambda x: x, {"target": 1, "against": [77]}),
    "NaN": (model, lambda x: x.clone().fill_(torch.nan), {}),
    "channels": (model, lambda x: x[:, :2], {}),
    "integers": (model, lambda x: x.int(), {}),
    "train mode": (lambda: training(nn.Module), lambda x: x, {}),
    "one dropout in train mode": (lambda: training(nn.Dropout), lambda x: x, {}),
    "one batch norm in train mode": (lambda: training(nn.BatchNorm2d), lambda x: x, {}),
    "random": (lambda: Noisy().eval(), lambda x: x, {}),
    "raises": (lambda: Raises().eval(), lambda x: x, {}),
    "unsupported": (lambda: Unsupported().eval(), lambda x: x, {}),
}


@pytest.mark.parametrize("which", FAILURES)
def test_after_a_failure(which: str) -> None:
    make, change, arguments = FAILURES[which]
    made, x = make(), images(2, 3, 8, 8, dtype=torch.float32)
    bad = change(x)
    with untouched(made, bad), pytest.raises((ValueError, TypeError, clarp.CaptureError)):
        clarp.Explainer(made, method="ssglrp")(bad, **arguments)


def test_an_explainer_survives_a_failed_call() -> None:
    made, x = model(), images(2, 3, 8, 8, dtype=torch.float32)
    explainer = clarp.Explainer(made, method="ssglrp")
    expected = explainer(x, target=[1, 2]).relevance
    for target in (99, [1, 2, 3]):
        with pytest.raises(ValueError, match=r"99|3"):
            explainer(x, target=target)
    assert torch.equal(explainer(x, target=[1, 2]).relevance, expected)


def test_the_images_may_be_any_view() -> None:
    """Channels last, a stepped view, an expanded batch: the same map as from a plain copy, and nothing written."""
    made, base = model(), images(4, 3, 8, 16, dtype=torch.float32)
    views = {
        "channels last": base[:2, :, :, :8].contiguous(memory_format=torch.channels_last),
        "stepped": base[::2, :, :, ::2],
        "transposed": base[:2, :, :, :8].transpose(2, 3),
        "expanded": base[:1, :, :, :8].expand(2, -1, -1, -1),
    }
    explainer = clarp.Explainer(made, method="ssglrp")
    for name, view in views.items():
        with untouched(made, view):
            relevance = explainer(view, target=1).relevance
        expected = explainer(view.contiguous().clone(), target=1).relevance
        assert torch.allclose(relevance, expected, rtol=1e-4, atol=1e-6), name


def test_what_an_explanation_shows_stays_when_the_loader_fills_its_memory_anew() -> None:
    explainer = clarp.Explainer(model(), "lrp")
    x, target = images(2, 3, 9, 8).float(), torch.tensor([1, 2])
    e = explainer(x, target)
    before = e.images.clone()
    x.zero_()
    target.zero_()
    assert torch.equal(e.images, before)
    assert e.target.tolist() == [1, 2]
