"""Errors that a user can do something about. `pipeline.exit` prints each as a line and sets the exit code."""

from collections.abc import Sequence

from msgspec import Struct


def missing_package(package: str, extra: str) -> str:
    """The end of an error about an optional package that is not installed: which one, and how to install it."""
    return (f"needs the package {package}, which is not installed; install it with "
            f"pip install 'iggy-influxdb-pipeline[{extra}]'")


class PipelineError(Exception):
    """An error for the user: what happened, to what, and what to do. Exit code 1."""

    exit_code = 1


class Problem(Struct, frozen=True):
    """A mistake in a configuration, and where it is."""

    #: The file, "PIPELINE_IGGY__ADDRESS", "--set", or all files where something is missing.
    place: str
    #: The line, from 1; 0 where there is none.
    line: int
    #: The key, such as "topics[0].stream"; "" for a mistake of the file itself.
    key: str
    #: The key, what is wrong with it, and what is allowed.
    text: str

    def __str__(self) -> str:
        return f"{self.place}{f':{self.line}' if self.line else ''}: {self.text}"


class ConfigError(PipelineError):
    """The configuration is wrong. Exit code 2."""

    exit_code = 2

    def __init__(self, path: object, problems: Sequence[str | Problem]) -> None:
        """`path` names the configuration for problems that are texts alone."""
        #: Where each mistake is.
        self.located = [problem if isinstance(problem, Problem) else
                        Problem(str(path), 0, "", problem) for problem in problems]
        #: A line for each mistake, without its place.
        self.problems = [problem.text for problem in self.located]
        super().__init__("\n".join(map(str, self.located)))
