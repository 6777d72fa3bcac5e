"""What an explanation costs, in units of the model's own inference forward: medians, interleaved, in one process.

python benchmarks/speed.py --model resnet50 --batch 8 --repeats 7
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import clarp
from clarp.models._torchvision import torchvision


def measure(
    model: torch.nn.Module, images: torch.Tensor, methods: list[str], repeats: int
) -> dict[str, float]:
    """Median ratio of each method's time to the forward beside it."""
    explainers = {name: clarp.Explainer(model, name, bounds=(-3.0, 3.0)) for name in methods}

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    def timed(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    for explainer in explainers.values():  # captures
        explainer(images)
    ratios: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, explainer in explainers.items():
            before = timed(forward)
            cost = timed(lambda e=explainer: e(images))
            ratios[name].append(2 * cost / (before + timed(forward)))
    return {name: statistics.median(values) for name, values in ratios.items()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--methods", default="lrp,sglrp,slrp,ssglrp")
    options = parser.parse_args()
    model = torchvision.models.get_model(options.model, weights=None).eval()
    images = torch.randn(
        options.batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(0)
    )
    ratios = measure(model, images.clamp(-3, 3), options.methods.split(","), options.repeats)
    print(
        f"{options.model}, batch {options.batch}, {options.size} px, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name, ratio in ratios.items():
        print(f"  {name:8s} {ratio:5.2f} forwards")


if __name__ == "__main__":
    main()
