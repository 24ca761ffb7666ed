"""Ends a command: the only place that prints errors and chooses the exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from types import MappingProxyType
from typing import IO, Final, NoReturn

from pipeline.errors import PipelineError

#: When this environment variable is set, an unexpected error is printed with its traceback.
TRACEBACK_VARIABLE: Final = "PIPELINE_TRACEBACK"
#: Every exit code, and when it is used.
EXIT_CODES: Final = MappingProxyType({
    0: "success; for start, sandbox and stage encode: stopped by a signal",
    1: "a failure: a server that cannot be reached, a check that failed, an output that cannot be written",
    2: "the configuration or the command line is wrong: starting again does not help",
    130: "Ctrl-C",
    143: "SIGTERM",
})


def run_and_exit(command: Callable[[], object]) -> NoReturn:
    """Runs a command, then exits the process with its exit code.

    Skips the interpreter's shutdown: threads of the Iggy client may still call into the interpreter and abort it (one
    of twelve runs with CPython 3.11, exit code 134).
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
        code = print_error(error)
    except BaseException as error:
        print_unexpected(error)
    code = _flush(sys.stdout) or code
    _flush(sys.stderr)
    os._exit(code)


def print_error(error: PipelineError) -> int:
    """Prints each line of the error on standard error, without secrets: for machines, as a record of the log.

    Returns the exit code.
    """
    from pipeline.logs import error_line

    for line in str(error).split("\n"):
        sys.stderr.write(f"{error_line(line)}\n")
    return error.exit_code


def _open_streams() -> None:
    """Makes standard input, output and error usable if they are closed or cannot encode every character."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next file that is opened gets this number.
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _flush(stream: IO[str]) -> int:
    """Flushes a stream. Returns 1 if the output cannot be written (closed pipe, full disk), else 0."""
    try:
        stream.flush()
    except BrokenPipeError:
        return 1
    except OSError as error:
        if stream is sys.stdout:
            sys.stderr.write(f"pipeline: error: standard output: {error.strerror}\n")
        return 1
    except ValueError:  # the stream is closed
        return 0
    return 0


def print_unexpected(error: BaseException) -> None:
    """Prints an error that no command expects as one line, or as a traceback (`TRACEBACK_VARIABLE`)."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
        return
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE:
            return
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror or error)
    elif isinstance(error, MemoryError):
        text = "not enough memory"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
        text = (f"{type(error).__name__}: {error}{place}; this is a fault in the pipeline, please report it. Set "
                f"{TRACEBACK_VARIABLE}=1 for a traceback")
    print_error(PipelineError(" ".join(text.split())))
