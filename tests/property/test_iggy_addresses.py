"""Which of several servers is tried next."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.iggy.addresses import LONGEST_REST_SECONDS, Addresses

SERVERS = ("a:1", "b:1", "c:1")
STEPS = st.lists(st.tuples(st.sampled_from(SERVERS), st.booleans(), st.floats(0, 100)), max_size=30)


@given(STEPS)
def test_there_is_always_a_server_to_try(steps: list[tuple[str, bool, float]]) -> None:
    addresses, now = Addresses(SERVERS), 0.0
    failed: dict[str, float] = {}
    for server, reached, passed in steps:
        now += passed
        if reached:
            addresses.reached(server)
            failed.pop(server, None)
        else:
            addresses.failed(server, now)
            failed[server] = now
        found = addresses.candidates(now)
        assert found and len(set(found)) == len(found)
        if set(failed) < set(SERVERS):  # a server that has not failed does not wait for one that has
            assert set(SERVERS) - set(failed) <= set(found)
        if reached:
            assert found[0] == server
    assert set(addresses.candidates(now + LONGEST_REST_SECONDS)) == set(SERVERS)


def test_a_dead_server_is_left_alone_for_longer_each_time() -> None:
    addresses, now, rests = Addresses(SERVERS), 0.0, []
    for _ in range(9):
        addresses.failed("a:1", now)
        assert addresses.candidates(now) == ["b:1", "c:1"]
        began = now
        while "a:1" not in addresses.candidates(now):
            now += 0.5
        rests.append(now - began)
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_single_server_is_tried_however_often_it_failed() -> None:
    addresses = Addresses(("a:1",))
    for _ in range(5):
        addresses.failed("a:1", 0.0)
        assert addresses.candidates(0.0) == ["a:1"]
