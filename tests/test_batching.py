"""A batch in parts gives what it gives as a whole, and what does not fit is made smaller until it does."""

import re
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import batching
from clarp import programs as programs_module
from clarp.batching import Need, free_memory
from clarp.explaining import Explaining
from clarp.network import Network
from clarp.operations import Convolution
from clarp.query import Query
from oracle import nets
from oracle.calls import images

PLAN: nets.Plan = (
    ("conv", {"conv": {"in_channels": 3, "out_channels": 4, "kernel_size": 3}, "norm": True}),
    ("relu", {}),
    ("residual", {"inputs": 4, "outputs": 6, "stride": 2, "bias": True}),
    ("global", {"inputs": 6, "outputs": 5}),
)
B = 5
QUESTIONS: dict[str, dict[str, Any]] = {
    "the top class": {},
    "one class": {"target": 3},
    "a class each": {"target": [0, 1, 2, 3, 4]},
    "three classes each": {"target": [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0], [4, 0, 1]]},
    "against some": {"target": [[0, 1]] * B, "against": [3, 4]},
    "against other classes each": {"target": 0, "against": [[1, 2], [2, 3], [3, 4], [4, 1], [1, 3]]},
    "the top class, against some": {"against": [3, 4]},
    "with layers": {"target": [[0, 1]] * B, "layers": ["0", "3"]},
}


@cache
def model() -> Network:
    """One for all tests, so that it is captured once; none changes it."""
    return Network(nets.build(PLAN))


def same(parts: clarp.Explanation, whole: clarp.Explanation) -> None:
    """Equal but for the last digits: a batch of another size is summed in another order."""

    def close(one: Tensor, other: Tensor) -> None:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)

    for name in ("relevance", "logits", "target", "selection_skipped", "images"):
        close(getattr(parts, name), getattr(whole, name))
    assert (parts.against is None) == (whole.against is None)
    if whole.against is not None:
        assert torch.equal(parts.against, whole.against)
    assert parts.layers.keys() == whole.layers.keys()
    for name, value in whole.layers.items():
        close(parts.layers[name], value)
    for name in ("seed", "size", "pixels"):
        close(getattr(parts.ledger, name), getattr(whole.ledger, name))
    assert len(parts.ledger.entries) == len(whole.ledger.entries)
    for one, other in zip(parts.ledger, whole.ledger, strict=True):
        assert one.node is other.node
        for name in ("arrived", "handed_on", "selection", "bias"):
            close(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("method", "question"),
    [
        (method, question)
        for method in ("ssglrp", "clarp", "clrp2")
        for question, asked in QUESTIONS.items()
        if method != "clrp2" or "against" not in asked  # it has no rivals
    ],
)
def test_parts_equal_the_whole(method: str, question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = QUESTIONS[question]
    explainer, x = clarp.Explainer(model(), method), images(B, 3, 8, 8)
    whole = explainer(x, **asked)
    for size in (1, 2, B, 99, "auto"):
        same(explainer(x, **asked, batch_size=size), whole)
    monkeypatch.setattr(batching, "free_memory", lambda _: 1)  # one target of one image at a time
    same(explainer(x, **asked, batch_size="auto"), whole)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many images and targets each part had."""
    found: list[tuple[int, int]] = []
    explain = Explaining.at_once

    def noted(self: Explaining, query: Query) -> Any:
        found.append((len(query.images), query.targets))
        return explain(self, query)

    monkeypatch.setattr(Explaining, "at_once", noted)
    return found


@pytest.mark.parametrize(
    ("images_that_fit", "targets_that_fit", "expected"),
    [
        (5, 3, [(5, 3)]),
        (2, 3, [(2, 3), (2, 3), (1, 3)]),
        (1, 2, [(1, 2), (1, 1)] * 5),
        (1, 0.1, [(1, 1)] * 15),
    ],
)
def test_auto_fills_its_share_of_the_free_memory(
    images_that_fit: float, targets_that_fit: float, expected: list, calls: list, monkeypatch
) -> None:
    explainer, x = clarp.Explainer(model(), "ssglrp"), images(B, 3, 8, 8)
    explainer(x)
    calls.clear()
    program = explainer._program(x)[0]
    need = Need.of(program.plan, explainer.method, x.dtype)
    bytes_free = images_that_fit * (need.image + targets_that_fit * need.target) / batching.FRACTION
    monkeypatch.setattr(batching, "free_memory", lambda _: bytes_free + 1)
    explainer(x, target=[[0, 1, 2]] * B, batch_size="auto")
    assert calls == expected


@pytest.mark.parametrize(
    ("method", "copies"),
    [
        ("lrp", 5),
        ("ssglrp", 5 + 3),
        ("clrp2", 15),
        (clarp.Method(clarp.seeds.SoftmaxGradient(), passes="two_pass"), 15),
        (clarp.Method(clarp.seeds.Logit(), clarp.Selection("neuron", "all"), passes="dual"), 15 + 3),
    ],
    ids=["one pass", "with selection", "dual", "two passes", "dual with selection"],
)
def test_how_much_memory_is_needed(method: str | clarp.Method, copies: int) -> None:
    """Of the largest value, a pass back has five copies at work, two passes fifteen, and selection three more."""
    explainer, x = clarp.Explainer(model(), method), images(B, 3, 8, 8)
    plan = explainer._program(x)[0].plan
    sizes = [3 * 8 * 8, *(torch.Size(node.shape).numel() for node in plan.graph)]
    for dtype, size in ((torch.float32, 4), (torch.float64, 8)):
        assert Need.of(plan, explainer.method, dtype) == Need(sum(sizes) * size, copies * max(sizes) * size)


def raising(kind: Callable[[], Exception], above: int, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions that fail above so many images, forwards or (with targets) backwards."""
    done = getattr(Convolution, where)

    def limited(self: Convolution, first: Any, *rest: Any, **more: Any) -> Any:
        if len(first if isinstance(first, Tensor) else first[0]) > above:
            raise kind()
        return done(self, first, *rest, **more)

    monkeypatch.setattr(Convolution, where, limited)


FULL = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    MemoryError,
]


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("size", [5, "auto"])
def test_out_of_memory_halves_the_images(kind: Any, size: Any, calls: list, monkeypatch) -> None:
    explainer, x = clarp.Explainer(model(), "ssglrp"), images(B, 3, 8, 8)
    whole = explainer(x, target=[[0, 1]] * B)
    calls.clear()
    raising(kind, 2, "forward", monkeypatch)
    same(explainer(x, target=[[0, 1]] * B, batch_size=size), whole)
    assert calls == [(5, 2), (3, 2), (2, 2), (1, 2), (2, 2)]


def test_then_the_targets(calls: list, monkeypatch) -> None:
    explainer, x = clarp.Explainer(model(), "ssglrp"), images(2, 3, 8, 8)
    target = [[0, 1, 2], [3, 4, 0]]
    whole = explainer(x, target=target)
    calls.clear()
    raising(FULL[0], 2, "transpose", monkeypatch)
    same(explainer(x, target=target, batch_size="auto"), whole)
    assert calls == [(2, 3), (1, 3), (1, 2), (1, 1), (1, 2), (1, 1)]


def test_where_nothing_helps_the_error_is_the_users(monkeypatch) -> None:
    explainer, x = clarp.Explainer(model(), "lrp"), images(3, 3, 8, 8)
    explainer(x)
    raising(FULL[0], 0, "forward", monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        explainer(x, batch_size="auto")
    with pytest.raises(torch.OutOfMemoryError):
        explainer(x)


def test_without_a_batch_size_nothing_is_split(calls: list, monkeypatch) -> None:
    explainer, x = clarp.Explainer(model(), "lrp"), images(3, 3, 8, 8)
    explainer(x)
    raising(FULL[0], 2, "forward", monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        explainer(x)
    assert calls[1:] == [(3, 1)]


def test_other_errors_are_not_retried(calls: list, monkeypatch) -> None:
    explainer, x = clarp.Explainer(model(), "lrp"), images(3, 3, 8, 8)
    explainer(x)
    raising(lambda: RuntimeError("something else"), 1, "forward", monkeypatch)
    with pytest.raises(RuntimeError, match="something else"):
        explainer(x, batch_size="auto")
    assert calls[1:] == [(3, 1)]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one(size: int) -> None:
    with pytest.raises(ValueError, match=rf"batch_size is {size}, expected at least 1, 'auto' or None"):
        clarp.Explainer(model())(images(1, 3, 8, 8), batch_size=size)


@pytest.mark.parametrize("size", [True, 2.0, "all", [2]])
def test_no_batch_size(size: object) -> None:
    with pytest.raises(TypeError, match=re.escape(f"batch_size is {size!r}, expected a whole number")):
        clarp.Explainer(model())(images(1, 3, 8, 8), batch_size=size)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": [0, 1, 2, 3, 99]}, "target has .99."),
        ({"target": [0, 1]}, r"target has the shape \(2,\) for 5 image"),
        ({"against": [[1, 2], [2, 3]]}, r"against has the shape \(2, 2\) for 5 image"),
        ({"target": [0, 1, 2, 3, 4], "against": 4}, "nobody is left"),
    ],
)
def test_wrong_arguments_are_found_before_the_first_part(wrong: dict, message: str, calls: list) -> None:
    with pytest.raises(ValueError, match=message):
        clarp.Explainer(model(), "sglrp")(images(B, 3, 8, 8), **wrong, batch_size=2)
    assert not calls


def test_pixels_out_of_bounds_are_too(calls: list) -> None:
    x = images(B, 3, 8, 8).clamp(0, 1)
    x[4, 0, 0, 0] = 200
    with pytest.raises(ValueError, match="more than the whole range"):
        clarp.Explainer(model(), bounds=(0.0, 1.0))(x, batch_size=2)
    assert not calls


def test_the_warning_has_the_number_in_the_whole_batch_and_the_users_line() -> None:
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(3.0)
    lossy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer).double().eval()
    x = torch.ones(4, 3, 4, 4, dtype=torch.float64) * 5
    x[3] /= 15
    with pytest.warns(clarp.RelevanceLost, match="image 3, class 0") as caught:
        clarp.Explainer(lossy, "lrp", composite="zero")(x, 0, batch_size=2)
    assert caught[0].filename == __file__


def test_free_memory_is_what_the_container_has_left(tmp_path, monkeypatch) -> None:
    available = 10 << 30
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    monkeypatch.setattr(batching, "CGROUP", tmp_path)
    cpu = torch.device("cpu")
    assert free_memory(cpu) == available
    for limit, expected in (("max", available), (str(4 << 30), (4 << 30) - 1000 + 300)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("1000\n")
        (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 300\n")
        assert free_memory(cpu) == expected


def test_programs_of_old_sizes_go(monkeypatch) -> None:
    monkeypatch.setattr(programs_module, "KEPT", 2)
    explainer = clarp.Explainer(model(), "lrp")
    for size in (8, 9, 8, 10):
        explainer(images(1, 3, size, 8))
    assert [key[0] for key in explainer._programs._made] == [(3, 8, 8), (3, 10, 8)]


@pytest.mark.parametrize("shape", [(5,), (B, 5), (1, 5), (B, 2, 5), (B, 1, 5)])
def test_a_seed_of_ones_own_is_split_like_the_images(shape: tuple[int, ...]) -> None:
    explainer = clarp.Explainer(model(), clarp.Method(clarp.seeds.Vector(images(*shape, seed=3))))
    x, target = images(B, 3, 9, 8), [[0, 1]] * B
    same(explainer(x, target, batch_size=2), explainer(x, target))


def test_a_seed_of_the_wrong_shape_is_refused_in_parts_too() -> None:
    """Also where each part would find its number of images."""
    explainer = clarp.Explainer(model(), clarp.Method(clarp.seeds.Vector(images(2, 5))))
    for size in (None, 2):
        with pytest.raises(ValueError, match=r"shape \(2, (1, )?5\), expected .* = \(5, 1, 5\)"):
            explainer(images(B, 3, 9, 8), 0, batch_size=size)
