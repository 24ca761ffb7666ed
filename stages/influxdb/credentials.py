"""The token for one InfluxDB, from the configuration or from a file."""

from pathlib import Path

from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.secrets import secret_forms, why_no_value
from pipeline.errors import PipelineError
from pipeline.logs import hide
from stages.influxdb.endpoint import authorization
from stages.influxdb.flavour import Version


class Credentials:
    """The token. A token file is read again by `reload`, as it may change while we run. Thread-safe."""

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._token = config.token
        if config.token_file:
            self.reload()

    def reload(self) -> bool:
        """Reads the token file again. True if the token has changed. Raises PipelineError if it can't be read."""
        if not self._config.token_file:
            return False
        try:
            token = Path(self._config.token_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PipelineError(f"influxdb.token_file {self._config.token_file} can't be read: {error}") from None
        if why := why_no_value(token):
            raise PipelineError(f"influxdb.token_file {self._config.token_file}: {why}")
        hide(secret_forms(token))
        changed, self._token = token != self._token, token
        return changed

    def header(self, version: Version) -> dict[str, str]:
        """The Authorization header; empty without a token."""
        return {"Authorization": authorization(version, self._token)} if self._token else {}
