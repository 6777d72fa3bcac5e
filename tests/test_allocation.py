import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from clarp.allocation import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
import torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 << 20)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(4):
    faults()  # the memory has to grow first
print(kept, faults())
"""


def run(argument: str, **environment: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument], check=True, capture_output=True, text=True, env=environment
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc has no mallopt")
def test_freed_tensors_are_not_cleared_again():
    kept, faults = run("keep")
    assert kept == "True"
    assert faults < run("leave")[1] / 4


def test_the_users_own_settings_stay():
    assert run("keep", MALLOC_TRIM_THRESHOLD_="1000000")[0] == "False"
