"""Load on ``clarp serve``: ``python benchmarks/serve_load.py [seconds] [clients] [model]``.

So many clients ask over loopback, each its next question when the last is answered, mixed over photos, methods, classes and
masks. Every answer is compared with what the engine says when it is called directly: text by text, and maps byte by byte or
within 1e-6 of their largest value. On the side, clients that hang up in the middle of an upload or of the wait.
"""

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image, ImageOps

from clarp.models import load
from clarp.serve.engine import Engine, Question
from clarp.serve.limits import Limits

Ask = tuple[str, dict[str, Any], int]


def photos() -> list[bytes]:
    """Four views of the demo's photo."""
    sample = resources.files("clarp") / "assets" / "cat_and_coffee.jpg"
    upright = Image.open(BytesIO(sample.read_bytes()))
    views = [upright, ImageOps.mirror(upright), ImageOps.flip(upright), upright.crop((40, 40, 420, 360))]
    files = []
    for view in views:
        file = BytesIO()
        view.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def questions(count: int) -> list[Ask]:
    """Paths, queries and numbers of photos."""
    found: list[Ask] = []
    for number in range(count):
        found += [
            ("predict", {"top": 5}, number),
            ("explain", {"method": "ssglrp", "target": "0"}, number),
            ("explain", {"method": ["lrp", "sglrp"], "target": "1", "against": "2"}, number),
            ("mask", {"region": "2,2,12,12", "class": "1"}, number),
        ]
    return found


def direct(engine: Engine, ask: Ask, files: list[bytes]) -> Any:
    """The answer without a server."""
    path, query, number = ask
    data = files[number]
    if path == "predict":
        answer: Any = engine.predict(data, query["top"])
    elif path == "mask":
        answer = engine.mask(data, [(2, 2, 12, 12)], "colour", [query["class"]])
    else:
        methods = [query["method"]] if isinstance(query["method"], str) else query["method"]
        against = (query["against"],) if "against" in query else ()
        answer = engine.explain(data, Question((query["target"],), against, tuple(methods)), lambda: False)
    return json.loads(answer.model_dump_json(by_alias=True))


def same(found: Any, expected: Any) -> str:
    """``bytes``, ``close`` or ``wrong``."""
    if found == expected:
        return "bytes"
    try:
        return "close" if _close(found, expected) else "wrong"
    except (KeyError, TypeError, ValueError):
        return "wrong"


def _close(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        if "heatmap" in expected:
            one, two = (np.load(BytesIO(base64.b64decode(each["heatmap"]))) for each in (found, expected))
            return bool(abs(one - two).max() <= 1e-6 * abs(two).max())
        return found.keys() == expected.keys() and all(_close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_close, found, expected))
    return abs(found - expected) <= 1e-6 if isinstance(expected, float) else found == expected


@dataclass(frozen=True)
class Work:
    """What is asked of which photos, and the right answers."""

    files: list[bytes]
    asks: list[Ask]
    expected: list[Any]

    @classmethod
    def of(cls, engine: Engine) -> "Work":
        """The answers of an engine without a server."""
        files = photos()
        asks = questions(len(files))
        return cls(files, asks, [direct(engine, ask, files) for ask in asks])


@dataclass
class Tally:
    """What happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


async def client(url: str, number: int, work: Work, end: float, tally: Tally) -> None:
    """Asks one question after the other, beginning with its own."""
    async with httpx.AsyncClient(base_url=url, timeout=90) as http:
        turn = number
        while time.monotonic() < end:
            path, query, photo = work.asks[turn % len(work.asks)]
            began = time.monotonic()
            try:
                response = await http.post(f"/api/{path}", params=query, content=work.files[photo])
            except httpx.HTTPError as error:
                tally.outcomes[type(error).__name__] += 1
                continue
            if response.status_code == 503:
                tally.outcomes["busy"] += 1
                await asyncio.sleep(float(response.headers["retry-after"]))
                continue
            if response.status_code != 200:
                tally.outcomes[str(response.status_code)] += 1
            else:
                tally.outcomes[same(response.json(), work.expected[turn % len(work.asks)])] += 1
                tally.seconds.append(time.monotonic() - began)
            turn += 1


async def quitter(port: int, data: bytes, end: float, tally: Tally) -> None:
    """Hangs up in the upload and in the wait, by turns."""
    whole = False
    while time.monotonic() < end:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /api/explain?method=ssglrp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + (data if whole else data[: len(data) // 2]))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        tally.outcomes["hung up"] += 1
        whole = not whole
        await asyncio.sleep(0.3)


async def load_for(seconds: float, clients: int, url: str, work: Work) -> Tally:
    """Everybody at once."""
    tally, end = Tally(), time.monotonic() + seconds
    port = httpx.URL(url).port or 80
    quitters = [quitter(port, work.files[0], end, tally) for _ in range(4)]
    people = [client(url, number, work, end, tally) for number in range(clients)]
    await asyncio.gather(*people, *quitters)
    return tally


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    model = sys.argv[3] if len(sys.argv) > 3 else "efficientnet-lite0"
    work = Work.of(Engine(Path(model).name, model, load(model), Limits()))
    command = [sys.executable, "-m", "clarp", "serve", "--port", "0", "--model", model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        found = re.search(r"at (http://\S+?)/ ", server.stdout.readline())
        assert found is not None
        memory = psutil.Process(server.pid).memory_info
        asyncio.run(load_for(3, 4, found[1], work))  # every method's program is made
        before, processor = memory().rss, sum(psutil.Process(server.pid).cpu_times()[:2])
        tally = asyncio.run(load_for(seconds, clients, found[1], work))
        used, after = sum(psutil.Process(server.pid).cpu_times()[:2]) - processor, memory().rss
        time.sleep(2)
        left = httpx.get(f"{found[1]}/api/about").status_code
        server.send_signal(signal.SIGINT)
    times = np.sort(tally.seconds)
    print(
        f"{model}, {clients} clients, {seconds:g} s; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    print("outcomes          ", dict(tally.outcomes))
    print(
        f"answers per second {len(times) / seconds:.2f}; per second of the server's processor time {len(times) / used:.2f}"
    )
    print(
        f"seconds to answer  median {np.median(times):.2f}, 95 % {np.percentile(times, 95):.2f}, most {times[-1]:.2f}"
    )
    print(f"memory             {before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after")
    print(f"afterwards         /api/about answers {left}; ended with {server.returncode}")


if __name__ == "__main__":
    main()
