"""Write: POSTs bodies to InfluxDB, one request in flight a process, and tries again until each is acknowledged."""

import logging
import random
import time
from typing import Any

import requests
import zmq

from pipeline import wire
from pipeline.backoff import Backoff
from pipeline.child import ControlLink, Plan
from pipeline.endpoints import Endpoints
from pipeline.logs import Muffler
from stages.influxdb.endpoint import write_endpoint

#: How long one wait for lines takes at most, milliseconds; between two the process says Hello.
POLL_MILLISECONDS = 1_000
#: Batches queued for this writer, at most.
HIGH_WATER_MARK = 1
#: Of an error's body, how many characters are logged.
SHOWN_CHARACTERS = 300


class WriteStage:
    """One writer process, with one keep-alive session."""

    def __init__(self, name: str, index: int, plan: Plan, logger: logging.Logger) -> None:
        self.logger = logger
        influxdb = plan.config.all_sinks()[0].influxdb
        self.endpoint = write_endpoint(influxdb)
        self.timeout = influxdb.connect_timeout_ms / 1000, influxdb.read_timeout_ms / 1000
        self.backoff = Backoff(influxdb.retry_backoff_ms / 1000, influxdb.retry_backoff_multiplier,
                               influxdb.retry_backoff_max_ms / 1000, random.random)
        self.session = requests.Session()
        self.session.headers.update(self.endpoint.headers)
        self.session.auth = self.endpoint.auth
        # A ~/.netrc must not replace our token, nor a proxy be guessed.
        self.session.trust_env = False
        endpoints = Endpoints(plan.folder)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.link = ControlLink(context, endpoints.control, name)
        self.pull = context.socket(zmq.PULL)
        self.pull.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        self.pull.bind(endpoints.writer(index))
        self._failures = Muffler()

    def run(self) -> None:
        """Writes until the process is killed."""
        while True:
            self.link.beat()
            if self.pull.poll(POLL_MILLISECONDS):
                head, body = self.pull.recv_multipart(copy=False)
                self._write(wire.decode_lines(head.buffer), body.buffer)

    def _write(self, lines: wire.Lines, body: Any) -> None:
        data = bytes(body)
        attempts = 0
        while failure := self._post(data):
            attempts += 1
            pause = self.backoff.next()
            self.link.send(wire.Retrying(failure))
            if self._failures.allows(failure, time.monotonic()):
                self.logger.warning("write of %d points failed (attempt %d), next try within %.1f s: %s",
                                    lines.points, attempts, pause, failure)
            self._wait(pause)
        if attempts:
            self.backoff.reset()
            self.link.send(wire.Retrying(""))
            self.logger.info("InfluxDB takes writes again, after %d attempts", attempts + 1)
        self.link.send(wire.Settled(lines.range, lines.points, len(data), lines.rejects))

    def _post(self, data: bytes) -> str:
        """One attempt. Empty when InfluxDB acknowledged, else what went wrong, and where."""
        try:
            response = self.session.post(self.endpoint.url, data=data, timeout=self.timeout, allow_redirects=False)
        except requests.ConnectionError as error:
            return f"{self.endpoint.url}: no connection ({type(error.args[0] if error.args else error).__name__})"
        except requests.RequestException as error:
            return f"{self.endpoint.url}: {type(error).__name__}"
        if 200 <= response.status_code < 300:
            return ""
        return f"{self.endpoint.url} answered {response.status_code}: {response.text[:SHOWN_CHARACTERS].strip()}"

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.link.beat()
            time.sleep(min(left, POLL_MILLISECONDS / 1000))
