"""What every test shares: repeatable draws, one thread, no cache, and where the real photos and weights lie."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

os.environ["CLARP_CACHE"] = "off"  # the user's own folder is none of the tests' business

settings.register_profile(
    "clarp",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("clarp")

SHARED = Path(__file__).resolve().parents[1] / "../shared"


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and photos beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: this test needs the real models and photos beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, imported the package's way."""
    pytest.importorskip("clarp.models._torchvision")
    return pytest.importorskip("torchvision")
