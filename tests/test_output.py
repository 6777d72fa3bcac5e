"""Models that return several results: the logits by name, by place, or because there is no doubt."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clarp

X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Pair = namedtuple("Pair", ["scores", "aux"])  # noqa: PYI024  as users write them


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


class Several(nn.Module):
    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.made = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), made

    def forward(self, x: Tensor) -> Any:
        return self.made(self.fc(self.conv(x).relu().mean((2, 3))))


RESULTS: dict[str, tuple[Callable[[Tensor], Any], str | int | None]] = {
    "a dictionary of one": (lambda y: {"out": y}, None),
    "a tuple of one": (lambda y: (y,), None),
    "logits among others": (lambda y: {"features": y * 2, "logits": y}, None),
    "the logits of a dataclass": (lambda y: Output(y, y * 2), None),
    "a dataclass with None": (Output, None),
    "a key": (lambda y: {"features": y * 2, "out": y}, "out"),
    "a key that is a number": (lambda y: {0: y * 2, 1: y}, 1),
    "a place": (lambda y: (y * 2, y), 1),
    "a name of a tuple": (lambda y: Pair(y, y * 2), "scores"),
    "an attribute": (lambda y: Output(y * 2, y), "hidden"),
}


@pytest.mark.parametrize("which", RESULTS)
def test_the_map_is_that_of_the_logits_alone(which: str) -> None:
    made, output = RESULTS[which]
    explainer = clarp.Explainer(Several(made).eval(), "slrp", output=output)
    e, alone = (
        explainer(X, [1, 2], layers=["conv"]),
        clarp.Explainer(Several(lambda y: y).eval(), "slrp")(X, [1, 2]),
    )
    assert torch.equal(e.logits, alone.logits)
    assert torch.equal(e.relevance, alone.relevance)
    assert e.model == "Several"
    assert explainer.plan().rows()[0]["module"] == "conv"
    assert "test_output.py" in explainer.plan().rows()[0]["source"]


@pytest.mark.parametrize(
    ("made", "output", "parts"),
    [
        (lambda y: {"a": y, "b": y * 2}, None, ("dict", r"output='a' \(2, 5\), output='b' \(2, 5\)")),
        (lambda y: (y, y * 2), None, ("tuple", r"output=0 \(2, 5\), output=1 \(2, 5\)")),
        (lambda y: (y, y * 2), 2, ("tuple without a tensor 2", "output=0")),
        (Output, "hidden", ("Output without a tensor 'hidden'", "output='logits'")),
        (lambda y: y, "logits", ("single Tensor", "Leave output out")),
        (lambda y: None, None, ("NoneType", "none")),
        (lambda y: {"logits": torch.stack([y, y], 2)}, None, (r"\(2, 5, 2\)", r"\(B, N\)")),
    ],
)
def test_what_can_not_be_chosen(made: Callable[[Tensor], Any], output: Any, parts: tuple[str, ...]) -> None:
    with pytest.raises(clarp.CaptureError, match=".*".join(parts)):
        clarp.Explainer(Several(made).eval(), "lrp", output=output)(X)


def test_what_was_taken_among_several_is_noted(tmp_path: Path) -> None:
    """Not where there was one result, nor where the user named it; also from the cache, and of a program."""

    def noted(model: Any, output: Any = None, **options: Any) -> list[str]:
        network = clarp.network.Network(model, output, **options)
        return [note for note in clarp.Explainer(network, "lrp")(X).notes if note.startswith("output")]

    model = Several(RESULTS["logits among others"][0]).eval()
    said = "output: of its results (features, logits), logits was taken; name another with `--output` or `output=`"
    assert noted(model) == [said]
    assert noted(torch.export.export(model, (X,))) == [said]
    assert [noted(model, cache=tmp_path) for _ in range(2)] == [[said]] * 2
    e = clarp.Explainer(model, "lrp", differentiable=True)(X)
    assert said in e.notes
    assert said in e.describe()["notes"]
    assert noted(model, "features") == noted(model, "logits") == []
    assert noted(Several(RESULTS["a tuple of one"][0]).eval()) == []
    assert noted(Several(lambda y: y).eval()) == []
    assert "(0, 1), 1 was taken" in noted(Several(lambda y: (y.softmax(1), y)).eval())[0]


@pytest.mark.parametrize("output", [1.5, True, ["logits"], (0, 1.5), (0, True), ()])
def test_outputs_of_another_kind(output: Any) -> None:
    with pytest.raises(TypeError, match="output is"):
        clarp.Explainer(Several(lambda y: y), output=output)


def test_a_network_keeps_its_own() -> None:
    made, output = RESULTS["a key"]
    network = clarp.Explainer(Several(made).eval(), "lrp", output=output).network
    assert clarp.Explainer(network, "lrp")(X).relevance.shape == X.shape
    with pytest.raises(ValueError, match=r"Network\(model, output\)"):
        clarp.Explainer(network, output="features")


@pytest.mark.parametrize(("output", "logits"), [("out", 1.0), ("features", 2.0)])
def test_exported_programs(output: str, logits: float) -> None:
    model = Several(RESULTS["a key"][0]).eval()
    program = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    e = clarp.Explainer(program, "lrp", output=output)(X)
    with torch.no_grad():
        assert torch.allclose(e.logits, logits * model(X)["out"])
    with pytest.raises(clarp.CaptureError, match=r"output='features' \(2, 5\), output='out'"):
        clarp.Explainer(program, "lrp")(X)


class Needs(nn.Module):
    def __init__(self, *, keyword: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.forward = self.by_keyword if keyword else self.by_place  # type: ignore[method-assign]

    def by_place(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.fc((x * mask).mean((2, 3)))

    def by_keyword(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return self.fc((x * mask).mean((2, 3)))


@pytest.mark.parametrize("keyword", [True, False])
def test_models_of_several_inputs(keyword: bool) -> None:
    with pytest.raises(ValueError, match=r"\(x, mask\) needs mask beside the images.*inputs="):
        clarp.Explainer(Needs(keyword=keyword).eval())(X)


NESTED: dict[str, tuple[Callable[[Tensor], Any], Any]] = {
    "a place in a place": (lambda y: ([y * 2, y], y.mean(1)), (0, 1)),
    "a key of a key": (
        lambda y: {"head": {"logits": y, "aux": y * 2}, "features": y * 3},
        ("head", "logits"),
    ),
    "with dots": (lambda y: {"head": {"logits": y, "aux": y * 2}, "features": y * 3}, "head.logits"),
    "a place of a key": (lambda y: {"heads": (y * 2, y)}, "heads.1"),
    "an attribute of a place": (lambda y: (Output(y * 2, y), y * 3), (0, "hidden")),
    "a key with a dot": (lambda y: {"head.logits": y, "head": {"logits": y * 2}}, "head.logits"),
    "the only one, nested": (lambda y: [{"out": (y,)}], None),
    "logits beside what is nested": (lambda y: {"logits": y, "hidden": (y * 2, y * 3)}, None),
}


@pytest.mark.parametrize("which", NESTED)
def test_nested_results(which: str) -> None:
    made, output = NESTED[which]
    e = clarp.Explainer(Several(made).eval(), "lrp", output=output)(X, 1)
    assert torch.equal(e.relevance, clarp.Explainer(Several(lambda y: y).eval(), "lrp")(X, 1).relevance)


def test_there_is_no_guess_between_nested_results() -> None:
    """What lies on top may be an embedding, and the logits deeper."""
    with pytest.raises(
        clarp.CaptureError, match=r"output=\(0, 0\) \(2, 5\), output=\(0, 1\) \(2, 5\), output=1 \(2, 5\)"
    ):
        clarp.Explainer(Several(lambda y: ([y, y], y * 2)).eval(), "lrp")(X)
    with pytest.raises(clarp.CaptureError, match=r"without a tensor 'head.other'"):
        clarp.Explainer(Several(NESTED["with dots"][0]).eval(), "lrp", output="head.other")(X)


PAIRS: dict[str, Callable[[Tensor], Any]] = {
    "probabilities first, as ultralytics returns them": lambda y: (y.softmax(1), y),
    "probabilities second": lambda y: (y, y.softmax(1)),
    "by name": lambda y: {"scores": y, "probabilities": y.softmax(-1)},
    "sigmoids": lambda y: (y, y.sigmoid()),
    "inside": lambda y: [{"p": y.softmax(1)}, {"z": y}],
}


@pytest.mark.parametrize("which", PAIRS)
def test_logits_beside_their_probabilities_are_no_question(which: str) -> None:
    model = Several(PAIRS[which]).eval()
    task = "multilabel" if which == "sigmoids" else "multiclass"
    alone = clarp.Explainer(Several(lambda y: y).eval(), "slrp", task=task)(X, [1, 2])
    for given in (model, torch.export.export(model, (X,))):
        e = clarp.Explainer(given, "slrp")(X, [1, 2])
        assert torch.allclose(e.logits, alone.logits)
        assert torch.allclose(e.relevance, alone.relevance)
        assert e.question.name == task


@pytest.mark.parametrize(
    "made", [lambda y: (y, y * 2), lambda y: (y.softmax(1), 2 * y), lambda y: (y, y.softmax(1), y * 2)]
)
def test_other_pairs_are_a_question(made: Callable[[Tensor], Any]) -> None:
    with pytest.raises(clarp.CaptureError, match="Say which of its results"):
        clarp.Explainer(Several(made).eval(), "slrp")(X, [1, 2])
