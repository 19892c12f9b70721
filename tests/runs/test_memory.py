"""The process reuses the memory that it frees."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from pyro_vae.runs import memory

if sys.argv[1] == "kept":
    memory.keep_freed()
for _ in range(2):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_what_is_freed_is_used_again() -> None:
    """Five arrays of 64 MiB need no new page; without the call they need new pages only."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    faults = {
        kept: int(subprocess.check_output([sys.executable, "-c", FAULTS, kept], env=plain))
        for kept in ("kept", "given back")
    }
    assert 10 * faults["kept"] < faults["given back"], faults
