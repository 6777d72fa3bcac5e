"""Writes the maps that tests/test_golden.py compares with: `PYTHONPATH=tests python -m golden.make`, before a change of no results."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import clarp
from clarp.rules.composites import names
from golden.networks import NETWORKS, images, network

FILE = Path(__file__).parent / "maps.npz"


def asked() -> Iterator[tuple[str, clarp.Method]]:
    """Every method, and LRP with every composite."""
    for name in clarp.methods():
        yield name, clarp.Method.named(name)
    for name in names():
        yield f"lrp, {name}", clarp.Method.named("lrp").with_composite(name)


def maps(name: str) -> dict[str, np.ndarray]:
    """The heatmap of the second image for its most probable class, (H, W), by each method."""
    model, found = clarp.Explainer(network(name)).network, {}
    for words, method in asked():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                explanation = clarp.Explainer(model, method, bounds=(0.0, 1.0))(images())
            except ValueError:  # selection needs convolutions, and rivals other classes
                continue
            found[words] = explanation.heatmap[1].numpy()
    return found


if __name__ == "__main__":
    arrays = {f"{name}/{words}": values for name in NETWORKS for words, values in maps(name).items()}
    np.savez_compressed(FILE, **arrays)  # type: ignore[arg-type]
    print(f"{len(arrays)} maps, {FILE.stat().st_size >> 10} KiB")  # noqa: T201
