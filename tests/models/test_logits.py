"""The logits of a model that returns something else, and that they are an explanation's."""

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.capture.link import Clamp, Exp, Link, Log, LogSigmoid, LogSoftmax, Scale, Sigmoid, Softmax
from clarp.models.logits import Logits
from clarp.network import Network


def net() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    with torch.no_grad():
        model[-1].weight.mul_(20)
    return model.eval()


@pytest.mark.parametrize(
    "link", [nn.Softmax(1), nn.LogSoftmax(-1), nn.Sigmoid(), nn.LogSigmoid(), None], ids=str
)
def test_they_are_the_explanations(link: nn.Module | None) -> None:
    inner, images = net(), torch.randn(3, 3, 8, 8)
    model = inner if link is None else nn.Sequential(inner, link).eval()
    network = Network(model)
    logits = Logits.of(model, network, images[0])
    explanation = clarp.Explainer(network, "lrp")(images)
    torch.testing.assert_close(
        logits.probabilities(images), explanation.probabilities.double(), atol=1e-6, rtol=1e-4
    )
    if not isinstance(link, nn.Softmax | nn.LogSoftmax):
        torch.testing.assert_close(logits(images).float(), explanation.logits, atol=1e-4, rtol=1e-4)


LINKS = (
    Link((Softmax(),)),
    Link((LogSoftmax(),)),
    Link((Sigmoid(),)),
    Link((LogSigmoid(),)),
    Link((Scale(-1.0, 0.0), Sigmoid(), Scale(-1.0, 1.0))),  # 1 - sigmoid
    Link((Sigmoid(), Clamp(1e-3, 1 - 1e-3))),
    Link((Softmax(), Scale(1.0, 1e-8), Log())),
    Link((LogSoftmax(), Exp())),
    Link((Sigmoid(), Scale(100.0, 0.0))),  # percent
)


@pytest.mark.parametrize("link", LINKS, ids=map(str, LINKS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_the_type_can_not_tell_is_finite_and_in_order(link: Link, dtype: torch.dtype) -> None:
    logits = torch.tensor([[-1e4, -3.0, 0.0, 3.0, 1e4]]).to(dtype)
    found = link.undone(link(logits))
    assert found.isfinite().all()
    assert (found.diff() * (1 if link.rising or link.squash == "sigmoid" else -1) >= 0).all()
    assert found.argmax() == 4


@pytest.mark.parametrize("link", LINKS, ids=map(str, LINKS))
def test_a_link_is_undone(link: Link) -> None:
    logits = torch.randn(3, 5, dtype=torch.float64)
    found = link.undone(link(logits))
    if link.squash == "softmax":
        found, logits = found.log_softmax(1), logits.log_softmax(1)
    torch.testing.assert_close(found, logits, atol=1e-6, rtol=1e-6)


def test_a_model_that_can_not_be_captured_is_taken_at_its_word() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if x.sum() > 0 else self.inner(-x)

    model, images = Branches().eval(), torch.rand(2, 3, 8, 8)
    logits = Logits.of(model, Network(model), images[0])
    assert torch.equal(logits(images), model(images))


def test_train_mode_is_refused() -> None:
    model = net().train()
    with pytest.raises(ValueError, match="train mode"):
        Logits.of(model, Network(model), torch.rand(3, 8, 8))
