"""What every test shares: repeatable draws, one thread, no cache, and where the real photos and weights lie."""

import gc
import os
from pathlib import Path

import pytest
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

CHROMIUM = Path("/usr/bin/chromium")
SHARED = Path(__file__).resolve().parents[1] / "../shared"


def pytest_collection_finish() -> None:
    """What was imported stays, so the collector of garbage need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    import torch  # noqa: PLC0415  the process that only hands tests to others does without

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and photos beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: this test needs the real models and photos beside the repository")
    return SHARED


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, driven by playwright, of which a process can have one at a time."""
    play = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is not here: this test needs Chromium (`make chromium` as root installs it)")
    quiet = (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
    )
    with play.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--no-first-run", *quiet]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, imported the package's way."""
    pytest.importorskip("clarp.models._torchvision")
    return pytest.importorskip("torchvision")
