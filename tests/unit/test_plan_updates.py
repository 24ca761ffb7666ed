"""New plans for a process that runs."""

import logging
import multiprocessing

from pipeline.config.plan import Plan
from pipeline.config.schema import Config
from pipeline.plan_updates import PlanSender, PlanUpdates
from pipeline.testbed.harness.waiting import wait_until


def test_the_newest_plan_is_taken_once_and_none_is_lost() -> None:
    ours, theirs = multiprocessing.Pipe()
    updates, sender = PlanUpdates(theirs, logging.getLogger("test")), PlanSender()
    assert updates.take() is None
    taken: list[int] = []

    def newest_is(number: int) -> bool:
        plan = updates.take()
        taken.extend([plan.reload] if plan is not None else [])
        return bool(taken) and taken[-1] == number

    for number in range(1, 200):
        sender.send(ours, Plan(Config(), "/tmp", 1, 1, reload=number))
    wait_until(lambda: newest_is(199), "the newest plan")
    assert taken == sorted(set(taken)) and updates.take() is None
    ours.close()
