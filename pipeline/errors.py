"""Errors a user can do something about. The CLI turns each into one line and an exit code."""


#: What is said of Flight where its extra isn't installed.
NO_PYARROW = ("needs the package pyarrow, which is not installed; install it with "
              "pip install 'iggy-influxdb-pipeline[flight]'")


class PipelineError(Exception):
    """Something the user has to know: what happened, to what, what to do. Exit code 1."""

    exit_code = 1


class ConfigError(PipelineError):
    """The configuration is wrong. `problems` has a line for each mistake. Exit code 2."""

    exit_code = 2

    def __init__(self, path: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
