"""What is wrong with a format's options, its files or the packages that it needs."""

from pipeline import errors


class BadFormat(ValueError):
    """The format cannot be used as configured: `option` says which key of the mapping is to blame."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(problem)
        self.option = option


def missing_package(option: str, value: str, package: str, extra: str) -> BadFormat:
    """An optional package is not installed."""
    return BadFormat(option, f'"{value}" {errors.missing_package(package, extra)}')
