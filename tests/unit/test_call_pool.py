"""Blocking calls run in threads, and each wakes the poller once."""

import threading

import zmq

from pipeline.sockets.call_pool import CallPool


def test_each_call_wakes_the_poller_once_with_its_result() -> None:
    pool: CallPool[int] = CallPool(zmq.Context.instance(), 2, "test-each-call")
    go = threading.Event()

    def call(number: int) -> int:
        go.wait(60)
        return number

    for number in range(5):
        pool.submit(call, number)
    assert not pool.wakeup.poll(10)
    go.set()
    found = []
    for _ in range(5):
        assert pool.wakeup.poll(60_000)
        found.append(pool.take())
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert not pool.wakeup.poll(10)


def test_calls_run_at_the_same_time_up_to_the_number_of_threads() -> None:
    pool: CallPool[bool] = CallPool(zmq.Context.instance(), 2, "test-at-once")
    both = threading.Barrier(2, timeout=60)
    for _ in range(2):
        pool.submit(lambda: both.wait() >= 0)
    for _ in range(2):
        assert pool.wakeup.poll(60_000)
        assert pool.take()
