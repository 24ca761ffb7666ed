"""Checks before the start whether a pipeline may open enough files and use enough address space.

Without them libraries abort, or threads fail to start, at any later time.
"""

import resource
from typing import Final

from pipeline.errors import PipelineError

#: Open files that one process needs, and those it needs for each process of the pipeline: sockets, pipes, connections.
#: About twice what was measured.
FILES: Final = 256
FILES_FOR_EACH: Final = 8
#: Address space of one process, bytes: about twice what was measured, with caches and batches.
ADDRESS_SPACE: Final = 1_000_000_000


def check_resources(processes: int) -> None:
    """Raises the soft limit of open files as far as needed and allowed.

    Raises PipelineError when that is not enough for this number of processes, or the address space is limited too much.
    """
    needed = FILES + FILES_FOR_EACH * processes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < needed:
            raise PipelineError(f"a process may open {hard} files here, and a pipeline of {processes} processes needs "
                                f"{needed}; raise the limit (ulimit -n {needed}, or LimitNOFILE= of a systemd unit), "
                                "or start fewer workers")
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY and space < ADDRESS_SPACE:
        raise PipelineError(f"a process may use {space:,} bytes of address space here (ulimit -v), and needs "
                            f"{ADDRESS_SPACE:,}, most of which it never touches; raise the limit, and bound memory by "
                            "a cgroup (MemoryMax= of a systemd unit) instead")
