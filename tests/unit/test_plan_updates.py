"""New plans for processes that run: also large ones, and processes that take none."""

import logging
import multiprocessing
import threading
from multiprocessing.connection import Connection

from pipeline.config.plan import Plan
from pipeline.config.schema import Config, MappingConfig
from pipeline.plan_updates import PlanSender, PlanUpdates
from pipeline.testbed.harness.waiting import wait_until


def plan_with(tag: str, size: int = 0) -> Plan:
    """A plan that takes more than `size` bytes on a connection."""
    tags = {"tag": tag, **{f"t{number}": "x" * 100 for number in range(size // 100)}}
    return Plan(Config(mapping=MappingConfig(constant_tags=tags)), "", 1, 1)


def ends() -> tuple[Connection, Connection]:
    return multiprocessing.Pipe()


def test_a_plan_larger_than_a_socket_holds_does_not_wait_and_arrives_whole() -> None:
    ours, theirs = ends()
    sender = PlanSender()
    for tag in ("first", "second", "third"):
        sender.send(ours, plan_with(tag, 2_000_000))
    updates = PlanUpdates(theirs, logging.getLogger("test"))
    found: list[Plan] = []

    def newest() -> bool:
        found.extend(filter(None, [updates.take()]))
        return bool(found) and found[-1].config.mapping.constant_tags["tag"] == "third"

    wait_until(newest, "the newest plan")
    assert len(found[-1].config.mapping.constant_tags) > 19_000
    sender.send(ours, plan_with("small"))
    wait_until(lambda: (plan := updates.take()) is not None and plan.config.mapping.constant_tags == {"tag": "small"},
               "the plan after it")


def test_a_process_that_has_ended_gets_none() -> None:
    ours, theirs = ends()
    sender = PlanSender()
    sender.send(ours, plan_with("unread", 2_000_000))
    theirs.close()
    ours.close()
    wait_until(lambda: all(thread.name != "plans" for thread in threading.enumerate()), "the end of the thread")
