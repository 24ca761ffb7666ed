"""Ingest learns that what it has dispatched is settled, in whatever order the reports come to the coordinator."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.plan import Plan
from pipeline.config.schema import Config, InfluxConfig, TopicConfig
from pipeline.coordinator.process import Coordinator
from pipeline.wire import common
from pipeline.wire import sink as wire
from stages.ingest.credit import Credit

PARTITION = wire.Partition(0, 0)
DISPATCHED, SETTLED = "dispatched", "settled"


def grants(folder: Path, report: Callable[[Coordinator], None]) -> list[wire.Credit]:
    """What ingest is granted, from the start on, by a coordinator that gets reports."""
    config = Config(topics=(TopicConfig(stream="s", topic="t"),), influxdb=InfluxConfig(bucket="b", org="o"))
    plan = Plan(config, str(folder), encoders=1, writers=1, run="0123456789abcdef" * 2)
    received: list[wire.Credit] = []

    async def scenario() -> None:
        coordinator = Coordinator(plan, logging.getLogger("test"))
        sent: list[tuple[str, object]] = []
        coordinator.deliveries._send = lambda name, message: sent.append((name, message))
        for number, name in enumerate(plan.stages(), 1):
            coordinator.handle(name, common.Heartbeat(name, number))
        start = wire.Started(coordinator.ledger.epoch, [wire.PartitionStart(PARTITION, 0, -1, 0)])
        coordinator.handle("ingest", start)
        report(coordinator)
        received.extend(message for _, message in sent if isinstance(message, wire.Credit))
        coordinator.router.close()

    asyncio.run(scenario())
    return received


@pytest.mark.parametrize("order", [(DISPATCHED, SETTLED), (SETTLED, DISPATCHED)])
def test_nothing_seems_in_flight_once_all_is_settled(tmp_path: Path, order: tuple[str, ...]) -> None:
    credit = Credit(Config().pipeline.window_messages)

    def report(coordinator: Coordinator) -> None:
        range_ = wire.Range(coordinator.ledger.epoch, PARTITION, 0, 9, 10, 100, 0, 0)
        credit.spend(range_)
        for what in order:  # each in a round of its own
            if what == DISPATCHED:
                coordinator.handle("ingest", wire.Dispatched(range_, 1))
            else:
                coordinator.handle("write-0", wire.Settled(range_, 10, 50, []))
            coordinator.deliveries.grant_due()

    for granted in grants(tmp_path, report):
        credit.grant(granted)
    assert credit.nothing_in_flight
