"""Asks a source's servers over HTTP."""

import time
from collections.abc import Iterator
from types import TracebackType

import msgspec

from pipeline.config.schema import InfluxConfig
from stages.influxdb.answers import Accepted, OperatorNeeded, Retry, TooLarge, classify
from stages.influxdb.faults import meaning_of
from stages.influxdb.flavour import Flavour, Version, ask
from stages.influxdb.http_answer import HttpFault
from stages.influxdb.http_client import HttpClient, Limits, OpenReply
from stages.influxdb.session import Credentials
from stages.languages.language import QueryAnswer, QueryRequest
from stages.query.channel import MAX_ANSWER_BYTES, Failed, missing

#: The longest silence, so many times, is the longest that an answer may take in all.
ANSWER_FACTOR = 10
#: What is read of an error, bytes.
MAX_WORDS_BYTES = 100_000


class Http:
    """Connections for each thread; see `Channel`."""

    def __init__(self, config: InfluxConfig, gzip: bool) -> None:
        """`gzip`: have answers compressed. Raises PipelineError when the token file can't be read."""
        self.timeout = config.connect_timeout_ms / 1000, config.read_timeout_ms / 1000
        self._config = config
        self._gzip = gzip
        self._credentials = Credentials(config)
        self._client = HttpClient(config)

    def reload(self) -> bool:
        """See `Channel`."""
        return self._credentials.reload()

    def listing(self) -> "WholeTaker":
        """See `Channel`."""
        return WholeTaker()

    def ask(self, url: str, asked: QueryRequest, version: Version) -> "HttpReply":
        """See `Channel`."""
        headers = {"Content-Type": asked.content_type, "Accept": asked.accept,
                   "Accept-Encoding": "gzip" if self._gzip else "identity", **self._credentials.header(version)}
        connect, silence = self.timeout
        limits = Limits(connect + silence * ANSWER_FACTOR, silence, connect, MAX_ANSWER_BYTES)
        try:
            reply = self._client.open("POST", url.rstrip("/") + asked.path, asked.body, headers, limits)
            if reply.status == 200:
                return HttpReply(reply, url)
            with reply:
                content = _beginning(reply)
        except HttpFault as fault:
            self._client.disconnect()
            raise Failed(meaning_of(fault, url)) from None
        answer = classify(reply.status, reply.headers, content, time.time())
        words = f"{reply.status}" if isinstance(answer, Accepted) else "; ".join(answer.words.split("\n"))
        # InfluxDB 3 answers 500 where a query names a column that is not there; and 400, in plain text, where it names
        # a table.
        of_query = content.startswith(b"Schema error") or (
            reply.status in (400, 422) and isinstance(answer, OperatorNeeded) and answer.reason == "refused")
        if isinstance(answer, Retry | OperatorNeeded) and not of_query:
            raise Failed(msgspec.structs.replace(answer, words=f"{url} answered {words}"))
        found = isinstance(answer, TooLarge) or not missing(words)
        raise Failed(OperatorNeeded("refused" if found else "not_found", f"{url} answered {words}"))

    def flavour(self, url: str) -> Flavour | None:
        """What answers at `url`; None when it can't be reached."""
        connect, silence = self.timeout
        try:
            return ask(HttpClient(self._config), url, self._credentials.header("v2"),
                       Limits(connect + silence, silence, connect))
        except HttpFault:
            return None


class HttpReply:
    """An answer of status 200; its pieces are bytes. See `Reply`."""

    def __init__(self, reply: OpenReply, url: str) -> None:
        self._reply = reply
        self._url = url

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._reply
        except HttpFault as fault:
            raise Failed(meaning_of(fault, self._url)) from None

    def __enter__(self) -> "HttpReply":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._reply.close()


class WholeTaker:
    """Takes in the bytes of a short answer, whatever is in them. See `Taker`."""

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self._pieces: list[bytes] = []

    def take(self, piece: bytes) -> None:
        """See `Taker`."""
        self.size += len(piece)
        self._pieces.append(piece)

    def finish(self, complete: bool) -> QueryAnswer:
        """See `Taker`."""
        return QueryAnswer(b"".join(self._pieces), self.rows)


def _beginning(reply: OpenReply) -> bytes:
    """What an answer says that is no result: its first bytes, which are enough for words."""
    content = b""
    for piece in reply:
        content += piece
        if len(content) >= MAX_WORDS_BYTES:
            break
    return content[:MAX_WORDS_BYTES]
