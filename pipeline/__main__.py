"""`python -m pipeline` is the `pipeline` command."""

from pipeline.cli import run

if __name__ == "__main__":
    run()
