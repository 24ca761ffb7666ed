"""Logs at the start which servers a sink writes to, and what is wrong with the configuration for them."""

import logging
from collections.abc import Mapping
from urllib.parse import urlencode

from pipeline.config.schema import InfluxConfig
from pipeline.errors import PipelineError
from stages.influxdb.credentials import Credentials
from stages.influxdb.deadline import Limits
from stages.influxdb.endpoint import write_url
from stages.influxdb.error_body import json_object
from stages.influxdb.failures import failure_of, with_advice
from stages.influxdb.flavour import QUESTDB, identify, version_mismatch, write_version
from stages.influxdb.http_answer import HttpFault
from stages.influxdb.http_client import HttpClient
from stages.influxdb.questdb import TABLES_QUERY, dedup_warnings, tables_of

#: Longest check of a server, seconds.
CHECK_SECONDS = 5.0


def log_servers(config: InfluxConfig, logger: logging.Logger, measurement: str = "") -> None:
    """Identifies each server of a sink. Never raises: the writers retry, or report what the operator has to do.

    `measurement`: the only one that is written; "" if there may be several.
    """
    client = HttpClient(config)
    try:
        credentials = Credentials(config).header("v2")
    except PipelineError:  # the writers report it
        credentials = {}
    if config.insecure_skip_verify:
        logger.warning("influxdb.insecure_skip_verify: TLS certificates are not verified: traffic can be intercepted "
                       "and altered. Set ca_file instead")
    limits = Limits(CHECK_SECONDS, connect=min(CHECK_SECONDS, config.connect_timeout_ms / 1000))
    for url in config.servers():
        try:
            flavour = identify(client, url, credentials, limits)
        except HttpFault as fault:
            logger.warning("%s; starting, writes are retried until it answers",
                           with_advice(failure_of(fault, url), "write").message)
            continue
        mismatch = version_mismatch(config, flavour)
        target = write_url(config, url, write_version(config, flavour))
        logger.log(logging.ERROR if mismatch else logging.INFO, "%s is %s; writing to %s%s", url, flavour, target,
                   f". But {mismatch}" if mismatch else "")
        if flavour.product == QUESTDB and config.repeat_writes != "yes":
            for warning in dedup_warnings(_tables(client, url, credentials, limits), measurement):
                logger.warning("%s: %s", url, warning)


def _tables(client: HttpClient, url: str, credentials: Mapping[str, str], limits: Limits) -> dict[str, bool] | None:
    """The tables of a QuestDB, and whether they have DEDUP; None if it does not report them."""
    target = f"{url.rstrip('/')}/exec?{urlencode({'query': TABLES_QUERY})}"
    try:
        reply = client.exchange("GET", target, b"", credentials, limits)
    except HttpFault:
        return None
    return tables_of(json_object(reply.body))
