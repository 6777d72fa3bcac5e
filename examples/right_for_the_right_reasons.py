"""A network learns a planted shortcut; a penalty on relevance outside of a mask cures it.

    python examples/right_for_the_right_reasons.py

The pictures hold a bar, horizontal (class 0) or vertical (class 1), among noise. In the pictures for
training, a bright mark lies in the corner of all of class 1, as a hospital's label may lie in all scans of
one disease. The mask says where the bar may be. "Right for the right reasons": Ross et al. 2017, arXiv
1703.03717, who penalise gradients; here it is relevance.

The rule of the dense head is epsilon, which sees what speaks against a class. With z+ in all layers the
shortcut stays: the mark may speak against class 0, which z+ does not see (docs/differentiable.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import clarp

SIDE, MARK = 24, 5
RULES = "epsilon-plus"
STRENGTH = 30.0
MASK = torch.ones(SIDE, SIDE)
"""Where the bar may be: 1; where it is never: 0, the corner of the mark."""
MASK[:MARK, :MARK] = 0


@dataclass(frozen=True)
class Outcome:
    """What a trained network can do.

    Attributes:
        marked: accuracy where class 1 has the mark, as in training.
        swapped: accuracy where class 0 has it instead.
        unmarked: accuracy where nothing has it.
        outside: the share of the relevance that lies outside of the mask, where class 1 has the mark.
    """

    marked: float
    swapped: float
    unmarked: float
    outside: float


def pictures(count: int, mark: Literal["class 0", "class 1", "none"], seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (B, 1, H, W) between 0 and 1, and their classes (B,)."""
    draw = torch.Generator().manual_seed(seed)
    images = 0.5 * torch.rand(count, 1, SIDE, SIDE, generator=draw)
    classes = torch.randint(2, (count,), generator=draw)
    corners = torch.randint(MARK + 1, SIDE - 8, (count, 2), generator=draw)
    for image, vertical, (top, left) in zip(images, classes.tolist(), corners.tolist(), strict=True):
        height, width = (7, 2) if vertical else (2, 7)
        image[0, top : top + height, left : left + width] += 0.5
    if mark != "none":
        images[classes == int(mark[-1]), :, 1:4, 1:4] = 1.0
    return images, classes


def network(seed: int) -> nn.Module:
    """A small convolutional network for them."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 12, 7, padding=3), nn.ReLU(), nn.MaxPool2d(4),
        nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 6 * 6, 2),
    )  # fmt: skip


def outside(relevance: Tensor) -> Tensor:
    """The share of the relevance (B, 1, H, W) outside of the mask, by absolute values, (B,)."""
    size = relevance.abs().sum(1)
    return (size * (1 - MASK)).sum((1, 2)) / size.sum((1, 2)).clamp(min=1e-12)


def penalty(relevance: Tensor) -> Tensor:
    """The relevance (B, 1, H, W) outside of the mask, in absolute amounts, summed over each picture."""
    return (relevance.abs().sum(1) * (1 - MASK)).sum((1, 2)).mean()


def batches(images: Tensor, classes: Tensor, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Both in random order."""
    for rows in torch.randperm(len(images)).split(size):
        yield images[rows], classes[rows]


def trained(
    images: Tensor, classes: Tensor, *, strength: float, epochs: int = 12, seed: int = 0
) -> nn.Module:
    """A network that learned the pictures, with a penalty on relevance outside of the mask."""
    model = network(seed).eval()  # no module of it depends on the mode
    explainer = clarp.Explainer(model, "clarp", composite=RULES, bounds=(0.0, 1.0), differentiable=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(epochs):
        for some, answers in batches(images, classes):
            loss = cross_entropy(model(some), answers)
            if strength:
                loss = loss + strength * penalty(explainer(some, target=answers).relevance)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model


def outcome(model: nn.Module) -> Outcome:
    """Its accuracies on 2000 new pictures of each kind, and where it looks."""

    def accuracy(images: Tensor, classes: Tensor) -> float:
        with torch.no_grad():
            return float((model(images).argmax(1) == classes).float().mean())

    marked = pictures(2000, "class 1", seed=1)
    explainer = clarp.Explainer(model, "clarp", composite=RULES, bounds=(0.0, 1.0))
    relevance = explainer(marked[0][:200], target=marked[1][:200]).relevance
    return Outcome(
        accuracy(*marked),
        accuracy(*pictures(2000, "class 0", seed=2)),
        accuracy(*pictures(2000, "none", seed=3)),
        float(outside(relevance)[marked[1][:200] == 1].mean()),
    )


def outcomes(count: int = 1500, epochs: int = 12) -> dict[str, Outcome]:
    """The network on marked pictures without and with the penalty, and on pictures that never had a mark."""
    marked, clean = pictures(count, "class 1", seed=0), pictures(count, "none", seed=0)
    runs: dict[str, Callable[[], nn.Module]] = {
        "marked, no penalty": lambda: trained(*marked, strength=0, epochs=epochs),
        "marked, penalty": lambda: trained(*marked, strength=STRENGTH, epochs=epochs),
        "never marked": lambda: trained(*clean, strength=0, epochs=epochs),
    }
    return {name: outcome(run()) for name, run in runs.items()}


def main() -> None:
    """Print a table."""
    print(f"{'trained on':20} {'mark on 1':>10} {'mark on 0':>10} {'no mark':>10} {'relevance outside':>18}")
    for name, found in outcomes().items():
        numbers = f"{found.marked:10.3f} {found.swapped:10.3f} {found.unmarked:10.3f} {found.outside:18.3f}"
        print(f"{name:20} {numbers}")


if __name__ == "__main__":
    main()
