"""What the process does with the memory that it frees."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from pyro_vae import memory

if sys.argv[1] == "kept":
    memory.keep_freed()
for _ in range(2):
    torch.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_what_is_freed_is_used_again() -> None:
    """Five times 32 MiB, 8192 pages of 4 KiB each: none of them is new, or else all are."""
    faults = {
        kept: int(subprocess.check_output([sys.executable, "-c", FAULTS, kept], text=True))
        for kept in ("kept", "given back")
    }
    assert faults["kept"] < 8192 < 4 * 8192 < faults["given back"], faults
