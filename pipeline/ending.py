"""How a command ends that may have talked to Iggy."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn


def end_with(command: Callable[[], object]) -> NoReturn:
    """Runs a command, and ends the process with its exit code.

    Without the shutdown of the interpreter: the Iggy client's threads may still be calling into it, and abort it (seen
    in one of twelve runs with CPython 3.11, as exit code 134).
    """
    code = 1
    try:
        command()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
