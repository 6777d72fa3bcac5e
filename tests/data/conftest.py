"""Tiny pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Pictures this small are done sooner by one thread than shared out among several."""
    torch.set_num_threads(1)


@pytest.fixture
def paint():
    """Write a picture of random pixels: ``paint(path, height, width)``; returns the path."""

    def paint(path: Path, height: int = 20, width: int = 30, mode: str = "RGB", seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels, mode=None).save(path)
        return path

    return paint


@pytest.fixture
def break_file():
    """Cut a file in half, so that its header is whole and its pixels are not."""

    def cut(path: Path) -> Path:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return path

    return cut


@pytest.fixture
def lock(monkeypatch):
    """``lock(path)`` makes a folder that can't be listed, also for root, whom permissions don't stop."""
    iterdir = Path.iterdir

    def lock(folder: Path) -> None:
        def refuse(path: Path):
            if path == folder:
                raise PermissionError(13, "Permission denied", str(path))
            return iterdir(path)

        monkeypatch.setattr(Path, "iterdir", refuse)

    return lock
