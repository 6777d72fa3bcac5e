"""What the server's tests share."""

from collections.abc import Iterator

import httpx
import pytest

from clarp.serve.app import application
from clarp.serve.engine import Engine
from serve.browsing import DESK
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


@pytest.fixture
def open_page(chromium):
    """Open the page; in the end, nothing may have gone wrong in it, and nothing may have been asked of another host."""
    contexts, wrong, hosts = [], [], set()

    def opened(address, **options):
        context = chromium.new_context(accept_downloads=True, **{**DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: hosts.add(httpx.URL(request.url).host))
        page.goto(address)
        page.locator(".chip").first.wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
    assert hosts <= {"127.0.0.1", ""}
