"""A network and a function that a spawned process can import: what is pickled goes by the name of its module."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import clarp


class Net(nn.Module):
    """Small, with a sum, and an attribute that its forward keeps."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b, self.fc = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Linear(4, 3),
        )
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        f = F.relu(self.a(x))
        self.last = f + F.relu(self.b(f))
        return self.fc(self.last.mean((2, 3)))


def explain(explainer: clarp.Explainer, x: Tensor) -> NDArray[np.float64]:
    """The relevance of class 1."""
    return explainer(x, target=1).relevance.numpy()
