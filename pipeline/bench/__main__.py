"""`python -m pipeline.bench`: what scripts/bench runs."""

import sys

import click

from pipeline.bench.command import bench
from pipeline.ending import end_with
from pipeline.errors import PipelineError


def run() -> None:
    """The command; a PipelineError is one line, and its exit code."""
    try:
        bench(prog_name="scripts/bench")
    except PipelineError as error:
        click.echo(f"scripts/bench: error: {error}", err=True)
        sys.exit(error.exit_code)


end_with(run)
