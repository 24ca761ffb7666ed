"""What measured costs say of many hosts, and the figures of `scripts/bench scale` as text and plots. Pure."""

from collections.abc import Sequence

from msgspec import Struct

from pipeline.testbed.bench import plots

#: Hosts, encoders of each, and cores of Iggy's node, in the plot of the law.
HOSTS = 4
ENCODERS = (1, 2, 4)
IGGY_CORES = (1, 8)


class Case(Struct, frozen=True):
    """Topics with so many partitions each, read by so many pipelines; more than one are a consumer group."""

    topics: int
    partitions: int
    pipelines: int

    @property
    def partitions_in_all(self) -> int:
        """Of all topics."""
        return self.topics * self.partitions

    def label(self) -> str:
        """What is read, in words."""
        topics = f"{self.topics} topics, " if self.topics > 1 else ""
        each = " each" if self.topics > 1 else ""
        pipelines = f", {self.pipelines} pipelines" if self.pipelines > 1 else ""
        return f"{topics}{self.partitions:,} partition{'s' * (self.partitions > 1)}{each}{pipelines}"

    def short(self) -> str:
        """The same for a plot: topics x partitions, and pipelines."""
        topics = f"{self.topics}x" if self.topics > 1 else ""
        return f"{topics}{self.partitions}{f' / {self.pipelines}' if self.pipelines > 1 else ''}"


class Scale(Struct, frozen=True, kw_only=True):
    """One case, measured. CPU is by kind of process and in "total", of all pipelines together."""

    case: Case
    messages: int
    #: From the first start until the last pipeline has its partitions; depends on the machine's load.
    ready_seconds: float
    start_cpu_seconds: float
    #: Percent of a core while nothing is sent.
    idle_cpu_percent: dict[str, float]
    #: Microseconds, with the idle cost of the time that it took.
    cpu_us_per_message: dict[str, float]
    #: Of the Iggy server; 0 if it was not measured.
    iggy_us_per_message: float
    batches: int
    #: Proportional set size of all processes before and after the messages, MiB.
    idle_mib: float
    busy_mib: float
    #: From the death of the last pipeline of a group until the others have its partitions; 0 for one alone.
    takeover_seconds: float = 0.0


def messages_per_second(cpu: dict[str, float], hosts: int, encoders: int, readers: int = 1, writers: int = 1) -> float:
    """What `hosts` pipelines of a group can process, each with a core for each of its processes, by the cost of a
    message: the dearest kind of process decides."""
    counts = {"encode": encoders, "ingest": readers, "write": writers, "coordinator": 1}
    return hosts * min(count * 1e6 / cpu[kind] for kind, count in counts.items() if cpu.get(kind, 0.0) > 0)


def needed(cpu: dict[str, float], encoders: int) -> dict[str, int]:
    """How many readers and writers so many encoders need, so that encoding stays the limit."""
    return {kind: max(1, -(-encoders * round(cpu.get(kind, 0.0) * 1e6) // max(1, round(cpu["encode"] * 1e6))))
            for kind in ("ingest", "write")}


def law_plot(cpu: dict[str, float], iggy_us: float = 0.0) -> str:
    """Messages a second by hosts, for several numbers of encoders on each; `iggy_us`: what a message costs Iggy."""
    curves = {}
    for encoders in ENCODERS:
        more = needed(cpu, encoders)
        curves[f"{encoders} encoder{'s' * (encoders > 1)} each"] = [
            (float(hosts), messages_per_second(cpu, hosts, encoders, more["ingest"], more["write"]) / 1e6)
            for hosts in range(HOSTS + 1)]
    for cores in IGGY_CORES if iggy_us else ():
        curves[f"Iggy, {cores} core{'s' * (cores > 1)}"] = [(0.0, cores / iggy_us), (float(HOSTS), cores / iggy_us)]
    return plots.lines("What hosts of one group can process, by the CPU that a message costs",
                       "hosts (each with a core for each process)", "million messages a second", curves)


def cost_plot(found: Sequence[Scale]) -> str:
    """CPU a message by kind of process, of each case."""
    return plots.bars("CPU a message: partitions (topics x partitions) / pipelines", "microseconds", {
        one.case.short(): {kind: cost for kind, cost in one.cpu_us_per_message.items() if kind != "total"}
        for one in found})


def text(one: Scale) -> str:
    """One line for a terminal."""
    kinds = ", ".join(f"{kind} {cost:.2f}" for kind, cost in one.cpu_us_per_message.items()
                      if kind != "total" and cost >= 0.005)
    iggy = f", Iggy {one.iggy_us_per_message:g}" if one.iggy_us_per_message else ""
    return (f"{one.case.label()}: start {one.start_cpu_seconds:g} s of CPU ({one.ready_seconds:g} s), idle "
            f"{one.idle_cpu_percent['total']:.2f} % of a core, {one.cpu_us_per_message['total']:.2f} us a message "
            f"({kinds}{iggy}), {one.messages / max(1, one.batches):,.0f} messages a batch, {one.idle_mib:g} MiB idle, "
            f"{one.busy_mib:g} after {one.messages:,} messages"
            f"{f', {one.takeover_seconds:g} s until the others read for a dead one' if one.takeover_seconds else ''}")


def law_text(found: Sequence[Scale]) -> str:
    """What the first case says of many hosts."""
    cpu = found[0].cpu_us_per_message
    lines = [f"by the first case: one pipeline with one encoder {messages_per_second(cpu, 1, 1) / 1e6:.2f} million "
             "messages/s"]
    for encoders in ENCODERS[1:]:
        more = needed(cpu, encoders)
        rate = messages_per_second(cpu, 1, encoders, more["ingest"], more["write"])
        lines.append(f"with {encoders} encoders, readers = {more['ingest']}, writers = {more['write']}: "
                     f"{rate / 1e6:.2f} million")
    lines.append("each host more adds as much, up to the partitions, and to what Iggy and InfluxDB serve")
    return "\n".join(lines)
