"""How the process holds its memory."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h has them


def keep_freed() -> None:
    """Let the process keep what it frees, for its next arrays; a program calls it at its start.

    The GNU C library gives large arrays back to the system as they are freed, after every step of
    training, and each page is zeroed anew in the next one: with 50 draws for each of 100 images
    that is a quarter of the time. Other C libraries are left alone.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # as it is not there
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25):  # of old versions
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
