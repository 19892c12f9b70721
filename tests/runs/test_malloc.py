"""The process reuses the memory that it frees."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from pyro_vae.runs import malloc

if sys.argv[1] == "kept":
    malloc.keep_freed()
for _ in range(10):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_what_is_freed_is_used_again() -> None:
    """Of twenty arrays of 64 MiB, at most one needs new pages; without the call, all of them do.

    The first ones find their place in the memory, and are not counted.

    One may: a small allocation in the freed memory leaves no room for the next large one.
    """
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    faults = {
        kept: int(subprocess.check_output([sys.executable, "-c", FAULTS, kept], env=plain))
        for kept in ("kept", "given back")
    }
    assert 10 * faults["kept"] < faults["given back"], faults
