"""Figures as text, and as one HTML page that needs nothing else. Pure."""

from html import escape

from pipeline.testbed.bench import plots
from pipeline.testbed.bench.results import Figures, Held, Throughput, next_bottleneck, ratios


def text(figures: Figures) -> str:
    """All figures, for a terminal."""
    out = [f"{name}: {value}" for name, value in figures.about.items()]
    if figures.throughput is not None:
        out += _throughput(figures.throughput)
    out += [f"{name}: {value:,}" for name, value in figures.encoder.items()]
    if figures.held is not None:
        out += _held(figures.held)
    for baseline in figures.baselines:
        ratio = ratios(figures).get(baseline.name, {})
        rate, cpu = ratio.get("messages_per_second", 0), ratio.get("cpu_us_per_message", 0)
        out.append(f"{baseline.name}: {baseline.messages_per_second:,} messages/s, {baseline.cpu_us_per_message:g} us "
                   f"of CPU a message, {baseline.bytes_per_point:g} bytes a point; ours: {rate:g} times the rate, "
                   f"1/{cpu:g} of the CPU")
    for run in figures.scaling:
        out.append(f"{run.workers} encoders: {run.messages_per_second:,} messages/s; {_cpu(run)}")
    if figures.scaling:
        out.append(next_bottleneck(figures.scaling))
    if figures.ratio_to_bare_loop:
        out.append(f"bare loop of ready-made bodies: {figures.bare_lines_per_second:,} lines/s; we reach "
                   f"{figures.ratio_to_bare_loop:.2f} of it")
    return "\n".join(out)


def _throughput(run: Throughput) -> list[str]:
    return [f"messages_per_second: {run.messages_per_second:,} of {run.messages:,}; {run.workers} encoders, "
            f"{run.writers} writers", f"cpu_us_per_message: {_cpu(run)}", f"bytes_per_point: {run.bytes_per_point:g}"]


def _cpu(run: Throughput) -> str:
    return ", ".join(f"{name} {cost:.3f}" for name, cost in run.cpu_us_per_message.items())


def _held(held: Held) -> list[str]:
    latency = ", ".join(f"{name} {ms:g}" for name, ms in held.latency_ms.items())
    peak = {name: max(sample.pss_mib for sample in samples) for name, samples in held.processes.items() if samples}
    return [f"held rate: {held.load.summary()}",
            f"latency in ms, intended send to acknowledged write, flush_interval_ms = {held.flush_interval_ms}: "
            f"{latency}",
            f"points a request: {held.points_per_request:g}",
            "memory (PSS), most, MiB: " + ", ".join(f"{name} {mib:.0f}" for name, mib in peak.items())]


def html(figures: Figures) -> str:
    """The page."""
    drawn = []
    if figures.throughput is not None:
        drawn.append(cpu_plot({"this run": figures.throughput}))
    if figures.held is not None:
        drawn += held_plots(figures.held)
    if figures.baselines and figures.throughput is not None:
        rates = {"pipeline": {"messages a second": float(figures.throughput.messages_per_second)},
                 **{b.name: {"messages a second": float(b.messages_per_second)} for b in figures.baselines}}
        drawn.append(plots.bars("Throughput against others", "messages a second", rates))
    if figures.scaling:
        drawn.append(scaling_plot(figures.scaling))
    return (f"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pipeline bench</title>"
            "<style>body{font-family:sans-serif;max-width:52em;margin:2em auto}pre{background:#f4f4f4;padding:1em;"
            "white-space:pre-wrap}</style></head><body>\n<h1>pipeline bench</h1>\n"
            f"<pre>{escape(text(figures))}</pre>\n{''.join(drawn)}</body></html>\n")


def cpu_plot(runs: dict[str, Throughput]) -> str:
    """CPU a message by process, of each run."""
    return plots.bars("CPU a message by process", "microseconds", {
        label: {name: cost for name, cost in run.cpu_us_per_message.items() if name != "total"}
        for label, run in runs.items()})


def scaling_plot(scaling: list[Throughput]) -> str:
    """CPU a message by process, by encoders."""
    return cpu_plot({f"{run.workers} encoder{'s' * (run.workers > 1)}": run for run in scaling})


def held_plots(held: Held) -> list[str]:
    """Latency, CPU and memory over time."""
    latency = {"p50": [(at, p50) for at, _, p50, _ in held.by_second],
               "p99": [(at, p99) for at, _, _, p99 in held.by_second]}
    cpu = {name: [(s.at, s.cpu_percent) for s in samples] for name, samples in held.processes.items()}
    memory = {name: [(s.at, s.pss_mib) for s in samples] for name, samples in held.processes.items()}
    return [plots.lines("Latency, intended send to acknowledged write", "seconds", "milliseconds", latency),
            plots.lines("Points acknowledged", "seconds", "points a second",
                        {"points": [(at, float(count)) for at, count, _, _ in held.by_second]}),
            plots.lines("CPU by process", "seconds", "percent of a core", cpu),
            plots.lines("Memory by process", "seconds", "MiB (PSS)", memory)]
