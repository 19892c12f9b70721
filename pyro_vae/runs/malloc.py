"""How the process reuses the memory that it frees."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the values in malloc.h


def keep_freed() -> None:
    """Let the process keep freed memory for its next arrays. A program calls it when it starts.

    The GNU C library returns large arrays to the system when they are freed, after every training
    step, and the system sets each page to zero again in the next step. With 50 draws for each of
    100 images that takes a quarter of the time. With other C libraries this function does nothing.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # there is no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        # Older versions refuse a threshold above 2**25.
        if mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25):
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
