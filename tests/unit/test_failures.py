"""Failures of requests: what is logged of them, and the advice."""

import logging

import pytest

from pipeline.backoff import Backoff
from stages.influxdb.answers import Accepted, OperatorNeeded, Retry
from stages.influxdb.concurrency import ConcurrencyLimiter
from stages.influxdb.failures import Activity, answered_by, failure_of, with_advice
from stages.influxdb.http_answer import HttpFault
from stages.influxdb.outage_log import OutageLog


@pytest.mark.parametrize(("activity", "right"), [("write", "write to this bucket"), ("read", "read this bucket")])
def test_an_answer_without_advice_gets_that_of_its_reason(activity: Activity, right: str) -> None:
    found = with_advice(answered_by(OperatorNeeded("unauthorized", "401"), "http://h"), activity)
    assert found.message.startswith("http://h answered 401; ") and right in found.message


def test_its_own_advice_comes_first_and_a_failure_that_may_pass_needs_none() -> None:
    assert with_advice(OperatorNeeded("not_found", "404", "set org"), "read").message == "404; set org"
    assert with_advice(Retry("unavailable", "503"), "write").message == "503"
    assert with_advice(failure_of(HttpFault("proxy", "gone"), "http://h"), "write").message.endswith("remove proxy")


def test_a_failure_is_logged_once_and_the_recovery_once(caplog: pytest.LogCaptureFixture) -> None:
    limiter = ConcurrencyLimiter(4, Backoff(1.0, 2.0, 16.0, lambda: 1.0), 60.0)
    log = OutageLog(logging.getLogger("test"), limiter)
    assert not log.recovered()
    for now in (0.0, 1.0, 2.0):
        limiter.started()
        limiter.answered(Retry("unavailable", "503"), 1, 0.1, now)
        log.failed("writing", Retry("unavailable", "503"), now)
    assert len(caplog.records) == 1 and caplog.records[0].levelname == "WARNING"
    log.failed("writing", OperatorNeeded("unauthorized", "401"), 3.0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    limiter.started()
    limiter.answered(Accepted(), 1, 0.1, 4.0)
    assert log.recovered() and not log.recovered()
