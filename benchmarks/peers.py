"""Does the relevance of other LRP tools sum to what they begin with? Small networks without biases, one spelling each.

python benchmarks/peers.py

Without biases LRP by z+ and epsilon conserves: the sum over the pixels is the seed. A tool that gives another sum
without a word has lost the way: at a functional sum, at a module that is called twice, at a normalisation. Prints
Markdown: the sum over the seed, or what the tool says.
"""

import logging
import warnings
from collections.abc import Callable

import torch
from contenders import autolrp, captum, zennit
from torch import Tensor, nn

import clarp


class Plain(nn.Module):
    """Convolutions and ReLUs as modules, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.relu, self.after = nn.ReLU(), nn.ReLU()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5, bias=False)

    def body(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.after(self.second(x))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.head(self.pool(self.body(self.relu(self.first(x)))).flatten(1))


class Residual(Plain):
    """A sum that is written `+`."""

    def body(self, x: Tensor) -> Tensor:  # noqa: D102
        return x + self.after(self.second(x))


class Twice(Plain):
    """One convolution that is called twice."""

    def body(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.after(self.second(torch.relu(self.second(x))))


class Copies(Plain):
    """The same with a copy of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.third.weight = self.second.weight
        self.between = nn.ReLU()

    def body(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.after(self.third(self.between(self.second(x))))


class Activation(Plain):
    """GELU in place of ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.after = nn.GELU()


class Normalised(Plain):
    """A layer norm over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8, bias=False)

    def body(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.norm(self.after(self.second(x)).movedim(1, -1)).movedim(-1, 1)


def ours(model: nn.Module, images: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    explainer = clarp.Explainer(model, "lrp", composite="epsilon-plus")
    return lambda: explainer(images, targets).relevance


NETWORKS = (Plain, Residual, Twice, Activation, Normalised)
TOOLS = {"clarp": ours, "zennit": zennit, "captum": captum, "autolrp": autolrp}


def found(tool: str, network: type[nn.Module]) -> tuple[Tensor, float]:
    """A map, and its sum over what the tool begins with: the logit, or 1."""
    torch.manual_seed(0)
    images = torch.rand(1, 3, 16, 16)
    model = network().eval()  # behind the images, which are the same for all
    with torch.no_grad():
        logits = model(images)
    targets = logits.argmax(1)
    seed = 1.0 if tool in ("zennit", "autolrp") else logits[0, targets[0]].item()
    relevance = TOOLS[tool](model, images, targets)().detach()
    return relevance, relevance.sum().item() / seed


def outcome(tool: str, network: type[nn.Module]) -> str:
    try:
        relevance, total = found(tool, network)
        if network is Twice:
            copies, _ = found(tool, Copies)
            return f"{total:.3g}, {(relevance - copies).abs().sum() / copies.abs().sum():.0%} of the map is another"
    except Exception as failed:  # noqa: BLE001  whatever a tool says is the result
        return (
            f"{type(failed).__name__}: {str(failed).splitlines()[0][:70]}"
            if str(failed)
            else type(failed).__name__
        )
    return f"{total:.3g}"


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    print(f"| | {' | '.join(TOOLS)} |\n|---|{'---|' * len(TOOLS)}")
    for network in NETWORKS:
        row = (outcome(tool, network) for tool in TOOLS)
        print(f"| {(network.__doc__ or '').rstrip('.')} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
