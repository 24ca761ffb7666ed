"""The retention policies of a source's database: which are read, and what the log says of the others."""

import logging
from collections.abc import Callable, Sequence

from pipeline.config.patterns import matches_any
from pipeline.config.source_names import parts_of
from pipeline.config.source_schema import SourceConfig
from pipeline.log_formats import facts
from stages.languages.influxql import InfluxqlDialect
from stages.languages.language import QueryError, QueryRequest, RetentionPolicy


class PolicyWatch:
    """Of one source. Used by one thread at a time."""

    def __init__(self, config: SourceConfig, logger: logging.Logger) -> None:
        self._config = config
        self._logger = logger
        #: Policies that are not read, as last logged, and the default one, as last seen.
        self._unread: list[str] = []
        self._default = ""
        self._warned_of_none = False

    def measurements_of_one(self, dialect: InfluxqlDialect, ask: Callable[[QueryRequest], bytes]) -> list[str]:
        """The measurements of `influxdb.retention_policy`: SHOW MEASUREMENTS of InfluxDB 2 lists those of the default
        policy. Raises QueryFailed and QueryError."""
        only = (self._config.influxdb.retention_policy,)
        return [parts_of(kept).name for kept in dialect.read_measurements_of(only, ask(dialect.measurements_of(only)))]

    def measurements(self, policies: Sequence[RetentionPolicy], dialect: InfluxqlDialect,
                     ask: Callable[[QueryRequest], bytes]) -> list[str]:
        """The measurements of the policies that match `retention_policies`, by the names that they are kept under.

        Raises QueryFailed and QueryError.
        """
        if not policies:  # InfluxDB 1 says that itself
            name = self._config.influxdb.database or self._config.influxdb.bucket
            raise QueryError(f"database not found: {name} has no retention policy, or DBRP mapping, that this token "
                             "may read")
        wanted = [policy.name for policy in policies if matches_any(policy.name, self._config.retention_policies)]
        if not wanted and not self._warned_of_none:
            self._logger.warning("source %s: no retention policy matches `retention_policies`; the database has %s",
                                 self._config.name, ", ".join(policy.name for policy in policies) or "none",
                                 extra=facts(source=self._config.name))
        self._warned_of_none = not wanted
        return dialect.read_measurements_of(wanted, ask(dialect.measurements_of(wanted))) if wanted else []

    def log_unread(self, policies: Sequence[RetentionPolicy]) -> None:
        """Logs the policies that are not read, and that another one has become the default."""
        configured = self._config.influxdb.retention_policy
        unread = [policy.name for policy in policies
                  if (policy.name != configured if configured else not policy.is_default)]
        if unread and unread != self._unread:
            self._logger.warning("source %s: the points of these retention policies of the database are not read: %s. "
                                 "To read them, set retention_policies", self._config.name, ", ".join(unread),
                                 extra=facts(source=self._config.name))
        self._unread = unread
        default = next((policy.name for policy in policies if policy.is_default), "")
        if default and self._default not in ("", default) and not configured:
            self._logger.error(
                "source %s: the default retention policy of the database is now %s, and was %s. From now on points of "
                "%s are read, from the watermark of each measurement on; older ones, and those that still come to %s, "
                "are not. To read both, set retention_policies", self._config.name, default, self._default, default,
                self._default, extra=facts(source=self._config.name))
        self._default = default or self._default
