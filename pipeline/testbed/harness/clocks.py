"""A wall clock for the processes of a pipeline that a test can set while they run."""

import os
from pathlib import Path


class Clock:
    """Begins right. Give `environ` to the processes whose clock it is to be."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock-offset"
        self.set(0)
        here = Path(__file__).parent / "clock"
        self.environ = {"CLOCK_OFFSET_FILE": str(self._file),
                        "PYTHONPATH": os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])}

    def set(self, seconds: float) -> None:
        """Has it be ahead by so many seconds, from now on."""
        new = self._file.with_name("clock-offset.new")
        new.write_text(str(seconds))
        new.replace(self._file)
