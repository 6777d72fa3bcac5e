"""From a request to a model's answer: the queue, the upload, the work, and refusals."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from clarp.errors import CaptureError
from clarp.images import TooManyPixels
from clarp.serve.engine import Engine, GivenUp
from clarp.serve.limits import Limits
from clarp.serve.worker import Busy, Place, Worker

Result = TypeVar("Result")
HUNG_UP = 499
"""The usual code, in logs, for a client that went away; nobody is left to read it."""


class Service:
    """The models that are served, each with its worker.

    Args:
        engines: at least one; the first is meant where a request names none.
        limits: see :class:`Limits`.
    """

    def __init__(self, engines: Sequence[Engine], limits: Limits) -> None:
        self.engines = {engine.name: engine for engine in engines}
        self.limits = limits
        self.workers = {name: Worker(name, limits.waiting) for name in self.engines}
        self.bytes_held = 0

    def engine(self, name: str | None) -> Engine:
        """A model by its name; None: the first.

        Raises:
            HTTPException: 404, there is none of this name.
        """
        if name is None:
            return next(iter(self.engines.values()))
        if name not in self.engines:
            raise HTTPException(404, f"no model {name!r} here, expected one of {', '.join(self.engines)}.")
        return self.engines[name]

    def busy(self) -> bool:
        """Whether a model is at work."""
        return any(worker.taken for worker in self.workers.values())

    def close(self) -> None:
        """Drop what waits; what runs ends by itself."""
        for worker in self.workers.values():
            worker.close()

    async def answer(
        self, request: Request, engine: Engine, work: Callable[[bytes, Callable[[], bool]], Result]
    ) -> Result:
        """Read the photo, take a place in the queue, and let the model's thread do the work.

        A photo that is still arriving has no place: clients that send slowly would keep the others out.

        Args:
            request: its body is the photo.
            engine: whose turn it is.
            work: from the photo and ``given_up`` (see :class:`~clarp.serve.worker.Place`) to the answer.

        Raises:
            HTTPException: 503 busy, 504 too slow, 413 too many pixels, 422 can't be done, or as in
            :meth:`_photo`.
        """
        worker = self.workers[engine.name]
        try:
            worker.check()
            data = await self._photo(request)
        except Busy as busy:
            await _forget(request, self.limits)
            raise _busy(busy.seconds) from busy
        except HTTPException as refusal:
            if refusal.status_code != 408:
                await _forget(request, self.limits)
            raise
        try:
            with worker.place() as place:
                return await self._worked(request, place, lambda: work(data, place.given_up))
        except Busy as busy:
            raise _busy(busy.seconds) from busy
        finally:
            self.bytes_held -= len(data)

    async def _worked(self, request: Request, place: Place, job: Callable[[], Result]) -> Result:
        """The job's result, or why there is none."""
        hung_up = asyncio.create_task(_hung_up(request))
        try:
            return await place.run(job, hung_up, self.limits.seconds)
        except (ConnectionAbortedError, GivenUp) as error:
            raise HTTPException(HUNG_UP, "the client hung up.") from error
        except TimeoutError as error:
            raise HTTPException(
                504, f"no answer within {self.limits.seconds:g} s; ask for fewer maps, or later."
            ) from error
        except TooManyPixels as error:
            raise HTTPException(413, str(error)) from error
        except (ValueError, TypeError, CaptureError) as error:
            raise HTTPException(422, str(error)) from error
        finally:
            hung_up.cancel()

    async def _photo(self, request: Request) -> bytes:
        """The body, read into memory only, and no further than the limit.

        It counts as held until the caller is done with it.

        Raises:
            HTTPException: 413 too large, 415 a form, 408 too slow, 503 too much at once, 400 broken off.
        """
        form = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if form == "multipart/form-data":
            raise HTTPException(
                415, "the body is a form, expected the photo itself, as in curl --data-binary @photo.jpg."
            )
        length = request.headers.get("content-length", "0")
        self._check_size(int(length))
        data = bytearray()
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                async for chunk in request.stream():
                    self._check_size(len(data) + len(chunk))
                    self._hold(len(chunk))
                    data += chunk
        except BaseException as error:
            self.bytes_held -= len(data)
            if isinstance(error, TimeoutError):
                raise HTTPException(
                    408, f"the photo did not arrive within {self.limits.upload_seconds:g} s."
                ) from error
            if isinstance(error, ClientDisconnect):
                raise HTTPException(HUNG_UP, "the client hung up.") from error
            raise
        return bytes(data)

    def _hold(self, count: int) -> None:
        if self.bytes_held + count > self.limits.bytes_at_once:
            raise _busy(2)
        self.bytes_held += count

    def _check_size(self, size: int) -> None:
        if size > self.limits.photo_bytes:
            raise HTTPException(
                413,
                f"the photo has more than {self.limits.photo_bytes:,} bytes; make it smaller.",
                {"Connection": "close"},
            )


def _busy(seconds: int) -> HTTPException:
    return HTTPException(
        503, f"busy: the queue is full; try again in {seconds} s.", {"Retry-After": str(seconds)}
    )


async def _forget(request: Request, limits: Limits) -> None:
    """Read and drop the rest of an upload that is refused: who is still sending would not see the answer."""
    if "expect" in request.headers:  # it waits to be told, as curl does
        return
    dropped = 0
    with suppress(ClientDisconnect, TimeoutError, RuntimeError):  # gone, or too slow, or nothing is left
        async with asyncio.timeout(2):
            async for chunk in request.stream():
                dropped += len(chunk)
                if dropped > 2 * limits.photo_bytes:
                    return


async def _hung_up(request: Request) -> None:
    """Return when the client has gone; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
