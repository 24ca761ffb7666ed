"""What a pipeline needs of its machine, checked before it starts: open files and address space.

Without enough of them libraries abort, or threads can't start, at a time of their own choosing.
"""

import resource
from typing import Final

from pipeline.errors import PipelineError

#: Open files that one process needs, and more for each process of the pipeline: sockets, pipes, connections. About
#: twice what is measured.
FILES: Final = 256
FILES_FOR_EACH: Final = 8
#: Address space of one process, bytes: about twice what is measured, caches and batches included.
ADDRESS_SPACE: Final = 1_000_000_000


def check_resources(processes: int) -> None:
    """Raises the limit of open files as far as it may be raised.

    Raises PipelineError where that is not enough for so many processes, or too little address space is allowed.
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
