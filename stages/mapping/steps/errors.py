"""What a step raises where it cannot do its work on a message."""


from pipeline.errors import PipelineError


class StepFailed(Exception):
    """The step cannot be done on this message, or this value; the text says why. `on_error` applies."""


class NothingThere(Exception):
    """The message has none of the step's values; the text names them. `on_missing` applies."""


class BadStep(PipelineError):
    """A step of the configuration is wrong: a key of its table, and what is wrong with it."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(problem)
        self.option = option


class BadPath(ValueError):
    """A path cannot be read."""
