"""Errors of a format's options, its files, and the packages that it needs."""

from pipeline import errors


class BadFormat(ValueError):
    """The format cannot be used as configured; `option` is the key of the mapping that causes it."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(problem)
        self.option = option


def missing_package(option: str, value: str, package: str, extra: str) -> BadFormat:
    """The error for an optional package that is not installed."""
    return BadFormat(option, f'"{value}" {errors.missing_package(package, extra)}')
