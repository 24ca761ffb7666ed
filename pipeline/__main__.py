"""The `pipeline` command, also as `python -m pipeline`."""

from pipeline.interrupts import end_on_interrupt


def run() -> None:
    """The command. Ctrl-C ends it with a line from here on; what takes time to import comes after that."""
    end_on_interrupt()
    from pipeline.cli import run as run_command

    run_command()


if __name__ == "__main__":
    run()
