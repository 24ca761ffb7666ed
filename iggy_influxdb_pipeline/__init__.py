"""What an installation adds to site-packages: one package, whose name nobody else has.

A wheel has `pipeline` and `stages` inside this package (`setup.py`), because others' packages may have these names.
The command puts this folder before all others, so that it and its processes always import the project's own. A `.pth`
file puts it behind all others for every Python of the environment, so that `from pipeline.api import Message` works in
a user's tests, unless another package has that name. In a checkout this package changes nothing.
"""

import os
import sys
from pathlib import Path
from typing import Final

#: Where `pipeline` and `stages` are, if they are installed.
FOLDER: Final = Path(__file__).resolve().parent


def run() -> None:
    """The `pipeline` command."""
    if (FOLDER / "pipeline").is_dir():
        sys.path.insert(0, str(FOLDER))
        # For the processes that it starts.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))
    from pipeline.__main__ import run as run_command

    run_command()
