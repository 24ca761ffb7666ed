"""Asks a source's servers over HTTP."""

import threading
import time
from collections.abc import Iterator
from types import TracebackType

import msgspec
import requests
import urllib3

from pipeline.schema import InfluxConfig
from stages.influxdb.answers import Again, Paused, TooLarge, Written, classify
from stages.influxdb.flavour import Flavour, Version, ask
from stages.influxdb.http_answer import HttpFault
from stages.influxdb.http_client import HttpClient, Limits
from stages.influxdb.transport import Credentials, new_session
from stages.source.channel import Failed, missing
from stages.source.dialect import Ask, Taken

#: Bytes taken from an answer at once.
PIECE_BYTES = 65_536


class Http:
    """A session for each thread; see `Channel`."""

    def __init__(self, config: InfluxConfig, gzip: bool) -> None:
        """`gzip`: have answers compressed. Raises PipelineError when the token file can't be read."""
        self.timeout = config.connect_timeout_ms / 1000, config.read_timeout_ms / 1000
        self._config = config
        self._gzip = gzip
        self._credentials = Credentials(config)
        self._local = threading.local()
        if config.insecure_skip_verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def reload(self) -> bool:
        """See `Channel`."""
        return self._credentials.reload()

    def listing(self) -> "WholeTaker":
        """See `Channel`."""
        return WholeTaker()

    def ask(self, url: str, asked: Ask, version: Version) -> "HttpReply":
        """See `Channel`."""
        headers = {"Content-Type": asked.content_type, "Accept": asked.accept, **self._credentials.header(version)}
        try:
            reply = self._session().post(url.rstrip("/") + asked.path, data=asked.body, headers=headers,
                                         timeout=self.timeout, allow_redirects=False, stream=True)
            if reply.status_code == 200:
                return HttpReply(reply)
            content = reply.content
        except requests.exceptions.SSLError as error:
            words = f"{url}: TLS: {_words(error)}; correct ca_file, or the certificate"
            raise Failed(Paused("refused", words)) from None
        except requests.Timeout:
            raise Failed(Again("timeout", f"{url}: no answer within {self.timeout[1]:g} s")) from None
        except requests.RequestException as error:
            raise Failed(Again("no_connection", f"{url}: no connection ({_words(error)})")) from None
        answer = classify(reply.status_code, reply.headers, content, time.time())
        words = f"{reply.status_code}" if isinstance(answer, Written) else "; ".join(answer.words.split("\n"))
        # InfluxDB 3 answers 500 where a query names a column that is not there; and 400, in plain text, where it names
        # a table.
        of_query = content.startswith(b"Schema error") or (
            reply.status_code in (400, 422) and isinstance(answer, Paused) and answer.reason == "refused")
        if isinstance(answer, Again | Paused) and not of_query:
            raise Failed(msgspec.structs.replace(answer, words=f"{url} answered {words}"))
        found = isinstance(answer, TooLarge) or not missing(words)
        raise Failed(Paused("refused" if found else "not_found", f"{url} answered {words}"))

    def flavour(self, url: str) -> Flavour | None:
        """What answers at `url`; None when it can't be reached."""
        connect, silence = self.timeout
        try:
            return ask(HttpClient(self._config), url, self._credentials.header("v2"),
                       Limits(connect + silence, silence, connect))
        except HttpFault:
            return None

    def _session(self) -> requests.Session:
        """This thread's."""
        if not hasattr(self._local, "session"):
            session = new_session(self._config)
            session.headers.pop("Content-Encoding", None)
            session.headers["Accept-Encoding"] = "gzip" if self._gzip else "identity"
            self._local.session = session
        session = self._local.session
        assert isinstance(session, requests.Session)
        return session


class HttpReply:
    """An answer of status 200; its pieces are bytes. See `Reply`."""

    def __init__(self, reply: requests.Response) -> None:
        self._reply = reply

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._reply.raw.stream(PIECE_BYTES, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Failed(Again("no_connection", f"the answer broke off: {_words(error)}")) from None

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

    def finish(self, complete: bool) -> Taken:
        """See `Taker`."""
        return Taken(b"".join(self._pieces), self.rows)


def _words(error: BaseException) -> str:
    reason = getattr(error.args[0] if error.args else error, "reason", error)
    return str(reason).rpartition(">: ")[2][:200] or type(error).__name__
