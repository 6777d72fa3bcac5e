"""Twelve small networks with weights by seed, float64, for images (3, 16, 16) and five classes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Two convolutions beside their input, with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.relu(x + self.second(functional.relu_(self.first(x))), inplace=True)
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Concatenations, average pooling, and a module that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grow = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.squeeze, self.head = nn.Conv2d(12, 4, 1), nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = self.stem(x).relu()
        second = self.grow(first).relu()
        third = self.grow(second).relu()
        x = functional.avg_pool2d(self.squeeze(torch.cat([first, second, third], 1)), 4)
        return self.head(x.flatten(1))


class Attention(nn.Module):
    """Patches, a class token, and one transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token, self.place = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
        self.layer = nn.TransformerEncoderLayer(
            16, 2, 32, dropout=0.0, batch_first=True, activation="gelu", norm_first=True
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.layer(x)[:, 0])


class Gated(nn.Module):
    """Squeeze and excitation, a depthwise convolution, and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.down, self.up, self.head = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.depthwise(functional.silu(self.stem(x))))
        x = x * self.up(functional.silu(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 5)),
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 24), nn.ReLU(), nn.Linear(24, 5)),
    "max pooling": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(32, 5),
    ),
    "odd strides": lambda: nn.Sequential(
        nn.Conv2d(3, 6, (3, 5), (2, 3), (1, 2), (1, 1)),
        nn.ReLU(),
        nn.Conv2d(6, 6, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 5),
    ),
    "norms": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.GroupNorm(2, 8),
        nn.GELU(),
        nn.Conv2d(8, 8, 3, 2),
        nn.InstanceNorm2d(8),
        nn.ELU(),
        nn.Flatten(),
        nn.LayerNorm(72),
        nn.Linear(72, 5),
    ),
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 4, 4),
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    ),
    "residual": Residual,
    "concatenations": Dense,
    "attention": Attention,
    "gated": Gated,
    "one logit": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 1)),
    "findings": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU6(), nn.Flatten(), nn.Linear(196, 5), nn.Sigmoid()
    ),
}


def network(name: str) -> nn.Module:
    """One of :data:`NETWORKS` in eval mode, batch norms with statistics of their own."""
    torch.manual_seed(list(NETWORKS).index(name))
    model = NETWORKS[name]().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def images() -> Tensor:
    """Two images, (2, 3, 16, 16), in 0 to 1."""
    return torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
