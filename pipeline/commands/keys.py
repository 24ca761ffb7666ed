"""`pipeline keys`: makes the CURVE keys for encoders on other machines."""

import click

from pipeline.options import Command
from pipeline.sockets.curve_keys import add_worker, make_keys


@click.command(cls=Command, short_help="Makes the keys for encoders on other machines")
@click.argument("folder")
@click.option("--worker", default="", metavar="NAME", help="Make the keys of a worker, and admit it.")
def keys(folder: str, worker: str) -> None:
    """Makes the keys of a pipeline in FOLDER, or with --worker those of an encoder on another machine."""
    if not worker:
        make_keys(folder)
        click.echo(f"made {folder}/server.key_secret; give this folder as network.keys")
        return
    own = add_worker(folder, worker)
    click.echo(f"made {own}; move it to the worker's machine, and start the pipeline again to admit {worker}")
