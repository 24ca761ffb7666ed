"""Credentials and sessions for one InfluxDB: token, user, TLS, proxy, headers."""

from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

from pipeline.config.schema import InfluxConfig
from pipeline.config.secrets import token_forms, why_no_value
from pipeline.errors import PipelineError
from pipeline.logs import hide
from stages.influxdb.endpoint import authorization
from stages.influxdb.flavour import Version


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
