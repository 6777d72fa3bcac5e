"""A small classifier, and real servers on loopback."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from clarp.commands.serve import load
from clarp.models import Classifier
from clarp.serve.engine import Engine
from clarp.serve.guard import Guard
from clarp.serve.limits import Limits
from clarp.serve.server import Address, server

SIDE = 24
LABELS = ("ant", "bee", "cow", "dog, hound")


def preprocess(image: Image.Image) -> Tensor:
    if image.size == (13, 13):
        raise RuntimeError("unlucky size")
    pixels = np.asarray(image.resize((SIDE, SIDE)), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def classifier(make: Callable[[Image.Image], Tensor] = preprocess) -> Classifier:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    ).eval()
    with torch.no_grad():
        model[-1].weight.mul_(20)
    return Classifier("toy", model, LABELS, make)


def photo(size: tuple[int, int] = (40, 30), seed: int = 0, kind: str = "PNG") -> bytes:
    """The file of a picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def served(specs: Sequence[str]) -> list[Engine]:
    """Engines as ``clarp serve`` has them."""
    return load(specs, Limits())


def engine(name: str = "toy", limits: Limits | None = None) -> Engine:
    return Engine(name, f"{name}.py:build", classifier(), limits or Limits())


@contextmanager
def serving(app: Guard) -> Iterator[str]:
    """The application behind a real server on loopback; gives its address without the last slash."""
    running = server(app)
    with Address("127.0.0.1", 0).listen() as listening:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        port = listening.getsockname()[1]
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class Slow(Engine):
    """An engine that predicts when it is told to."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__("slow", "slow.py:build", classifier(), limits or Limits())
        self.go = threading.Event()
        self.begun = 0

    def predict(self, data: bytes, top: int) -> Any:
        self.begun += 1
        assert self.go.wait(20)
        return super().predict(data, top)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
