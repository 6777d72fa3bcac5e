"""What the server's tests share."""

from collections.abc import Iterator

import httpx
import pytest

from clarp.serve.app import application
from clarp.serve.engine import Engine
from serve.servers import engine, serving


@pytest.fixture(scope="session")
def toy() -> Engine:
    """One engine for direct calls."""
    return engine()


@pytest.fixture(scope="package")
def address() -> Iterator[str]:
    """A server of two small models."""
    with serving(application([engine(), engine("other")])) as url:
        yield url


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30) as found:
        yield found


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
