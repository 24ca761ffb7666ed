"""`pipeline reload`: a running pipeline reads its configuration again."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

import click

from pipeline.commands.config import load_config
from pipeline.commands.status import UNUSED
from pipeline.config.inputs import ConfigInputs
from pipeline.errors import PipelineError
from pipeline.http.client import Running, request
from pipeline.options import Command, config_option

#: Seconds between two looks at how far a reload is.
LOOK_SECONDS: Final = 0.2


@click.command(cls=Command)
@config_option
@click.option("--timeout", type=click.IntRange(1, 86_400), default=300, show_default=True, metavar="SECONDS",
              help="Longest wait for the reload to end.")
def reload(path: ConfigInputs, timeout: int) -> None:
    """Has a running pipeline read its configuration again.

    A configuration with a mistake changes nothing, and every mistake is named. What can change while messages
    are written, such as a mapping or a token, changes at once; for the rest, what is in flight is finished first.
    """
    pipeline = Running(load_config(path, unused=UNUSED), path.files)
    status = request(pipeline, "GET", "/status")
    before = status["reload"]["number"]
    os.kill(status["pid"], signal.SIGHUP)
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        try:
            found = request(pipeline, "GET", "/status")["reload"]
        except PipelineError:  # it listens anew, or has ended
            if not _runs(status["pid"]):
                raise PipelineError("the pipeline has ended during the reload; see its log") from None
            continue
        if found["number"] > before and found["outcome"] != "running":
            if found["outcome"] == "failed":
                lines = [*found["lines"], "the pipeline goes on with the configuration that it has"]
                raise PipelineError("\n".join(lines))
            click.echo("\n".join(found["lines"]))
            return
    raise PipelineError(f"the reload has not ended within {timeout} s; see the pipeline's log")


def _runs(pid: int) -> bool:
    """Whether a process runs. One that has ended and was not waited for by its parent does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
