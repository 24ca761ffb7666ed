"""Beside setup.cfg: how a wheel is laid out. In it, `pipeline` and `stages` are inside the one package that it adds to
site-packages, `iggy_influxdb_pipeline`, because others' packages may have these names, too.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

OUTER = "iggy_influxdb_pipeline"
INNER = ("pipeline", "stages")


class BuildInside(build_py):
    """Builds the packages, and moves them into the outer one; not for an editable installation."""

    def run(self) -> None:
        """Builds and moves."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib)
        for name in INNER:
            shutil.rmtree(folder / OUTER / name, ignore_errors=True)
            (folder / name).rename(folder / OUTER / name)
        # A line of such a file is a folder that every Python of the environment searches after site-packages.
        (folder / f"{OUTER}.pth").write_text(f"{OUTER}\n")


setup(cmdclass={"build_py": BuildInside})
