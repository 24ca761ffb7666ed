"""Mistakes in `[[mapping.steps]]` that show when the steps are compiled."""

from msgspec.structs import replace

from pipeline.config.schema import MappingConfig
from pipeline.config.steps_schema import FunctionStep
from stages.mapping.budget import Budget
from stages.mapping.notices import Notices
from stages.mapping.steps.errors import BadStep
from stages.mapping.steps.runner import compiled, compiled_all


def step_problems(mapping: MappingConfig, key: str) -> list[str]:
    """A line for each step that is wrong; `key` is the mapping's table."""
    problems = []
    notices, budget = Notices(), Budget()
    if mapping.has_steps() and mapping.format == "line_protocol":
        problems.append(f'{key}.steps, jq, transform: not with format = "line_protocol", whose lines pass through')
    for index, step in enumerate(mapping.steps):
        try:
            compiled(step, index + 1, mapping, notices, budget)
        except BadStep as error:
            problems.append(f"{key}.steps[{index}].{error.option}: {error}")
    if not mapping.transform and mapping.transform_path and not any(
            isinstance(step, FunctionStep) for step in mapping.steps):
        problems.append(f"{key}.transform_path: only with transform")
    for alone in (replace(mapping, steps=(), transform=""), replace(mapping, steps=(), jq="")):
        try:
            compiled_all(alone, notices, budget)
        except BadStep as error:
            problems.append(f"{key}.{error.option}: {error}")
    return problems
