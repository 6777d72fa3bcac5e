"""The ledger as a table, as dictionaries and as a data frame: the same numbers, and they add up."""

import builtins
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.network import Network

SINKS = ("selection", "bias", "epsilon")


@pytest.fixture(scope="module")
def explanation() -> clarp.Explanation:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 6)
    )
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    explainer = clarp.Explainer(model.double().eval(), "ssglrp", composite="epsilon-gamma-box")
    return explainer(images, target=[[1, 2, 3], [4, 5, 0]])


def test_rows_are_the_entries(explanation: clarp.Explanation) -> None:
    ledger = explanation.ledger
    for image, target in ((0, 0), (1, 2)):
        rows = ledger.rows(image, target)
        assert len(rows) == len(ledger.entries)
        for row, entry in zip(rows, ledger, strict=True):
            assert row["module"] == (entry.node.module or "(model)")
            assert row["rule"] == repr(entry.rule)
            for what in ("arrived", "handed_on", *SINKS):
                assert row[what] == getattr(entry, what)[image, target].item()
            assert row["arrived"] == pytest.approx(
                row["handed_on"] + sum(row[what] for what in SINKS), abs=1e-12
            )
        lost = sum(row[what] for row in rows for what in SINKS)
        assert ledger.seed[image, target].item() == pytest.approx(
            ledger.pixels[image, target].item() + lost, abs=1e-12
        )


@pytest.mark.parametrize("method", ["lrp", "clrp2"])
def test_a_logit_without_an_axis_of_its_own_has_the_same_ledger(method: str) -> None:
    """Of shape (B,): each image and class has its own balance, as it has where the logit is of shape (B, 1)."""
    torch.manual_seed(0)
    rows = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1)).double().eval()
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    found, expected = (
        clarp.Explainer(model, method, task="binary")(images, target=[[1, 0], [0, 1], [1, 0]]).ledger
        for model in (nn.Sequential(*rows, nn.Flatten(0)).eval(), rows)
    )
    own = {entry.node.module: entry for entry in found}
    for entry in expected:
        assert torch.equal(own[entry.node.module].arrived, entry.arrived)
    assert all(entry.arrived.shape == (3, 2) for entry in found)


def test_size_is_what_a_contrasting_seed_weighs(explanation: clarp.Explanation) -> None:
    """SGLRP's seed: 1 for the target, -1 for all rivals together."""
    assert torch.allclose(explanation.ledger.seed, torch.zeros(2, 3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(explanation.ledger.size, torch.full((2, 3), 2.0, dtype=torch.float64))


@pytest.mark.parametrize(("image", "target"), [(2, 0), (0, 3), (-1, 0)])
def test_rows_of_what_is_not_there(explanation: clarp.Explanation, image: int, target: int) -> None:
    with pytest.raises(IndexError, match=r"2 image\(s\) with 3 target\(s\)"):
        explanation.ledger.rows(image, target)


def test_dictionary_is_json(explanation: clarp.Explanation) -> None:
    found = json.loads(json.dumps(explanation.ledger.to_dict()))
    assert found["pixels"] == explanation.ledger.pixels.tolist()
    assert [row["arrived"] for row in found["operations"]] == [e.arrived.tolist() for e in explanation.ledger]
    assert [row["operation"] for row in found["operations"]] == [
        row["operation"] for row in explanation.ledger.rows()
    ]


def test_frame(explanation: clarp.Explanation) -> None:
    pytest.importorskip("pandas")
    ledger = explanation.ledger
    frame = ledger.to_frame()
    assert len(frame) == 6 * len(ledger.entries)
    lost = frame.groupby(["image", "target"])[list(SINKS)].sum().sum(axis=1)
    assert torch.allclose(torch.tensor(lost.to_numpy()).view(2, 3), ledger.seed - ledger.pixels, atol=1e-12)
    one = frame[(frame.image == 1) & (frame.target == 2)]
    assert one.arrived.tolist() == [row["arrived"] for row in ledger.rows(1, 2)]


def test_frame_without_pandas(explanation: clarp.Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(name)
        return importing(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        explanation.ledger.to_frame()


def test_printed(explanation: clarp.Explanation) -> None:
    lines = str(explanation.ledger).splitlines()
    rows = explanation.ledger.rows()
    size = explanation.ledger.size[0, 0].item()
    taking = [what for what in SINKS if any(abs(row[what]) >= 1e-5 * size for row in rows)]
    assert lines[0].split() == ["module", "operation", "rule", "arrived", "handed_on", *taking]
    assert taking
    body = lines[2 : 2 + len(rows)]
    for line, row in zip(body, rows, strict=True):
        assert line.startswith(row["module"])
        assert row["rule"] in line
    seed = next(line for line in lines if line.startswith("seed "))
    assert "pixels" in seed
    assert all(what in seed for what in SINKS)
    assert "the first of 6 explanations" in lines[-1]


def test_a_seed_that_sums_to_nothing_says_so() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    )
    images = torch.rand(1, 3, 8, 8)
    explainer = clarp.Explainer(model.eval(), "sglrp", bounds=(0.0, 1.0))
    said = "the ledger of a method without rivals ('lrp') shows"
    assert said in str(explainer(images, 1).ledger)
    assert said not in str(clarp.Explainer(explainer.network, "lrp", bounds=(0.0, 1.0))(images, 1).ledger)


def test_absorbers_come_in_order_and_are_named() -> None:
    """A bias of 3 beside an input of 1 takes three quarters, one of 1 the half of the rest."""
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        for layer, bias in ((first, 1.0), (second, 6.0)):
            layer.weight.fill_(1.0)
            layer.bias.fill_(bias)
    model = nn.Sequential(nn.Flatten(), first, second).double().eval()
    seed = clarp.seeds.Vector(torch.ones(1))
    e = clarp.Explainer(model, clarp.Method(seed, composite="zero"))(torch.ones(1, 1, 1, 1).double(), 0)
    taken = [(entry.node.module, amount) for entry, amount in e.ledger.absorbers()]
    assert [name for name, _ in taken] == ["2", "1"]
    assert [amount for _, amount in taken] == pytest.approx([6 / 8, 1 / 8])
    assert e.ledger.pixels.item() == pytest.approx(1 / 8)
    text = str(e.ledger)
    assert "seed +1 = pixels +0.125 + selection 0 + bias +0.875 + epsilon 0" in text
    assert "2 (Zero()) +0.75 (75%), 1 (Zero()) +0.125 (12%)" in text
    assert "selection" not in text.splitlines()[0]


def test_float32_closes_to_rounding() -> None:
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for _ in range(6):
        layers += [nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(192, 5)).eval()
    network = Network(model)
    for method in clarp.methods():
        ledger = clarp.Explainer(network, method, bounds=(0.0, 1.0))(torch.rand(3, 3, 8, 8)).ledger
        rest: Tensor = ledger.seed - ledger.pixels - sum(ledger.total(what) for what in SINKS)
        assert rest.abs().max() <= 1e-5 * ledger.size.max()


def test_what_a_softmax_absorbs_is_its_constants() -> None:
    """Its linearisation has a constant, which absorbs like a bias; nothing is left to stabilisers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Softmax(1), nn.Linear(12, 3)).double().eval()
    e = clarp.Explainer(model, "lrp", composite="zero")(torch.rand(1, 3, 2, 2).double(), 1)
    (entry,) = [entry for entry in e.ledger if type(entry.node.operation).__name__ == "Softmax"]
    assert entry.bias.abs() > 1e-3
    assert torch.allclose(entry.bias, entry.arrived - entry.handed_on)
    assert entry.epsilon.abs() < 1e-12
