"""`python -m pipeline.commands.bench_main`: what scripts/bench runs."""

from pipeline.interrupts import end_on_interrupt


def run() -> None:
    """The command. Ctrl-C ends it with a line from here on; what takes time to import comes after that."""
    end_on_interrupt()
    from pipeline.commands.bench import bench
    from pipeline.exit import run_and_exit

    run_and_exit(lambda: bench(prog_name="scripts/bench"))


if __name__ == "__main__":
    run()
