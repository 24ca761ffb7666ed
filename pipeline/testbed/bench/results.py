"""What the measurements give: Structs that become text, JSON and plots."""

from msgspec import Struct

from pipeline.testbed.bench.sampler import Sample
from pipeline.testbed.load.runner import LoadResult


class Throughput(Struct, frozen=True):
    """A backlog of messages, read to its end. Start-up is not counted."""

    messages: int
    messages_per_second: int
    #: "total" and by kind of process; microseconds.
    cpu_us_per_message: dict[str, float]
    #: As sent, after compression.
    bytes_per_point: float
    workers: int
    writers: int
    batches: int


class Held(Struct, frozen=True):
    """A load at a held rate, with the pipeline and its receiver beside it."""

    load: LoadResult
    #: Messages a second that were asked for.
    rate: float
    #: "p50", "p90", "p99", "p99.9" and "max" in milliseconds, from when a message was meant to be sent to when its
    #: point was acknowledged.
    latency_ms: dict[str, float]
    #: (seconds since the first one, points, p50, p99).
    by_second: list[tuple[float, int, float, float]]
    points: int
    points_per_request: float
    #: name of the process -> samples.
    processes: dict[str, list[Sample]]
    flush_interval_ms: int


class Baseline(Struct, frozen=True):
    """Another way to write the same messages."""

    name: str
    messages_per_second: int
    #: Of the process that encodes and writes.
    cpu_us_per_message: float
    bytes_per_point: float


class Figures(Struct, kw_only=True):
    """A whole run of `pipeline bench`."""

    #: When, what for a machine, and the target.
    about: dict[str, str]
    throughput: Throughput | None = None
    encoder: dict[str, float] = {}
    held: Held | None = None
    baselines: list[Baseline] = []
    #: Throughput by encoders.
    scaling: list[Throughput] = []
    #: Lines a second that a bare loop of ready-made bodies writes to the same database, and ours as a part of it.
    bare_lines_per_second: int = 0
    ratio_to_bare_loop: float = 0.0

    def to_json(self) -> dict[str, object]:
        """One flat object: the main figures by their names, the rest in objects."""
        import msgspec

        out: dict[str, object] = {}
        if self.throughput is not None:
            out |= msgspec.to_builtins(self.throughput)
        out |= self.encoder
        if self.held is not None:
            out["latency_ms"] = self.held.latency_ms
            out["held"] = msgspec.to_builtins(self.held)
        if self.baselines:
            out["baselines"] = msgspec.to_builtins(self.baselines)
            out["ratios"] = ratios(self)
        if self.scaling:
            out["scaling"] = msgspec.to_builtins(self.scaling)
        if self.ratio_to_bare_loop:
            out["bare_lines_per_second"] = self.bare_lines_per_second
            out["ratio_to_bare_loop"] = self.ratio_to_bare_loop
        return {"about": self.about, **out}


def ratios(figures: Figures) -> dict[str, dict[str, float]]:
    """Of each baseline: how many times its messages a second we have, and how many times our CPU it takes."""
    ours = figures.throughput
    if ours is None:
        return {}
    return {baseline.name: {
        "messages_per_second": round(ours.messages_per_second / baseline.messages_per_second, 1),
        "cpu_us_per_message": round(baseline.cpu_us_per_message / ours.cpu_us_per_message["total"], 1)}
        for baseline in figures.baselines}


def next_bottleneck(scaling: list[Throughput]) -> str:
    """Which kind of process limits the rate next when encoders are added, and where; from the CPU costs alone."""
    if not scaling:
        return ""
    cpu = scaling[-1].cpu_us_per_message
    each = {name: cost / (scaling[-1].writers if name == "write" else 1) for name, cost in cpu.items()
            if name not in ("total", "encode") and cost > 0}
    if not each or cpu.get("encode", 0) <= 0:
        return ""
    name, cost = max(each.items(), key=lambda item: item[1])
    return (f"one encoder takes {1e6 / cpu['encode']:,.0f} messages/s of CPU; the next limit is {name} at "
            f"{1e6 / cost:,.0f}/s ({cost:.2f} us a message in each such process), reached with "
            f"{cpu['encode'] / cost:.1f} encoders")
