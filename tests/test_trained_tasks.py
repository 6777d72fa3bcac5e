"""Models that were trained here for their task, on pictures of three shapes that occur together: is each map where the evidence is?

The maps are those of held-out pictures; nothing was tuned on them.
"""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp.models.logits import Logits
from oracle.calls import captured

SIDE, CELL, SIZE = 40, 20, 13
Pictures = tuple[Tensor, Tensor, Tensor]
"""Images (B, 1, H, W), which shapes are there (B, 3), and where each is, bool (B, 3, H, W)."""


def drawn(kind: int) -> Tensor:
    """A disc, a cross or a frame, bool (SIZE, SIZE)."""
    steps = torch.arange(SIZE) - (SIZE - 1) / 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    radius = (SIZE - 1) / 2
    if kind == 0:
        return x.square() + y.square() <= radius**2 + 0.5
    if kind == 1:
        return (x.abs() <= 1.5) | (y.abs() <= 1.5)
    return (x.abs() >= radius - 2) | (y.abs() >= radius - 2)


def pictures(count: int, seed: int) -> Pictures:
    """Noise, and on half of the pictures all three shapes or none; on the others each or not."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, SIDE, SIDE, generator=generator) * 0.3
    there = torch.rand(count, 3, generator=generator) < 0.5
    together = torch.rand(count, generator=generator) < 0.5
    there[together] = there[together][:, :1].expand(-1, 3)
    masks = torch.zeros(count, 3, SIDE, SIDE, dtype=torch.bool)
    for i, kind in there.nonzero().tolist():
        cell = int(torch.randperm(4, generator=torch.Generator().manual_seed(count + i))[kind])
        top, left = torch.randint(0, CELL - SIZE, (2,), generator=generator).tolist()
        rows = slice(top + CELL * (cell // 2), top + CELL * (cell // 2) + SIZE)
        columns = slice(left + CELL * (cell % 2), left + CELL * (cell % 2) + SIZE)
        images[i, 0, rows, columns][drawn(kind)] = 0.7 + 0.3 * torch.rand((), generator=generator)
        masks[i, kind, rows, columns] = True
    return images, there, masks


def trained(outputs: int) -> nn.Module:
    """A network whose logits are right on nearly all pictures, for the first ``outputs`` shapes."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(32, outputs),
        )
        images, there, _ = pictures(600, 0)
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(300):
            rows = torch.randint(0, len(images), (32,))
            loss = nn.functional.binary_cross_entropy_with_logits(
                model(images[rows]), there[rows, :outputs].float()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval().requires_grad_(False)


@cache
def many() -> nn.Module:
    return nn.Sequential(trained(3), nn.Sigmoid()).eval()


@cache
def one() -> nn.Module:
    return nn.Sequential(trained(1), nn.Sigmoid()).eval()


@pytest.mark.parametrize("method", ["ssglrp", "clarp"])
def test_each_findings_map_lies_on_its_own_shape(method: str) -> None:
    images, there, masks = pictures(80, 1)
    e = clarp.Explainer(captured(many()), method, bounds=(0.0, 1.0), labels=["disc", "cross", "frame"])(
        images, [["disc", "cross", "frame"]] * len(images)
    )
    assert e.task == "multilabel"
    found = there & (e.probabilities > 0.5)
    assert found.sum() >= 0.95 * there.sum()  # it was trained
    positive = e.heatmap.clamp(min=0)
    share = (positive * masks).sum((2, 3)) / positive.sum((2, 3))
    assert share[found].mean() >= 0.8
    others = there.sum(1, keepdim=True) == 3  # whatever else is in the picture
    assert share[found & others].mean() >= 0.8


def test_its_probabilities_are_the_models_wherever_they_are_shown() -> None:
    images, model = pictures(6, 2)[0], many()
    explainer = clarp.Explainer(captured(model), bounds=(0.0, 1.0), labels=["disc", "cross", "frame"])
    e, want = explainer(images), model(images)
    for shown in (
        e.probabilities,
        explainer.probabilities(images),
        Logits.of(model, captured(model), images[0]).probabilities(images).float(),
    ):
        torch.testing.assert_close(shown, want, rtol=0, atol=1e-6)
    for row, predictions in enumerate(e.predictions()):
        for prediction in predictions:
            assert prediction.probability == pytest.approx(float(want[row, prediction.index]), abs=1e-6)
    titles = [text.get_text() for text in e.plot().texts]
    assert [title for title in titles if title.endswith("%)")] == [
        f"{e.label(k)} ({float(want[i, k]):.1%})" for i, k in enumerate(want.argmax(1).tolist())
    ]


@pytest.mark.parametrize("method", ["ssglrp", "clarp", "sglrp"])
def test_it_is_so_is_red_on_the_shape_and_it_is_not_is_its_negative(method: str) -> None:
    images, there, masks = pictures(80, 3)
    images, masks = images[there[:, 0]], masks[there[:, 0], 0]
    e = clarp.Explainer(captured(one()), method, bounds=(0.0, 1.0), labels=["disc"])(
        images, [["disc", "not disc"]] * len(images)
    )
    assert e.task == "binary"
    assert (e.probabilities[:, 1] > 0.5).float().mean() >= 0.95
    so, is_not = e.heatmap[:, 0], e.heatmap[:, 1]
    strongest = so.flatten(1).abs().argmax(1, keepdim=True)
    red = (so.flatten(1).gather(1, strongest) > 0) & masks.flatten(1).gather(1, strongest)
    on_it = (so * masks).sum((1, 2)) > 0
    assert (red[:, 0] & on_it).float().mean() >= 0.95
    assert torch.equal(is_not, -so)
