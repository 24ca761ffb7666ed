"""What `scripts/chaos --hosts` does to hosts and to the links between them, and how each fault is undone."""

import random
import time
from collections.abc import Callable, Iterable

from pipeline.testbed.chaos.faults import Injected
from pipeline.testbed.chaos.hosts import ENCODER, IGGY, INFLUXDB, HostPipeline, Hosts, RemoteEncoder
from pipeline.testbed.hosts.rules import LinkRule, around, cut

#: Longest fault, seconds.
MOST_SECONDS = 12.0
DELAY_SECONDS = 0.2
LOSS = 0.02
#: How wrong a clock may be, seconds.
CLOCK_SECONDS = 600.0


class HostFaults:
    """All kinds of faults between hosts. Each method of `kinds` injects one, or returns None when it can't now."""

    def __init__(self, hosts: Hosts, rng: random.Random) -> None:
        """`rng` decides everything, so that a seed gives the same plan again."""
        self._hosts = hosts
        self._rng = rng
        #: The rules of the faults that are active, by a number each.
        self._active: dict[int, tuple[LinkRule, ...]] = {}
        self._number = 0
        #: Hosts that have vanished.
        self._gone: set[str] = set()
        self._names = [pipeline.host for pipeline in hosts.pipelines]

    def kinds(self) -> dict[str, Callable[[], Injected | None]]:
        """name -> injects it."""
        return {"link cut": self._link_cut, "one-way loss": self._one_way, "delay of 200 ms": self._delay,
                "2 % loss": self._loss, "host vanishes": self._vanish, "split group": self._split,
                "all links cut": self._all_cut, "server cut off": self._server_cut, "wrong clock": self._clock}

    def undo_all(self) -> None:
        """All links work, and all clocks are right."""
        self._active.clear()
        self._apply()
        for clock in self._hosts.clocks.values():
            clock.set(0)

    def _seconds(self, least: float = 1.0) -> float:
        return round(self._rng.uniform(least, MOST_SECONDS), 2)

    def _apply(self) -> None:
        self._hosts.network.set_rules([rule for rules in self._active.values() for rule in rules])

    def _links(self, kind: str, detail: str, rules: Iterable[LinkRule], seconds: float) -> Injected:
        self._number += 1
        number = self._number
        self._active[number] = tuple(rules)
        self._apply()

        def undo() -> None:
            self._active.pop(number, None)
            self._apply()

        return Injected(kind, f"{detail}, for {seconds} s", seconds, undo)

    def _link_cut(self) -> Injected:
        host, server = self._rng.choice(self._names), self._rng.choice([IGGY, INFLUXDB])
        return self._links("link cut", f"{host} and {server}", cut(host, server), self._seconds())

    def _one_way(self) -> Injected:
        ends = [self._rng.choice(self._names), self._rng.choice([IGGY, INFLUXDB])]
        self._rng.shuffle(ends)
        return self._links("one-way loss", f"from {ends[0]} to {ends[1]}",
                           [LinkRule(source=ends[0], destination=ends[1], loss=1.0)], self._seconds())

    def _delay(self) -> Injected:
        host = self._rng.choice([*self._names, IGGY, INFLUXDB, ENCODER])
        return self._links("delay of 200 ms", host, around(host, delay_seconds=DELAY_SECONDS), self._seconds(3.0))

    def _loss(self) -> Injected:
        host = self._rng.choice([*self._names, IGGY, INFLUXDB, ENCODER])
        return self._links("2 % loss", host, around(host, loss=LOSS), self._seconds(3.0))

    def _split(self) -> Injected | None:
        """One part of the group sees Iggy alone, the other InfluxDB alone, and the encoder none of them."""
        if len(self._names) < 2:
            return None
        names = self._rng.sample(self._names, len(self._names))
        one, other = names[:1], names[1:]
        rules = [rule for host in one for rule in cut(host, INFLUXDB)]
        rules += [rule for host in other[:1] for rule in cut(host, IGGY)]
        rules += cut(ENCODER)
        return self._links("split group", f"{one[0]} without InfluxDB, {other[0]} without Iggy", rules,
                           self._seconds(3.0))

    def _all_cut(self) -> Injected:
        return self._links("all links cut", "the switch", [LinkRule(loss=1.0)], self._seconds())

    def _server_cut(self) -> Injected:
        server = self._rng.choice([IGGY, INFLUXDB])
        return self._links("server cut off", server, cut(server), self._seconds())

    def _clock(self) -> Injected:
        host = self._rng.choice(sorted(self._hosts.clocks))
        clock = self._hosts.clocks[host]
        seconds, wrong = self._seconds(3.0), round(self._rng.uniform(-CLOCK_SECONDS, CLOCK_SECONDS))
        clock.set(wrong)
        return Injected("wrong clock", f"{host} by {wrong} s, for {seconds} s", seconds, lambda: clock.set(0))

    def _vanish(self) -> Injected | None:
        """Everything on a host ends at once, and nobody is told; later the host comes back, and its service starts."""
        host = self._rng.choice([*self._names, ENCODER])
        seconds = self._seconds(2.0)
        if host in self._gone:
            return None
        self._gone.add(host)
        runner = self._runner(host)
        runner.wanted = False
        injected = self._links("host vanishes", host, cut(host), seconds)
        self._hosts.network.kill_all(host)
        plug_in = injected.undo
        assert plug_in is not None

        def undo() -> None:
            self._gone.discard(host)
            plug_in()
            runner.start()

        return Injected(injected.kind, injected.detail, seconds, undo)

    def _runner(self, host: str) -> HostPipeline | RemoteEncoder:
        return next((one for one in self._hosts.pipelines if one.host == host), self._hosts.encoder)


class Schedule:
    """Which fault comes when: every kind once in random order, then any; each is undone when its time is over."""

    def __init__(self, kinds: dict[str, Callable[[], Injected | None]], rng: random.Random,
                 pauses: tuple[float, float]) -> None:
        """`pauses` between two faults: the least and the most, seconds."""
        self._kinds = kinds
        self._rng = rng
        self._pauses = pauses
        self._order = list(kinds)
        rng.shuffle(self._order)
        self._due = time.monotonic() + 1.0
        self._undo: list[tuple[float, Injected]] = []
        self.injected: list[tuple[float, Injected]] = []
        self._began = time.monotonic()

    def tick(self) -> Injected | None:
        """Undoes what is over, and injects what is due: that fault."""
        now = time.monotonic()
        self._undo_until(now)
        if now < self._due:
            return None
        if not self._order:
            self._order = [self._rng.choice(list(self._kinds))]
        fault = self._kinds[self._order.pop()]()
        self._due = now + self._rng.uniform(*self._pauses)
        if fault is not None:
            self.injected.append((now - self._began, fault))
            self._undo.append((now + fault.seconds, fault))
        return fault

    def undo_all(self) -> None:
        """Undoes everything at once."""
        self._undo_until(float("inf"))

    def _undo_until(self, now: float) -> None:
        for entry in [entry for entry in self._undo if entry[0] <= now]:
            self._undo.remove(entry)
            if entry[1].undo is not None:
                entry[1].undo()
