"""The `pipeline` command, also as `python -m pipeline`."""

from pipeline.interrupts import end_on_interrupt


def run() -> None:
    """Runs the command. Handles Ctrl-C before the slow imports, so that it never ends in a traceback."""
    end_on_interrupt()
    from pipeline.cli import run as run_command

    run_command()


if __name__ == "__main__":
    run()
