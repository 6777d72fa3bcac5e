"""Good clients of ``clarp serve`` beside hostile ones: ``python benchmarks/serve_fire.py [seconds] [clients] [model]``.

First the good ones alone, then as many hostile ones beside them: heads and bodies that trickle, JPEGs with thousands of scans, chunks of
one byte, photos whose sender hangs up. Every good answer is compared with the engine's own, as in ``serve_load.py``.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image
from serve_load import Tally, Work, client

from clarp.models import load
from clarp.serve.engine import Engine
from clarp.serve.limits import Limits

PAUSE = 0.3


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG with many scans in which nothing changes."""
    file = BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * count + b"\xff\xd9"


BOMB = scans(4096, 4000)


def head(length: str) -> bytes:
    return f"POST /api/explain?method=ssglrp HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n\r\n".encode()


async def hostile(port: int, kind: str, photo: bytes, end: float, outcomes: Counter[str]) -> None:
    """One client that does the same again and again."""
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if kind == "scans":
                writer.write(head(f"Content-Length: {len(BOMB)}") + BOMB)
                await reader.readline()
            elif kind == "chunks":
                writer.write(head("Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 50_000)
                await reader.readline()
            elif kind == "hang-ups":
                writer.write(head(f"Content-Length: {len(photo)}") + photo[: len(photo) // 2])
                await writer.drain()
            else:
                begun = head("Content-Length: 100000") if kind == "slow bodies" else b"GET / HTTP/1.1\r\nX: "
                writer.write(begun)
                while time.monotonic() < end:
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(PAUSE)
            writer.close()
        except OSError:
            outcomes[f"{kind}, hung up on"] += 1
        outcomes[kind] += 1
        await asyncio.sleep(PAUSE)


async def both(seconds: float, good: int, bad: int, url: str, work: Work) -> tuple[Tally, Counter[str]]:
    """Everybody at once."""
    tally, outcomes, end = Tally(), Counter[str](), time.monotonic() + seconds
    kinds = ("slow heads", "slow bodies", "scans", "chunks", "hang-ups")
    port = httpx.URL(url).port or 80
    enemies = [hostile(port, kinds[n % len(kinds)], work.files[0], end, outcomes) for n in range(bad)]
    people = [client(url, number, work, end, tally) for number in range(good)]
    await asyncio.gather(*people, *enemies)
    return tally, outcomes


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
        process = psutil.Process(server.pid)
        asyncio.run(both(3, 4, 0, found[1], work))  # every method's program is made
        time.sleep(6)  # connections that wait for another request are closed after five seconds
        for bad in (0, clients):
            before, descriptors = process.memory_info().rss, process.num_fds()
            processor = sum(process.cpu_times()[:2])
            tally, outcomes = asyncio.run(both(seconds, clients, bad, found[1], work))
            after, used = process.memory_info().rss, sum(process.cpu_times()[:2]) - processor
            time.sleep(7)
            times = np.sort(tally.seconds)
            print(
                f"{model}, {clients} good clients and {bad} hostile, {seconds:g} s; load {os.getloadavg()[0]:.1f}"
            )
            print("good answers       ", dict(tally.outcomes))
            print(
                f"seconds to answer  median {np.median(times):.2f}, 95 % {np.percentile(times, 95):.2f}, most {times[-1]:.2f}"
            )
            print(f"answers a second of the server's processor time {len(times) / used:.2f}")
            print("hostile            ", dict(outcomes))
            print(f"memory             {before >> 20} MiB before, {after >> 20} MiB after")
            print(f"descriptors        {descriptors} before, {process.num_fds()} after", flush=True)
        server.send_signal(signal.SIGINT)
    print(f"ended with {server.returncode}")


if __name__ == "__main__":
    main()
