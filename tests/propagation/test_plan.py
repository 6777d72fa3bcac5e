"""The plan as a table, as dictionaries and as a data frame."""

import pytest
import torch
from torch import nn

import clarp


@pytest.fixture(scope="module")
def plan() -> "clarp.propagation.Plan":  # type: ignore[name-defined]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6)).eval()
    return clarp.Explainer(model, "lrp").plan((3, 8, 8))


def test_rows(plan: "clarp.propagation.Plan") -> None:  # type: ignore[name-defined]
    assert [(row["module"], row["operation"], row["output"], row["rule"]) for row in plan.rows()] == [
        ("0", "Convolution", "4 x 6 x 6", "ZBox()"),
        ("1", "ReLU", "4 x 6 x 6", "Pass()"),
        ("2", "Reshape", "144", "Transport()"),
        ("3", "Dense", "6", "ZPlus()"),
    ]


def test_printed_in_columns(plan: "clarp.propagation.Plan") -> None:  # type: ignore[name-defined]
    head, rule, *body = str(plan).splitlines()
    assert head.split() == ["module", "operation", "output", "rule"]
    assert set(rule) == {"-", " "}
    for column in ("operation", "output", "rule"):
        at = head.index(column)
        for line, row in zip(body, plan.rows(), strict=True):
            assert line[at:].startswith(row[column])
            assert line[at - 1] == " "


def test_frame(plan: "clarp.propagation.Plan") -> None:  # type: ignore[name-defined]
    pytest.importorskip("pandas")
    assert plan.to_frame().to_dict("records") == plan.rows()
