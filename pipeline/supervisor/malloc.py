"""How a process keeps the memory that it frees: batches are large, and come one after the other."""

import ctypes

#: `mallopt` parameters. Source: malloc.h of the GNU C library.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
#: Blocks smaller than this come from memory that is used again, not from pages that the kernel clears anew each time.
MMAP_BYTES = 32 << 20
#: Free memory at the end of the heap beyond this is given back.
TRIM_BYTES = 64 << 20


def keep_freed_memory() -> None:
    """Keeps freed blocks of a batch's size for the next one. Without the GNU C library, nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
