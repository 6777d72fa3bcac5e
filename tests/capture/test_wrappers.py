"""What is put around a model changes no map; what takes a model's place is refused by its name."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel

import clarp
from clarp.capture.wrappers import shared_copy
from oracle.calls import images


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers).double().eval()


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()
        self.eval()


class Everything(Around):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class Several(Around):
    def forward(self, *inputs: Tensor) -> Any:
        return {"logits": self.inner(*inputs), "images": inputs[0]}


class Optional(Around):
    def forward(self, x: Tensor, labels: Tensor | None = None, *, flag: bool = False, **rest: Any) -> Any:
        return self.inner(x)


class Lightning(Around):
    """As a LightningModule is: attributes that raise while nobody trains it, and methods for training."""

    def __init__(self) -> None:
        super().__init__()
        self._trainer, self.example_input_array = None, torch.zeros(1, 3, 8, 8)

    @property
    def trainer(self) -> Any:
        raise RuntimeError("not attached to a trainer")

    def training_step(self, batch: Any, index: int) -> Any:
        return self(batch[0])

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Counting(Around):
    """Keeps what it has seen."""

    calls = 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.last = x
        return self.inner(x)


class Locked(Around):
    """Can't be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = (i for i in range(3))

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


def changed(change: Callable[[nn.Sequential], Any]) -> nn.Module:
    model = plain()
    change(model)
    return model.eval()


def patched(model: nn.Sequential) -> None:
    old = model.forward
    model.forward = lambda x: old(x) * 1.0  # type: ignore[method-assign]


def inference() -> nn.Module:
    with torch.inference_mode():
        return plain()


ALIKE: dict[str, Callable[[], nn.Module]] = {
    "DataParallel": lambda: nn.DataParallel(plain()).eval(),
    "DataParallel inside": lambda: nn.Sequential(nn.DataParallel(plain())).eval(),
    "AveragedModel": lambda: AveragedModel(plain()).eval(),
    "compiled": lambda: torch.compile(plain(), backend="eager"),
    "compiled inside": lambda: nn.Sequential(torch.compile(plain(), backend="eager")).eval(),
    "compiled in place": lambda: changed(lambda m: m.compile(backend="eager")),
    "compiled and parallel": lambda: torch.compile(nn.DataParallel(plain()).eval(), backend="eager"),
    "args and kwargs": Everything,
    "several inputs and results": Several,
    "optional arguments": Optional,
    "Lightning": Lightning,
    "made in inference mode": inference,
    "pruned": lambda: changed(lambda m: prune.l1_unstructured(m[0], "weight", amount=0.0)),
    "parametrised": lambda: changed(lambda m: parametrize.register_parametrization(m[0], "weight", nn.Identity())),
    "weight norm": lambda: changed(lambda m: nn.utils.parametrizations.weight_norm(m[0])),
    "a hook": lambda: changed(lambda m: m[0].register_forward_hook(lambda module, args, output: output * 1.0)),
    "a hook that keeps": lambda: changed(
        lambda m: m[0].register_forward_hook(lambda module, args, output: setattr(m, "kept", output))
    ),
    "a patched forward": lambda: changed(patched),
    "keeps what it sees": Counting,
    "can't be copied": Locked,
    "fx": lambda: torch.fx.symbolic_trace(plain()).eval(),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile warns of torch.jit
@pytest.mark.parametrize("name", ALIKE)
def test_the_same_map_and_an_untouched_model(name: str) -> None:
    x, model = images(3, 3, 8, 8), ALIKE[name]()
    before = [id(parameter) for parameter in model.parameters()]
    explainer = clarp.Explainer(model, "lrp")
    expected = clarp.Explainer(plain(), "lrp")(x, target=1).relevance
    assert torch.allclose(explainer(x, target=1).relevance, expected, rtol=1e-9, atol=1e-12)
    assert [id(parameter) for parameter in model.parameters()] == before
    assert {type(parameter) for parameter in model.parameters()} == {nn.Parameter}
    graph = explainer.network.graph((3, 8, 8), torch.float64)
    with torch.no_grad():
        model(x)  # of its own accord
    assert explainer.network.graph((3, 8, 8), torch.float64) is graph
    assert "0" in {path.rpartition(".")[2] for path in explainer.layers()}


def test_what_a_forward_keeps_is_not_kept_of_the_capture() -> None:
    model = Counting()
    clarp.Explainer(model, "lrp")(images(3, 3, 8, 8))
    assert model.calls == 0
    assert not hasattr(model, "last")


def test_a_copy_shares_tensors_and_what_is_private() -> None:
    model = Lightning()
    model._trainer = object()
    model.settings = {"weights": [torch.ones(3)]}
    twin = shared_copy(model)
    assert twin is not model
    assert twin.inner[0] is not model.inner[0]
    assert all(a is b for a, b in zip(twin.parameters(), model.parameters(), strict=True))
    assert twin._trainer is model._trainer
    assert twin.settings is not model.settings
    assert twin.settings["weights"][0] is model.settings["weights"][0]


def test_a_weight_of_a_wrapped_model_that_changes_is_seen() -> None:
    inner = plain()
    explainer = clarp.Explainer(nn.DataParallel(inner).eval(), "lrp")
    first = explainer(images(1, 3, 8, 8)).logits
    with torch.no_grad():
        inner[4].weight *= 2
    assert not torch.equal(explainer(images(1, 3, 8, 8)).logits, first)


def traced() -> nn.Module:
    return torch.jit.trace(plain(), images(1, 3, 8, 8))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "traced": (traced, "the model is TorchScript.*load_state_dict"),
    "scripted": (lambda: torch.jit.script(plain()), "the model is TorchScript"),
    "frozen": (lambda: torch.jit.freeze(traced()), "the model is TorchScript"),
    "traced inside": (lambda: nn.Sequential(traced()).eval(), "its module '0' is TorchScript"),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(plain().float(), {nn.Linear}, dtype=torch.qint8),
        "its module '4' is quantised .*Load the floating model",
    ),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).eval(), "its module '1' .* parameters without values"),
    "without values": (lambda: plain().to("meta"), "parameters without values .on the device meta"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    build, reason = REFUSED[name]
    dtype = torch.float32 if name == "quantised" else torch.float64
    with pytest.raises(clarp.CaptureError, match=reason):
        clarp.Explainer(build(), "lrp")(images(3, 3, 8, 8, dtype=dtype))


def test_images_by_keyword_only_are_refused() -> None:
    class ByName(Around):
        def forward(self, *, images: Tensor) -> Any:
            return self.inner(images)

    with pytest.raises(clarp.CaptureError, match="takes no positional argument"):
        clarp.Explainer(ByName(), "lrp")(images(3, 3, 8, 8))


def test_a_copy_of_the_model_gives_the_same() -> None:
    x, model = images(3, 3, 8, 8), Everything()
    assert torch.equal(clarp.attribute(copy.deepcopy(model), x, 1), clarp.attribute(model, x, 1))
