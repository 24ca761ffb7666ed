"""Reads a command's configuration with the checks of the schema and those of the mapping's own code."""

from collections.abc import Collection, Mapping

import click

from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import Examined, examine_config
from pipeline.config.mapping_checks import mapping_contradictions
from pipeline.config.schema import Config, MappingConfig
from pipeline.config.values import Used
from pipeline.errors import ConfigError
from pipeline.logs import clean


def load_config(inputs: ConfigInputs | str, environ: Mapping[str, str] | None = None,
                options: Mapping[str, object] | None = None, sources: Mapping[str, object] | None = None,
                unused: Collection[str] = ()) -> Config:
    """`pipeline.config.load.read_config`, which also compiles the mappings. Raises ConfigError with every mistake.

    For the inputs of a command, environment variables that are not used are named on standard error.
    """
    examined = examine_config(inputs, environ, options, sources, unused, _mapping_problems)
    if isinstance(inputs, ConfigInputs):
        for warning in examined.warnings:
            click.echo(f"pipeline: warning: {clean(warning)}", err=True)
    if examined.config is None:
        raise ConfigError(inputs, examined.problems)
    return examined.config


def examine(inputs: ConfigInputs | str, environ: Mapping[str, str] | None = None,
            unused: Collection[str] = ()) -> Examined:
    """What `load_config` reads, or every mistake, with those in `[[tests]]`."""
    return examine_config(inputs, environ, unused=unused, also=_all_problems)


def _all_problems(config: Config, used: Used) -> list[str]:
    found = _mapping_problems(config, used)
    if used("tests") and config.tests:
        # Imported here, because it imports the whole mapping.
        from pipeline.commands.mapping_tests import case_problems
        found += case_problems(config)
    return found


def _mapping_problems(config: Config, used: Used) -> list[str]:
    """What only the mapping's code finds: names that no line can hold, and mistakes in conditions and formats."""
    problems: list[str] = []
    for index, sink in enumerate(config.all_sinks()):
        key = f"sinks[{index}].mapping" if config.sinks else "mapping"
        if used(key):
            # Imported here, because not every command has a mapping.
            from stages.mapping.check import mapping_problems
            problems += mapping_problems(sink.mapping, key, [(topic.stream, topic.topic) for topic in sink.topics],
                                         is_consistent=not mapping_contradictions(sink.mapping, key))
    for index, source in enumerate(config.sources):
        if source.steps:
            # As above.
            from stages.mapping.steps.check import step_problems
            problems += step_problems(MappingConfig(steps=source.steps), f"sources[{index}]")
    return problems
