"""Photos are decoded in processes of their own, which can be ended.

A file of few bytes may ask for hours, or for all memory. Neither can be bounded from inside: Pillow's readers
run in C, and a progressive JPEG may have thousands of scans, a GIF megabytes of comments in pieces of 255
bytes. A process that is beyond its bounds, or that crashes, costs one photo.
"""

import atexit
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_ISREG
from threading import Event, Lock, Timer
from typing import IO, Any

import numpy as np
from PIL import Image

from clarp.files import kind
from clarp.greys import noted

_START = "import sys; sys.path[:] = {path!r}; from clarp._decoder import main; main()"
_WAITING = 3.0
"""Times the seconds of processor time: so long a decoder may take by the clock, on a machine that is busy."""


@dataclass(frozen=True)
class DecodingLimits:
    """What decoding one photo may take.

    Attributes:
        seconds: of processor time; three times as many by the clock. Operating systems count whole ones.
        memory: bytes of the process, Python and Pillow among them. Linux only: other systems have no such
            limit.
    """

    seconds: int
    memory: int


OWN = DecodingLimits(seconds=30, memory=4 << 30)
"""For photos that the user names: enough for Pillow's own limit, 179 million pixels with transparency."""
STRANGERS = DecodingLimits(seconds=10, memory=1536 << 20)
"""For photos that come over the network: enough for 50 million pixels of any kind."""


class DecodingError(ValueError):
    """A file that can't be decoded, or not within the bounds.

    Attributes:
        kind: the name of the error that the decoder met.
    """

    def __init__(self, message: str, kind: str = "ValueError") -> None:
        super().__init__(message)
        self.kind = kind


def picture(
    job: str, source: Path | bytes, name: str, bounds: DecodingLimits | None = None, **arguments: Any
) -> Image.Image:
    """The picture that a job of `clarp._decoder` makes of a photo, with its notes and greys (`clarp.greys`).

    Args:
        job: ``rgb``, ``rgba`` or ``indices``.
        source: the file, or its content.
        name: how messages call it.
        bounds: of time and memory; None: those of the user's own photos.
        **arguments: of the job, as JSON has them.

    Raises:
        DecodingError: it can't be decoded, is no regular file, or takes too much.
        ModuleNotFoundError: a DICOM file, and pydicom is not installed.
    """
    answer, (data, *greys) = _asked(job, source, name, bounds or OWN, arguments)
    mode, size = answer["mode"], tuple(answer["size"])
    photo = Image.frombuffer(mode, size, data, "raw", mode, 0, 1)
    levels = np.frombuffer(greys[0], np.float32).reshape(size[::-1]) if greys else None
    return noted(photo, tuple(answer["notes"]), levels)


def size(source: Path | bytes, name: str, *, upright: bool) -> tuple[int, int]:
    """(height, width) in pixels of what ``picture`` would return, by the file's head.

    Raises:
        DecodingError, ModuleNotFoundError: as of :func:`picture`.
    """
    answer, _ = _asked("size", source, name, OWN, {"upright": upright})
    width, height = answer["size"]
    return height, width


def check_regular(path: Path) -> None:
    """Refuse what is no file of bytes on a disk: nobody should wait for a pipe, or read a device to its end.

    Raises:
        FileNotFoundError: there is nothing.
        DecodingError: it is a folder, a named pipe, a socket or a device.
    """
    mode = path.stat().st_mode
    if not S_ISREG(mode):
        raise DecodingError(f"{path}: {kind(mode)}, where a photo was expected.")


class _DiedError(Exception):
    """The decoder ended in the middle of its work."""


class _Decoder:
    """A process that decodes one photo after the other."""

    def __init__(self) -> None:
        code = _START.format(path=sys.path)
        self._process = subprocess.Popen(  # noqa: S603  this program itself
            [sys.executable, "-P", "-W", "ignore", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=1 << 20,
            stderr=subprocess.DEVNULL,  # libtiff writes there whatever a file makes it say
            # Its own threads would be counted to a photo's memory.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End its work, whatever it is; whoever waits for an answer is told."""
        self._process.kill()

    def end(self) -> None:
        """Kill it, and let nothing of it stay."""
        process = self._process
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):  # a pipe that nobody reads from, with something still in it
                    stream.close()
        process.wait()

    def ask(
        self, head: dict[str, Any], data: bytes, seconds: float
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """An answer and the pixels and greys that come with it.

        Raises:
            TimeoutError: it took longer, by the clock or by the processor.
            _DiedError: it crashed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        expired = Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            self._process.stdin.write(json.dumps(head).encode() + b"\n")
            self._process.stdin.write(data)
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
            parts = [_read(self._process.stdout, count) for count in answer.get("parts", ())]
        except (OSError, EOFError, ValueError) as error:
            status = self._process.wait()
            if expired.is_set() or status == -_SIGXCPU:
                raise TimeoutError from error
            raise _DiedError(f"signal {-status}" if status < 0 else f"exit code {status}") from error
        finally:
            timer.cancel()
        return answer, parts


def _read(file: IO[bytes], count: int) -> bytearray:
    """So many bytes; ``read`` would join pieces, which takes the memory twice.

    Raises:
        EOFError: there are fewer.
    """
    found = bytearray(count)
    view = memoryview(found)
    while view:
        got = file.readinto(view)  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        view = view[got:]
    return found


_SIGXCPU = 24
_idle: list[_Decoder] = []
_busy: set[_Decoder] = set()
_lock = Lock()


def _asked(
    job: str, source: Path | bytes, name: str, bounds: DecodingLimits, arguments: dict[str, Any]
) -> tuple[dict[str, Any], list[bytearray]]:
    path = data = None
    if isinstance(source, bytes):
        data = source
    else:
        check_regular(source)
        path = str(source.absolute())
    head = {
        "job": job,
        "path": path,
        "bytes": len(data or b""),
        "name": name,
        "most": Image.MAX_IMAGE_PIXELS,
        "bounds": asdict(bounds),
        "arguments": arguments,
    }
    decoder = _taken()
    with _lock:
        _busy.add(decoder)
    try:
        answer, parts = decoder.ask(head, data or b"", _WAITING * bounds.seconds)
    except TimeoutError:
        decoder.end()
        raise DecodingError(
            f"{name}: the picture takes more than {bounds.seconds} s to decode; save it anew as a plain "
            "JPEG or PNG."
        ) from None
    except _DiedError as death:
        decoder.end()
        raise DecodingError(f"{name}: the picture can't be read: its decoder ended with {death}.") from death
    except BaseException:
        decoder.end()  # it is in the middle of an answer
        raise
    finally:
        with _lock:
            _busy.discard(decoder)
    with _lock:
        _idle.append(decoder)
    if answer.get("error") == "ModuleNotFoundError":
        raise ModuleNotFoundError(answer["message"])
    if "error" in answer:
        raise DecodingError(answer["message"], answer["error"])
    return answer, parts


def _taken() -> _Decoder:
    with _lock:
        while _idle:
            decoder = _idle.pop()
            if decoder.lives:
                return decoder
            decoder.end()
    return _Decoder()


def prepare() -> None:
    """Start a decoder for the first photo, so that it is there when the photo's turn comes."""
    decoder = _Decoder()
    with _lock:
        _idle.append(decoder)


def close() -> None:
    """End the decoders that wait for work; the next photo starts a new one."""
    with _lock:
        while _idle:
            _idle.pop().end()


def interrupt() -> None:
    """Kill the decoders at work: whoever waits for one gets a :class:`DecodingError` now."""
    with _lock:
        for decoder in _busy:
            decoder.kill()


def _forked() -> None:
    """A copy of this process has pipes to the same decoders, and must not use them."""
    global _lock, _idle, _busy
    _strangers.extend((*_idle, *_busy))
    _lock, _idle, _busy = Lock(), [], set()


_strangers: list[_Decoder] = []
"""Kept, so that nobody waits for processes of another process."""
atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
