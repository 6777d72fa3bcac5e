"""What a differentiable explanation costs beside an ordinary one, with its backward pass.

python benchmarks/differentiable.py
"""

import time
import warnings
from collections.abc import Callable

import torch

import clarp
from clarp import models

ROUNDS = 5


def median(work: Callable[[], object]) -> float:
    work()
    found = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return sorted(found)[ROUNDS // 2]


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"{'':10} {'ordinary':>10} {'recorded':>10} {'and back':>10} {'lowered':>10}  (s, batch of 4)")
    for name in ("resnet18", "resnet50"):
        torch.manual_seed(0)
        model = models.load(name, trained=False).module
        images = torch.rand(4, 3, 224, 224)
        plain, live = (
            clarp.Explainer(model, "sglrp", bounds=(0.0, 1.0), differentiable=kind) for kind in (False, True)
        )

        def back(live: clarp.Explainer = live, images: torch.Tensor = images) -> None:
            live(images, target=1).relevance.abs().sum().backward()

        times = [
            median(lambda plain=plain, images=images: plain(images, target=1)),
            median(lambda live=live, images=images: live(images, target=1)),
            median(back),
            median(live.network.graph((3, 224, 224), torch.float32).again),
        ]
        print(f"{name:10} " + " ".join(f"{value:10.2f}" for value in times))


if __name__ == "__main__":
    main()
