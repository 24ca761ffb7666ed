"""Mistakes in `[[mapping.steps]]` that show when the steps are compiled."""

from pipeline.config.schema import MappingConfig
from stages.mapping.limits import Limits
from stages.mapping.steps.errors import BadStep
from stages.mapping.steps.runner import compiled


def step_problems(mapping: MappingConfig, key: str) -> list[str]:
    """A line for each step that is wrong; `key` is the mapping's table."""
    problems = []
    if mapping.steps and mapping.format == "line_protocol":
        problems.append(f'{key}.steps: not with format = "line_protocol", whose lines pass through')
    for index, step in enumerate(mapping.steps):
        try:
            compiled(step, index + 1, Limits.of(mapping))
        except BadStep as error:
            problems.append(f"{key}.steps[{index}].{error.option}: {error}")
    return problems
