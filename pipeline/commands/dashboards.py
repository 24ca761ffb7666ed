"""`pipeline dashboards`: writes the Grafana dashboard and the alert rules."""

from importlib import resources
from pathlib import Path

import click

from pipeline.errors import PipelineError
from pipeline.files import describe, write_for_all
from pipeline.options import Command
from pipeline.printable import printable

#: The files, and what each is for.
FILES = {"grafana-dashboard.json": "import it in Grafana: Dashboards, New, Import",
         "alert-rules.yaml": "name it in rule_files of Prometheus, or in -rule of vmalert"}


@click.command(cls=Command)
@click.option("--to", "folder", required=True, metavar="DIR", help="Folder for the files; made if missing.")
@click.option("--force", is_flag=True, help="Replace files that were changed.")
def dashboards(folder: str, force: bool) -> None:
    """Writes a Grafana dashboard and alert rules."""
    to = Path(folder)
    contents = {name: content_of(name) for name in FILES}
    try:
        changed = [to / name for name, content in contents.items()
                   if (to / name).exists() and (to / name).read_bytes() != content]
        if changed and not force:
            raise PipelineError(f"{', '.join(map(str, changed))}: there already, with other content; move it away, or "
                                "give --force to replace it")
        for name, content in contents.items():
            write_for_all(to / name, content)
            click.echo(printable(f"{to / name}: {FILES[name]}"))
    except OSError as error:
        raise PipelineError(describe(error)) from None


def content_of(name: str) -> bytes:
    """One of FILES."""
    return (resources.files("pipeline.http.monitoring") / name).read_bytes()
