"""The HTTP side of writing: sessions, credentials, TLS, one attempt at a time, failover between servers."""

import logging
import threading
import time
from pathlib import Path

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter

from pipeline.errors import PipelineError
from pipeline.logs import Muffler, hide
from pipeline.schema import InfluxConfig
from pipeline.secrets import token_forms, why_no_value
from stages.influxdb.answers import Again, Answer, Paused, classify
from stages.influxdb.body import compress, decompress, doubled
from stages.influxdb.endpoint import authorization, write_url
from stages.influxdb.flavour import Flavour, Version, ask, complaint, escapes_backslashes, write_version

#: Seconds that a server which failed is tried last, in failover.
SHUN_SECONDS = 30.0
#: Requests at a time where none are configured: for a server that answers at once, and for one that gathers them.
FEW_REQUESTS, MANY_REQUESTS = 4, 32


class Credentials:
    """The token, from the configuration or from a file that may change while we run. Thread-safe."""

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._token = config.token
        if config.token_file:
            self.reload()

    def reload(self) -> bool:
        """Reads the token file again; True when the token is another one. Raises PipelineError if it can't be read."""
        if not self._config.token_file:
            return False
        try:
            token = Path(self._config.token_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PipelineError(f"influxdb.token_file {self._config.token_file} can't be read: {error}") from None
        if why := why_no_value(token):
            raise PipelineError(f"influxdb.token_file {self._config.token_file}: {why}")
        hide(token_forms(token))
        changed, self._token = token != self._token, token
        return changed

    def header(self, version: Version) -> dict[str, str]:
        """The Authorization header, if there is a token."""
        return {"Authorization": authorization(version, self._token)} if self._token else {}


def new_session(config: InfluxConfig) -> requests.Session:
    """A session with the configured TLS, proxy, user and headers."""
    session = requests.Session()
    # A ~/.netrc must not replace our token, nor a proxy be guessed.
    session.trust_env = False
    adapter = HTTPAdapter(pool_connections=2, pool_maxsize=2, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"Content-Type": "text/plain; charset=utf-8", "Accept": "application/json"})
    if config.gzip:
        session.headers["Content-Encoding"] = "gzip"
    session.headers.update(config.headers)
    if config.username and not (config.token or config.token_file):
        session.auth = config.username, config.password
    session.verify = False if config.insecure_skip_verify else config.ca_file or True
    if config.client_cert_file:
        session.cert = (config.client_cert_file, config.client_key_file) if config.client_key_file \
            else config.client_cert_file
    if config.proxy:
        session.proxies = {"http": config.proxy, "https": config.proxy}
    return session


class Transport:
    """Writes to one database: at the first of its servers that works. Thread-safe; a session for each thread."""

    def __init__(self, config: InfluxConfig, urls: tuple[str, ...], logger: logging.Logger) -> None:
        self.config = config
        self.urls = urls
        self.logger = logger
        self.credentials = Credentials(config)
        self.timeout = config.connect_timeout_ms / 1000, config.read_timeout_ms / 1000
        self._local = threading.local()
        self._lock = threading.Lock()
        self._flavours: dict[str, Flavour] = {}
        self._shunned: dict[str, float] = {}
        self._complaints = Muffler(60.0)
        if config.insecure_skip_verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    @property
    def most_requests(self) -> int:
        """How many to have on the way at a time, at most, as far as the servers are known."""
        if self.config.max_in_flight:
            return self.config.max_in_flight
        gathers = self.config.version == "v3" or any(found.api == "v3" for found in list(self._flavours.values()))
        return MANY_REQUESTS if gathers else FEW_REQUESTS

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = new_session(self.config)
        session: requests.Session = self._local.session
        return session

    def post(self, data: bytes, bucket: str, backslashes: bool = False) -> Answer:
        """One write, at the server that is most likely to work; at the next ones when there is no connection.

        `backslashes`: somewhere in the lines are two in a row.
        """
        now = time.monotonic()
        answer: Answer = Again("no_connection", "no server")
        for url in sorted(self.urls, key=lambda u: self._shunned.get(u, 0.0) > now):
            answer = self._post_to(url, data, bucket, backslashes)
            if not isinstance(answer, Again | Paused):
                self._shunned.pop(url, None)
                return answer
            if len(self.urls) > 1:
                self._shunned[url] = time.monotonic() + SHUN_SECONDS
        return answer

    def _post_to(self, url: str, data: bytes, bucket: str, backslashes: bool) -> Answer:
        flavour: Flavour | None = None
        if self.config.version == "auto" or backslashes and self.config.version != "v3":
            flavour = self._flavour(url)
            if flavour is None:
                return Again("no_connection", f"{url}: no connection")
        version = write_version(self.config, flavour)
        if backslashes and escapes_backslashes(self.config, flavour):
            data = compress(doubled(decompress(data))) if self.config.gzip else doubled(data)
        answer = self._attempt(write_url(self.config, url, version, bucket), version, data)
        if isinstance(answer, Paused) and answer.reason == "unauthorized" and self.credentials.reload():
            self.logger.info("the token file has another token; trying with it")
            self._flavours.clear()
            answer = self._attempt(write_url(self.config, url, version, bucket), version, data)
        return answer

    def _attempt(self, url: str, version: Version, data: bytes) -> Answer:
        try:
            reply = self._session().post(url, data=data, headers=self.credentials.header(version),
                                         timeout=self.timeout, allow_redirects=False)
        except requests.exceptions.SSLError as error:
            return Paused("refused", f"{url}: TLS: {_root(error)}; correct ca_file, or the certificate")
        except requests.Timeout:
            return Again("timeout", f"{url}: no answer within {self.timeout[1]:g} s")
        except requests.ConnectionError as error:
            return Again("no_connection", f"{url}: no connection ({_root(error)})")
        except requests.RequestException as error:
            return Again("no_connection", f"{url}: {type(error).__name__}: {_root(error)}")
        answer = classify(reply.status_code, reply.headers, reply.content, time.time())
        if isinstance(answer, Again | Paused):
            return msgspec.structs.replace(answer, words=f"{url} answered {answer.words}")
        return answer

    def _flavour(self, url: str) -> Flavour | None:
        """What answers at `url`; None until it has been reached once."""
        with self._lock:
            if url not in self._flavours:
                flavour = ask(self._session(), url, self.timeout, self.credentials.header("v2"))
                if flavour is None:
                    return None
                if (wrong := complaint(self.config, flavour)) and self._complaints.allows(wrong, time.monotonic()):
                    self.logger.error("%s: %s", url, wrong)
                self._flavours[url] = flavour
            return self._flavours[url]


def _root(error: BaseException) -> str:
    """The innermost reason of a requests exception, in words; no addresses of objects."""
    reason: object = error.args[0] if error.args else error
    reason = getattr(reason, "reason", reason)
    text = str(reason.args[-1]) if isinstance(reason, BaseException) and reason.args else str(reason)
    return text.rpartition(">: ")[2][:200] or type(error).__name__


def describe(config: InfluxConfig, logger: logging.Logger) -> None:
    """Says at the start which server answers, and what is wrong with the configured version for it."""
    session = new_session(config)
    try:
        credentials = Credentials(config).header("v2")
    except PipelineError:  # the writers stop with it
        credentials = {}
    if config.insecure_skip_verify:
        logger.warning("influxdb.insecure_skip_verify: anybody on the way can read and change what is written")
    for url in config.urls():
        flavour = ask(session, url, (min(5.0, config.connect_timeout_ms / 1000), 5.0), credentials)
        if flavour is None:
            logger.warning("%s can't be reached yet; reading begins, writing waits for it", url)
            continue
        wrong = complaint(config, flavour)
        version = write_version(config, flavour)
        logger.log(logging.ERROR if wrong else logging.INFO, "%s is %s; writing to %s%s", url, flavour,
                   write_url(config, url, version), f". But {wrong}" if wrong else "")
