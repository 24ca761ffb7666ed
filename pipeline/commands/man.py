"""`pipeline man`: manual pages, from the help of the commands and the schema of the configuration."""

import datetime
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click
import msgspec

from pipeline import __version__
from pipeline.errors import PipelineError
from pipeline.exit import EXIT_CODES
from pipeline.files import describe, write_for_all
from pipeline.options import Command, summary
from pipeline.printable import printable

#: Characters that groff would change, and their names.
_ROFF: Final = MappingProxyType({"\\": "\\e", "-": "\\-", "^": "\\(ha", "~": "\\(ti", "`": "\\(ga", "'": "\\(aq"})


@click.command(cls=Command, short_help="Writes the manual pages into a folder")
@click.option("--to", required=True, metavar="FOLDER", help="Made if it is missing, such as /usr/local/share/man; the "
              "pages go to man1 and man5 in it.")
def man(to: str) -> None:
    """Writes the manual pages into a folder: one for each command, and pipeline.toml(5)."""
    pages = command_pages(click.get_current_context().find_root().command)
    for name, text in {**pages, "pipeline.toml.5": configuration_page()}.items():
        path = Path(to) / f"man{name[-1]}" / name
        try:
            write_for_all(path, text.encode())
        except OSError as error:
            raise PipelineError(describe(error, error.filename or path)) from None
    click.echo(printable(f"{to}: {len(pages) + 1} pages; read them with: man -M {to} pipeline"))


def command_pages(root: click.Command) -> dict[str, str]:
    """Name of the file -> page, of all commands."""
    pages: dict[str, str] = {}

    def visit(command: click.Command, parent: click.Context | None, name: str) -> None:
        with click.Context(command, info_name=name.rpartition(" ")[2], parent=parent) as context:
            below = {sub: command.get_command(context, sub) for sub in command.list_commands(context)} \
                if isinstance(command, click.Group) else {}
            pages[f"{name.replace(' ', '-')}.1"] = _command_page(name, command, context, list(below))
            for sub, one in below.items():
                if one is not None and not one.hidden:
                    visit(one, context, f"{name} {sub}")

    visit(root, None, "pipeline")
    return pages


def _command_page(name: str, command: click.Command, context: click.Context, below: list[str]) -> str:
    page = name.replace(" ", "-")
    lines = [_title(page, "1"), ".SH NAME", f"{_text(page)} \\- {_text(summary(command).rstrip('.'))}",
             ".SH SYNOPSIS", f".B {_text(name)}", _text(" ".join(command.collect_usage_pieces(context))),
             ".SH DESCRIPTION", *_paragraphs(command.help or "")]
    options = [record for parameter in command.get_params(context)
               if (record := parameter.get_help_record(context)) is not None]
    if options:
        lines.append(".SH OPTIONS")
        for names, text in options:
            lines += [".TP", f".B {_text(names)}", _text(text) or "\\&"]
    if below:
        lines.append(".SH COMMANDS")
        for sub in below:
            lines += [".TP", f".BR {_text(page)}\\-{_text(sub)} (1)",
                      _text(summary(command.get_command(context, sub)))]  # type: ignore[attr-defined]
    lines.append(".SH EXIT STATUS")
    for code, meaning in EXIT_CODES.items():
        lines += [".TP", f".B {code}", _text(meaning)]
    parent = page.rpartition("-")[0]
    lines += [".SH SEE ALSO", ", ".join(f".BR {_text(other)}" for other in ([parent] if parent else [])) + " (1),"
              if parent else "", ".BR pipeline.toml (5)"]
    return "\n".join(line for line in lines if line) + "\n"


def configuration_page() -> str:
    """The page of all keys, pipeline.toml(5)."""
    from pipeline.config.descriptions import descriptions, purpose
    from pipeline.config.json_schema import structs_of
    from pipeline.config.schema import Config

    lines = [_title("pipeline.toml", "5"), ".SH NAME",
             "pipeline.toml \\- configuration of the Iggy to InfluxDB pipeline", ".SH DESCRIPTION", *_paragraphs(
                 "A TOML file; several files and folders are put together. Flags win over environment variables, those "
                 "over files, and those over the defaults below. \"pipeline config check\" names every mistake, "
                 "\"pipeline config init\" makes a file to start with.")]
    for struct in structs_of(Config):
        title, text = purpose(struct)
        if struct is Config or not title.startswith("["):
            continue
        lines += [f".SH {_text(title)}", *_paragraphs(text[:1].upper() + text[1:])]
        about = descriptions(struct)
        for field in msgspec.structs.fields(struct):
            said = about.get(field.name, "").replace("`", "")
            lines += [".TP", f".B {_text(field.encode_name)}", _text(said) or "\\&", ".br",
                      _text(f"Default: {_default(field)}.")]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR pipeline (1)"]) + "\n"


def _default(field: msgspec.structs.FieldInfo) -> str:
    from pipeline.config.toml_values import toml_value

    if field.required:
        return "none, it is required"
    value: Any = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "its own" if isinstance(value, msgspec.Struct) else toml_value(value)


def _title(page: str, section: str) -> str:
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    at = datetime.datetime.fromtimestamp(int(seconds) if seconds.isdigit() else 0, datetime.UTC)
    date = f"{at:%Y-%m-%d}" if seconds.isdigit() else ""
    # Adjusted to both margins, a line before a long URL would have gaps, and groff would warn of it.
    return f'.TH {_text(page.upper())} {section} "{date}" "pipeline {__version__}" "Iggy to InfluxDB pipeline"\n.ad l'


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(textwrap.dedent(text).strip().split("\n\n")):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Text without what groff would take for its own: escapes, and control lines."""
    escaped = re.sub(r"[\\^~`'-]", lambda match: _ROFF[match[0]], " ".join(text.split()))
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
