"""A small network that is trained on rendered scenes in seconds."""

import numpy as np
import torch
from torch import nn

from clarp.data import rendered
from clarp.models import Classifier

SIDE = 48


def preprocess(image):
    """(3, H, W) from -1 to 1."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32).copy()).permute(2, 0, 1) / 127.5 - 1


def pixels(dataset):
    return torch.stack([preprocess(sample.image()) for sample in dataset])


def labels(dataset):
    return torch.tensor([sample.labels[0][0] for sample in dataset])


def trained(shortcut=None, steps=240):
    dataset = rendered(800, side=SIDE, shortcut=shortcut, seed=7)
    images, targets = pixels(dataset), labels(dataset)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 8),
        )
        optimiser = torch.optim.Adam(net.parameters(), 4e-3)
        for _ in range(steps):
            chosen = torch.randint(len(images), (48,))
            loss = nn.functional.cross_entropy(net(images[chosen]), targets[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval().requires_grad_(False)


def classifier(net):
    return Classifier("painted", net, rendered(1).classes, preprocess)
