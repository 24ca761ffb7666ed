"""Configuration of the documentation: `sphinx-build -W docs build/docs`."""

import sys
from pathlib import Path

from pipeline import __version__

sys.path.insert(0, str(Path(__file__).parent))
import metrics  # noqa: E402  (beside this file)
import options  # noqa: E402

options.write(Path(__file__).parent)
metrics.write(Path(__file__).parent)

project = "Iggy to InfluxDB pipeline"
author = "the authors"
copyright = "the authors, Apache-2.0"  # noqa: A001
release = version = __version__
html_theme = "alabaster"
html_theme_options = {"description": "Apache Iggy to InfluxDB and back, at least once", "fixed_sidebar": True,
                      "page_width": "1100px"}
html_show_sourcelink = False
