"""A small model and a batch that the metric tests share."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn


@dataclass
class Batch:
    model: nn.Module
    images: Tensor
    maps: Tensor
    targets: Tensor
    masks: Tensor


@pytest.fixture
def batch() -> Batch:
    """Five images of 24 x 30 pixels with maps of both signs, in double precision."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=2),
            nn.ReLU(),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 8, 3),
            nn.Flatten(),
            nn.Linear(8 * 8 * 11, 4),
        ).double()
    images = torch.randn(5, 3, 24, 30, generator=generator, dtype=torch.float64)
    maps = torch.randn(5, 24, 30, generator=generator, dtype=torch.float64)
    masks = torch.rand(5, 24, 30, generator=generator) < 0.3
    return Batch(model.eval(), images, maps, torch.tensor([0, 1, 2, 3, 1]), masks)
