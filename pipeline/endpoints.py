"""Where the sockets of one pipeline are."""

import os

from pipeline.errors import PipelineError

#: Longest path of a Unix socket on Linux, less the terminating NUL.
MAX_SOCKET_PATH = 107


class Endpoints:
    """ZeroMQ endpoints in a runtime folder."""

    def __init__(self, folder: str) -> None:
        """Raises PipelineError when the folder's name is too long for a Unix socket."""
        self.folder = os.path.abspath(folder)
        if len(os.fsencode(f"{self.folder}/batches-99.ipc")) > MAX_SOCKET_PATH:
            raise PipelineError(f"runtime_dir {self.folder}: too long for a socket's name; give a shorter folder")
        #: ROUTER of the coordinator.
        self.control = f"ipc://{self.folder}/control.ipc"
        #: PUB of the coordinator.
        self.status = f"ipc://{self.folder}/status.ipc"
        #: The source direction: ROUTER and PUB of its coordinator, PUSH of query, PULL of produce.
        self.source_control = f"ipc://{self.folder}/source.ipc"
        self.source_status = f"ipc://{self.folder}/progress.ipc"
        self.pages = f"ipc://{self.folder}/pages.ipc"
        self.messages = f"ipc://{self.folder}/messages.ipc"

    def batches(self, index: int) -> str:
        """PUSH of one ingest process."""
        return f"ipc://{self.folder}/batches-{index}.ipc"

    def writer(self, index: int) -> str:
        """PULL of one writer."""
        return f"ipc://{self.folder}/write-{index}.ipc"
