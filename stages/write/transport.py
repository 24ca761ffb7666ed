"""Writes to one database: one request at the first of its servers that works."""

import logging
import time

from pipeline.config.schema import InfluxConfig
from pipeline.errors import PipelineError
from stages.influxdb.answers import Answer, OperatorNeeded, Retry
from stages.influxdb.credentials import Credentials
from stages.influxdb.failures import failure_of, with_advice
from stages.influxdb.flavour import Flavour, keeps_repeats
from stages.influxdb.http_answer import HttpFault
from stages.influxdb.http_client import HttpClient
from stages.write.server import Server

#: How long a server that has failed is tried last, seconds.
QUARANTINE_SECONDS = 30.0
#: Requests at a time where `max_requests_in_flight` is not set: for a server that answers at once, and for InfluxDB 3,
#: which answers once a second.
MAX_IN_FLIGHT, MAX_IN_FLIGHT_V3 = 8, 64


class Transport:
    """The servers of one database, with failover. Thread-safe."""

    def __init__(self, config: InfluxConfig, urls: tuple[str, ...], logger: logging.Logger) -> None:
        """Raises PipelineError if the token file can't be read."""
        self.config = config
        self.urls = urls
        self._logger = logger
        self._credentials = Credentials(config)
        self._client = HttpClient(config)
        self._servers = [Server(config, url, self._client, self._credentials, logger) for url in urls]
        #: URLs of servers that have failed, and until when they are tried last (seconds, monotonic).
        self._quarantined: dict[str, float] = {}

    @property
    def max_in_flight(self) -> int:
        """The most requests at a time, as far as the servers are known."""
        if self.config.max_requests_in_flight:
            return self.config.max_requests_in_flight
        is_v3 = self.config.version == "v3" or any(flavour.api == "v3" for flavour in self._flavours())
        return MAX_IN_FLIGHT_V3 if is_v3 else MAX_IN_FLIGHT

    @property
    def may_repeat(self) -> bool:
        """Whether a stored point may be written once more, as far as the servers are known."""
        if self.config.repeat_writes != "auto":
            return self.config.repeat_writes == "yes"
        return not any(map(keeps_repeats, self._flavours()))

    def post(self, data: bytes, bucket: str, escapes: bool = False) -> Answer:
        """Writes a body to the first server that can be reached; those in quarantine are tried last.

        `escapes`: it has a backslash, or a line break in a string. The message of a Retry or OperatorNeeded has the
        URL and what the operator should do.
        """
        now = time.monotonic()
        answer: Answer = Retry("no_connection", "no server")
        for server in sorted(self._servers, key=lambda server: self._quarantined.get(server.url, 0.0) > now):
            answer = self._post_to(server, data, bucket, escapes)
            if not isinstance(answer, Retry | OperatorNeeded):
                self._quarantined.pop(server.url, None)
                return answer
            if len(self._servers) > 1:
                self._quarantined[server.url] = time.monotonic() + QUARANTINE_SECONDS
        return answer

    def _post_to(self, server: Server, data: bytes, bucket: str, escapes: bool) -> Answer:
        try:
            answer = server.write(data, bucket, escapes)
            if isinstance(answer, OperatorNeeded) and answer.reason == "unauthorized" and self._credentials.reload():
                self._logger.info("the token in %s has changed; retrying with it", self.config.token_file)
                for other in self._servers:
                    other.forget_flavour()
                answer = server.write(data, bucket, escapes)
            if isinstance(answer, OperatorNeeded) and answer.reason != "unauthorized":
                answer = server.explained(answer)
        except HttpFault as fault:
            answer = failure_of(fault, server.url)
        except PipelineError as error:
            answer = OperatorNeeded("unauthorized", str(error))
        if isinstance(answer, Retry | OperatorNeeded):
            # The name may have several addresses, or another one by now: the next request resolves it again.
            self._client.disconnect()
            return with_advice(answer, "write")
        return answer

    def _flavours(self) -> list[Flavour]:
        return [flavour for server in self._servers if (flavour := server.known_flavour)]
