"""The public API, called the way the tests need it; and how far two maps lie apart."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import clarp
from clarp.network import Network


def composite(rule: Any, **others: Any) -> Any:
    """A composite with ``rule`` in every convolution and dense layer; z^B only where pixels have bounds, at the first."""
    box = isinstance(rule, clarp.rules.ZBox)
    fields = {
        "convolution": clarp.rules.ZPlus() if box else rule,
        "dense": clarp.rules.ZPlus() if box else rule,
        "first": rule if box else None,
    }
    return clarp.composites.Composite(name="under test", **(fields | others))


def plain(seed: Any, composite: Any) -> Any:
    """A method without selection: the seed, propagated."""
    return clarp.Method(seed=seed, selection=None, composite=composite)


@lru_cache(maxsize=16)
def captured(model: nn.Module) -> Network:
    """The network of this very model, for every explainer of it: a capture takes longer than an explanation.

    A model that changes is captured anew, as clarp does it; a test of that has a network of its own.
    """
    return Network(model)


def propagate(
    model: nn.Module | Network, images: Tensor, seed: Tensor, composite: Any, bounds: Any = None
) -> Tensor:
    """The relevance (B, C, H, W) for the initial relevance ``seed`` (B, N)."""
    method = plain(clarp.seeds.Vector(seed), composite)
    network = model if isinstance(model, Network) else captured(model)
    return clarp.Explainer(network, method=method, bounds=bounds, dtype=images.dtype)(images).relevance


def apart(ours: Tensor, theirs: Tensor | np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    theirs = torch.as_tensor(theirs, dtype=torch.float64)
    ours = ours.detach().double()
    assert ours.shape == theirs.shape, f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)}"
    assert torch.isfinite(ours).all()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random pixels of either sign."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
