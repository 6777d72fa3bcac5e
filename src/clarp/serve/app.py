"""The application: the API, the page's files, and what is answered when something goes wrong."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from mimetypes import guess_type

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from clarp import __version__
from clarp.serve.engine import Engine
from clarp.serve.guard import DESCRIPTION, Guard, Hosts
from clarp.serve.limits import Limits
from clarp.serve.routes import router
from clarp.serve.service import Service

_ABOUT = (
    "Which pixels made an image classifier say this class, and not that one? Send a photo as the body of a "
    "request; nothing of it is written to disk. Where the server has a token, send the header "
    "`Authorization: Bearer TOKEN`."
)


def application(
    engines: Sequence[Engine],
    hosts: Hosts | None = None,
    token: str | None = None,
    limits: Limits | None = None,
) -> Guard:
    """The ASGI application.

    Args:
        engines: the models, at least one.
        hosts: by which names it may be reached; None: this machine's own only.
        token: what requests to the API have to bear, or None.
        limits: None for the usual ones.
    """
    service = Service(engines, limits or Limits())
    _files()  # read now, not while somebody waits

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="clarp",
        version=__version__,
        description=_ABOUT,
        openapi_url=DESCRIPTION,
        docs_url=None,  # FastAPI's documentation pages load their scripts from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(router)
    app.add_api_route("/", _file, include_in_schema=False)
    app.add_api_route("/page/{name}", _file, include_in_schema=False)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return Guard(app, hosts or Hosts(), token, service.busy)


async def _file(name: str = "index.html") -> Response:
    """A file of the page. All are in memory, so no name that is asked for ever reaches the file system."""
    found = _files().get(name)
    if found is None:
        raise HTTPException(404, "no such page.")
    content, kind = found
    return Response(content, media_type=kind)


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    package = resources.files("clarp")
    sources = [*(package / "serve" / "page").iterdir(), package / "assets" / "cat_and_coffee.jpg"]
    return {
        source.name: (source.read_bytes(), guess_type(source.name)[0] or "application/octet-stream")
        for source in sources
        if source.is_file()
    }


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    wrong = [
        f"{' '.join(map(str, one['loc'][1:]))} is {str(one['input'])[:100]!r}: {one['msg']}"
        for one in error.errors()[:5]
    ]
    return JSONResponse({"detail": "; ".join(wrong) + "."}, 422)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(
        {"detail": f"the server failed with a {type(error).__name__}; its log says more."}, 500
    )
