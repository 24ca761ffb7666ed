"""Makes the C library reuse freed memory: batches are large, and follow one another."""

import ctypes

#: `mallopt` parameters. Source: malloc.h of the GNU C library.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
#: Smaller blocks are taken from the heap, not from new pages that the kernel has to clear each time.
MMAP_BYTES = 32 << 20
#: Free memory at the end of the heap beyond this is returned to the kernel.
TRIM_BYTES = 64 << 20


def keep_freed_memory() -> None:
    """Keeps freed blocks of a batch's size for the next one. Without the GNU C library, nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
