"""Reads the configuration again on SIGHUP, and says what differs from the one that runs."""

import logging
import os
from collections.abc import Callable

from pipeline.config.compare import changed_keys
from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of
from pipeline.errors import ConfigError
from pipeline.logs import hide

#: Reads the same configuration again. Raises PipelineError.
LoadConfig = Callable[[], Config]


def reread(load: LoadConfig | None, running: Config, logger: logging.Logger) -> str:
    """Checks the configuration as it is now, and logs every mistake, or what has changed. Returns a text of one line.

    The one that runs goes on in either case.
    """
    if load is None:
        logger.error("the configuration came from standard input and cannot be read again; give it with -c FILE")
        return "the configuration cannot be read again; going on with it"
    try:
        new = load()
    except ConfigError as error:
        for problem in error.located:
            logger.error("%s", problem)
        logger.error("the new configuration has %d mistakes; the pipeline goes on with the one that it has",
                     len(error.located))
        return f"the new configuration has {len(error.located)} mistakes; going on with the old one"
    except Exception as error:  # whatever it is, the pipeline goes on
        logger.error("the configuration cannot be read again: %s; the pipeline goes on with the one that it has", error)
        return "the configuration cannot be read again; going on with the old one"
    hide(secrets_of(new))
    changed = changed_keys(running, new)
    if not changed:
        logger.info("the configuration has not changed")
        return ""
    logger.warning("the configuration has changed in %s; it is used from the next start on", ", ".join(changed))
    return f"restart to use the new configuration: {', '.join(changed)}"


def has_terminal() -> bool:
    """Whether this process has a terminal, which may have been closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
