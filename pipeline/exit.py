"""How a command ends: errors become a line each and an exit code here, and nowhere else."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import IO, Final, NoReturn

from pipeline.errors import PipelineError

#: Set to anything, it shows where in the code an unexpected error came from.
TRACEBACK_VARIABLE: Final = "PIPELINE_TRACEBACK"


def run_and_exit(command: Callable[[], object]) -> NoReturn:
    """Runs a command, and ends the process with its exit code.

    Without the shutdown of the interpreter: the Iggy client's threads may still be calling into it, and abort it (seen
    in one of twelve runs with CPython 3.11, as exit code 134).
    """
    _open_streams()
    code = 1
    try:
        command()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        code = 130
    except PipelineError as error:
        code = tell(error)
    except BaseException as error:
        _say(error)
    code = _flush(sys.stdout) or code
    _flush(sys.stderr)
    os._exit(code)


def tell(error: PipelineError) -> int:
    """Says what is wrong, a line each; the exit code."""
    from pipeline.logs import clean

    for line in str(error).split("\n"):
        sys.stderr.write(f"pipeline: error: {clean(line)}\n")
    return error.exit_code


def _open_streams() -> None:
    """Makes standard input, output and error usable where they are closed, or can't hold every character."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened would be taken for it.
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _flush(stream: IO[str]) -> int:
    """The exit code where what was written can't be: nobody reads it any more, or the disk is full. Else 0."""
    try:
        stream.flush()
    except BrokenPipeError:
        return 1
    except OSError as error:
        if stream is sys.stdout:
            sys.stderr.write(f"pipeline: error: standard output: {error.strerror}\n")
        return 1
    except ValueError:  # it was closed
        return 0
    return 0


def _say(error: BaseException) -> None:
    """An error that no command has foreseen, in a line."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
        return
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE:
            return
        words = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror or error)
    elif isinstance(error, MemoryError):
        words = "there is not enough memory"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
        words = (f"{type(error).__name__}: {error}{place}; this is a fault in the pipeline, please report it. With "
                 f"{TRACEBACK_VARIABLE}=1 it says more")
    tell(PipelineError(" ".join(words.split())))
