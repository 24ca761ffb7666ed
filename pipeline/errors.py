"""Errors that a user can do something about. `pipeline.exit` prints each as a line and sets the exit code."""


def missing_package(package: str, extra: str) -> str:
    """The end of an error about an optional package that is not installed: which one, and how to install it."""
    return (f"needs the package {package}, which is not installed; install it with "
            f"pip install 'iggy-influxdb-pipeline[{extra}]'")


class PipelineError(Exception):
    """An error for the user: what happened, to what, and what to do. Exit code 1."""

    exit_code = 1


class ConfigError(PipelineError):
    """The configuration is wrong. `problems` has a line for each mistake. Exit code 2."""

    exit_code = 2

    def __init__(self, path: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
