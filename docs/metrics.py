"""Writes the page of all metrics from `pipeline.http.metrics`."""

from pathlib import Path

from pipeline.http.metrics import MAX_MEASUREMENTS, MAX_PARTITIONS, MAX_TOPICS, METRICS, PREFIX, Metric
from pipeline.reasons import REASONS

INTRODUCTION = f"""Metrics
=======

What ``/metrics`` answers, generated from the code. :doc:`/how-to/monitor` describes how to have them scraped.

Counters start at 0 with the coordinator that counts them: at the start of the pipeline, and when that process had to be
replaced. ``rate()`` and ``increase()`` take that into account; in the OpenMetrics format each counter has the time of
its start (``_created``).

The number of series is bounded. The first {MAX_TOPICS:,} topics are counted one by one, all further ones of a sink as
the topic "(further topics)". Each subscription of a sink (a topic) has 15, and one for each reason of rejects that
has occurred, of at most {len(REASONS) + 1}; each partition at most 6; each database some 40, each process 5, each
source 11, each measurement 1. Only the {MAX_PARTITIONS:,} partitions with the largest lag and the {MAX_MEASUREMENTS:,}
measurements with the oldest watermarks have series of their own; those of topics and sources cover all of them.
Histograms have 13 to 18 buckets. 1,000 partitions are 5,000 series.
"""


def page() -> str:
    """The page, reStructuredText."""
    out = INTRODUCTION
    for title, belongs in (("Sinks: Iggy to InfluxDB", lambda name: not name.startswith(("source_", "process_"))
                            and name not in ("ready", "waiting_seconds", "build")),
                           ("Sources: InfluxDB to Iggy", lambda name: name.startswith("source_")),
                           ("The pipeline and its processes", lambda name: name.startswith("process_")
                            or name in ("ready", "waiting_seconds", "build"))):
        out += f"\n{title}\n{'-' * len(title)}\n\n"
        out += "".join(_entry(metric) for metric in METRICS if belongs(metric.name))
    return out


def exported_name(metric: Metric) -> str:
    """The name under which a metric is queried."""
    return PREFIX + metric.name + {"counter": "_total", "info": "_info"}.get(metric.kind, "")


def write(folder: Path) -> None:
    """Writes `reference/metrics.rst` below the documentation's folder, if it has changed."""
    path = folder / "reference" / "metrics.rst"
    text = page()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _entry(metric: Metric) -> str:
    labels = f"; labels: {', '.join(f'``{label}``' for label in metric.labels)}" if metric.labels else ""
    return (f"``{exported_name(metric)}``\n   {metric.kind.capitalize()}{labels}.\n\n"
            f"   {metric.help[0].upper()}{metric.help[1:]}.\n\n")
