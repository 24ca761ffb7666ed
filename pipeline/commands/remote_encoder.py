"""`pipeline stage encode`: an encoder on another machine than the pipeline, which can start and stop at any time.

One process encodes and another watches it. An encoder that dies or hangs is started again, and reports to the pipeline
what the one before it was working on, so that a message that kills encoders is found here, too.
"""

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import tempfile
import time

import setproctitle
import zmq

from pipeline.config.digest import config_digest
from pipeline.config.plan import Plan
from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import RemoteEndpoints
from pipeline.supervisor.child import PR_SET_PDEATHSIG
from pipeline.supervisor.restart_policy import EXCUSE_SECONDS, RestartPolicy
from pipeline.wire import sink as wire
from pipeline.work_file import beats_of, work_of, work_path
from stages.encode.process import EncodeStage
from stages.encode.registry_client import check_admitted

#: Longest wait for the answer to one request to join, milliseconds.
JOIN_MILLISECONDS = 1_000
#: Seconds without an answer between two warnings.
WARNING_SECONDS = 10.0
#: Seconds between two checks of the encoder process.
CHECK_SECONDS = 0.1
#: Longest error of an encoder, bytes: a pipe takes it in one write.
MAX_ERROR_BYTES = 4_096


class RemoteEncoder:
    """Watches one encoder of a pipeline on another machine. Runs in a process without threads, because it forks."""

    def __init__(self, config: Config, name: str, endpoints: RemoteEndpoints, logger: logging.Logger) -> None:
        self._config = config
        self._name = name
        self._endpoints = endpoints
        self._logger = logger
        self._child = 0
        self._signals = 0
        options = config.pipeline
        self._restarts = RestartPolicy(options.max_restarts, options.restart_window_ms / 1000)
        self._timeout = options.heartbeat_timeout_ms / 1000

    def run(self) -> None:
        """Runs encoders until SIGTERM or SIGINT.

        Raises PipelineError when the pipeline refuses the encoder, and when encoders die too often.
        """
        signal.signal(signal.SIGINT, self._forward_signal)
        signal.signal(signal.SIGTERM, self._forward_signal)
        setproctitle.setproctitle(f"pipeline: {self._name} (watch)")
        folder = tempfile.mkdtemp(prefix="pipeline-encoder-")
        try:
            self._watch(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _watch(self, folder: str) -> None:
        died: wire.Restarted | None = None
        while not self._signals:
            began = time.monotonic()
            work_path(folder, self._name).unlink(missing_ok=True)
            why = self._run_once(folder, died)
            if why is None:
                return
            died = wire.Restarted(work_of(folder, self._name), why)
            now = time.monotonic()
            pause = self._restarts.died(self._name, now, now - began, booted=True)
            if self._restarts.too_many(now + EXCUSE_SECONDS):
                raise PipelineError(f"{self._restarts.deaths} encoders died within "
                                    f"{self._config.pipeline.restart_window_ms / 1000:g} s (pipeline.max_restarts is "
                                    f"{self._config.pipeline.max_restarts}), the last one: {why}")
            self._logger.warning("the encoder died (%s); starting it again%s", why,
                                 f" in {pause:.2g} s" if pause else "")
            time.sleep(pause)

    def _run_once(self, folder: str, died: wire.Restarted | None) -> str | None:
        """Runs one encoder to its end. Returns how it died; None if it left. Raises its PipelineError."""
        errors, sender = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(errors)
            code = 1
            try:
                code = _encode(self._config, self._name, self._endpoints, self._logger, folder, died, sender)
            finally:
                os._exit(code)
        os.close(sender)
        why = self._wait(folder)
        with open(errors, "rb") as file:
            error = file.read().decode("utf-8", "replace")
        if error:
            raise PipelineError(error)
        return why

    def _wait(self, folder: str) -> str | None:
        """Waits until the encoder ends; kills one that hangs. Returns how it died; None if it left."""
        beats, since, hung = 0, time.monotonic(), False
        while True:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if pid:
                break
            now, found = time.monotonic(), beats_of(folder, self._name)
            if found != beats or not found:
                beats, since = found, now
            if now - since > self._timeout and not hung:
                hung = True
                self._logger.warning("the encoder hangs: no progress for %g s; killing it", self._timeout)
                os.kill(self._child, signal.SIGKILL)
            time.sleep(CHECK_SECONDS)
        if hung:
            return f"hung for {self._timeout:g} s, and was killed"
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return None
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _forward_signal(self, number: int, _frame: object) -> None:
        self._signals += 1
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, number)


def _encode(config: Config, name: str, endpoints: RemoteEndpoints, logger: logging.Logger, folder: str,
            died: wire.Restarted | None, errors: int) -> int:
    """Runs the encoder in this forked process. Returns the exit code."""
    watcher = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != watcher:
        return 1
    try:
        _Encoder(config, name, endpoints, logger, folder).run(died)
    except PipelineError as error:
        os.write(errors, str(error).encode()[:MAX_ERROR_BYTES])
        return 1
    except Exception:
        logger.exception("failed; this is a fault in the pipeline, please report it")
        return 1
    return 0


class _Encoder:
    """The encoder: joins the pipeline, encodes, and leaves."""

    def __init__(self, config: Config, name: str, endpoints: RemoteEndpoints, logger: logging.Logger,
                 folder: str) -> None:
        """`folder` holds the file with the ranges that it is working on."""
        self._config = config
        self._name = name
        self._endpoints = endpoints
        self._logger = logger
        self._folder = folder
        self._stop = False

    def run(self, died: wire.Restarted | None) -> None:
        """Encodes until SIGTERM or SIGINT; `died` reports the death of the encoder before it. Raises PipelineError."""
        signal.signal(signal.SIGINT, self._count_signal)
        signal.signal(signal.SIGTERM, self._count_signal)
        setproctitle.setproctitle(f"pipeline: {self._name}")
        link = ControlLink(zmq.Context.instance(), self._endpoints, self._endpoints.control, self._name)
        digest, watcher = config_digest(self._config), os.getppid()
        # The watching process identifies the encoder, so that a restarted one is the same to the pipeline.
        link.make_heartbeat = lambda startup_cpu: wire.Join(self._name, watcher, digest, startup_cpu)
        admitted = self._join(link)
        if admitted is None:
            return
        check_admitted(admitted, self._name)
        self._logger.info("encoding for the pipeline at %s", self._endpoints.control)
        if died is not None:
            link.send(died)
        plan = Plan(self._config, self._folder, encoders=0, writers=admitted.writers, ingests=admitted.ingests)
        EncodeStage(plan, self._endpoints, link, self._logger).run(lambda: self._stop)
        link.send(wire.Leave(self._name))
        zmq.Context.instance().destroy(linger=JOIN_MILLISECONDS)
        self._logger.info("left the pipeline; batches in flight to this encoder will be read again")

    def _count_signal(self, _signal: int, _frame: object) -> None:
        if self._stop:
            os._exit(1)
        self._stop = True

    def _join(self, link: ControlLink) -> wire.Admit | None:
        """The pipeline's answer, however long it takes; None after a signal."""
        warned_at = time.monotonic()
        link.socket.setsockopt(zmq.SNDTIMEO, JOIN_MILLISECONDS)
        while not self._stop:
            message = None
            # If the key is not admitted, the socket refuses every send, perhaps from now on.
            with contextlib.suppress(zmq.Again):
                if link.socket.poll(JOIN_MILLISECONDS, zmq.POLLOUT):
                    link.beat()
                    message = link.receive(JOIN_MILLISECONDS)
            if isinstance(message, wire.Admit):
                link.socket.setsockopt(zmq.SNDTIMEO, -1)
                return message
            if time.monotonic() - warned_at > WARNING_SECONDS:
                warned_at = time.monotonic()
                self._logger.warning("no answer from %s: check that the pipeline runs there with [network] listen, and "
                                     "that it has this worker's key", self._endpoints.control)
        return None
