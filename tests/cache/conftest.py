"""What the cache's tests share."""

from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from cache.nets_in_files import module_of
from clarp import network as network_module


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that were captured since."""
    found: list[nn.Module] = []
    capture = network_module.capture_module

    def counted(model: nn.Module, *arguments: object, **named: object) -> object:
        found.append(model)
        return capture(model, *arguments, **named)

    monkeypatch.setattr(network_module, "capture_module", counted)
    return found


@pytest.fixture
def net(tmp_path: Path) -> ModuleType:
    return module_of(tmp_path / "net_in_a_file.py")
