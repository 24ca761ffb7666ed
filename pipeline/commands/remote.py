"""`pipeline stage`: the stages that can run on another machine than the pipeline."""

import os
import socket

import click

from pipeline.commands.config import load_config
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE
from pipeline.config.plan import level_of
from pipeline.config.schema import NetworkConfig
from pipeline.config.secrets import secrets_of
from pipeline.errors import PipelineError
from pipeline.logs import setup_logging
from pipeline.options import Group, config_option, log_level_option
from pipeline.sockets.endpoints import RemoteEndpoints


@click.group(cls=Group)
def stage() -> None:
    """Single stages, for a pipeline on another machine."""


@stage.command()
@config_option
@click.option("--connect", required=True, metavar="HOST[:PORT]", help="Where the pipeline listens ([network]).")
@click.option("--keys", "folder", required=True, metavar="FOLDER", help="This encoder's keys, of `pipeline keys`.")
@click.option("--name", default="", help="The encoder's name in the pipeline; by default host and process id.")
@log_level_option
def encode(path: ConfigInputs, connect: str, folder: str, name: str, log_level: str | None) -> None:
    """Encodes for a pipeline on another machine until SIGTERM or SIGINT. Start one for each core."""
    from pipeline.commands.remote_encoder import RemoteEncoder

    host, _, port = connect.removeprefix("tcp://").partition(":")
    if not host or port and not port.isdigit():
        raise PipelineError(f"--connect {connect} is not allowed; give HOST or HOST:PORT")
    config = load_config(path, options={"log_level": log_level},
                         unused=(*DATABASE, "iggy", "sources", "dead_letters", "network", "http", "otlp", "tests"))
    name = f"encode-{name or f'{socket.gethostname()}-{os.getpid()}'}"
    endpoints = RemoteEndpoints(host, int(port or NetworkConfig().port), folder)
    logger = setup_logging(name, level_of(config.pipeline, name), secrets_of(config), config.pipeline.log_format)
    RemoteEncoder(config, name, endpoints, logger).run()
