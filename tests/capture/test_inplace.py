"""In-place operations: the user's program stays as it is, and a refusal names only what has no rule."""

import pytest
import torch
from torch import Tensor, nn

import clarp


class InPlace(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv, self.relu, self.activation, self.head = (
            nn.Conv2d(3, 4, 3),
            nn.ReLU(inplace=True),
            activation,
            nn.Linear(4, 5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.activation(self.relu(self.conv(x))).mean((2, 3)))


def test_an_exported_program_is_not_rewritten() -> None:
    model = InPlace(nn.Identity()).eval()
    images = torch.rand(2, 3, 8, 8)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    before = program.graph_module.code
    assert "relu_" in before
    explanation = clarp.Explainer(program, "sglrp", bounds=(0.0, 1.0))(images, 1)
    assert program.graph_module.code == before
    expected = clarp.Explainer(model, "sglrp", bounds=(0.0, 1.0))(images, 1)
    assert torch.allclose(explanation.relevance, expected.relevance, atol=1e-6)


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin_()


def test_a_refusal_names_only_what_has_no_rule() -> None:
    model = InPlace(Sine()).eval()
    with pytest.raises(clarp.UnsupportedOperation) as refusal:
        clarp.Explainer(model)(torch.rand(1, 3, 8, 8))
    assert "sin_" in str(refusal.value)
    assert "relu_" not in str(refusal.value)
    assert "1 operation" in str(refusal.value)
    assert "share" not in str(refusal.value)
