"""`python -m pipeline.bench`: what scripts/bench runs."""

import sys

import click

from pipeline.bench.command import bench
from pipeline.errors import PipelineError

try:
    bench(prog_name="scripts/bench")
except PipelineError as error:
    click.echo(f"scripts/bench: error: {error}", err=True)
    sys.exit(error.exit_code)
