"""Uneven shares of a consumer group: one member alone sees to it, and only when they have been so for a while."""

from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.group_shares import MAX_UNEVEN_SECONDS, GroupShares


def dealt(sizes: list[int]) -> list[list[int]]:
    """Shares of these sizes, of as many partitions."""
    numbers = iter(range(sum(sizes)))
    return [[next(numbers) for _ in range(size)] for size in sizes]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_of_an_uneven_group_one_member_rejoins_and_of_an_even_one_none(sizes: list[int]) -> None:
    shares = dealt(sizes)
    for at in (0.0, 44.0):
        watching = [GroupShares() for _ in shares]
        assert not any(one.should_rejoin(shares, own, 0.0) for one, own in zip(watching, shares, strict=True))
        assert not any(one.should_rejoin(shares, own, at) for one, own in zip(watching, shares, strict=True))
        # Which order a server lists them in makes no difference.
        again = [one.should_rejoin(shares[::-1], own, 46.0) for one, own in zip(watching, shares, strict=True)]
        assert sum(again) == (max(sizes) - min(sizes) >= 2)
        if any(again):
            assert sizes[again.index(True)] == max(sizes)


def test_shares_that_change_are_given_time() -> None:
    shares = GroupShares()
    assert not shares.should_rejoin(dealt([4, 1]), [0], 0.0)
    assert not shares.should_rejoin(dealt([5, 1]), [0], 40.0)
    assert not shares.should_rejoin(dealt([5, 1]), [0], 80.0)
    assert shares.should_rejoin(dealt([5, 1]), [0], 85.0)


def test_what_does_not_help_is_done_more_and_more_seldom() -> None:
    shares, now, times = GroupShares(), 0.0, list[float]()
    while now < 20_000:
        if shares.should_rejoin(dealt([5, 1]), [0], now):
            times.append(now)
        now += 5.0
    pauses = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert times[0] == 45.0 and pauses == sorted(pauses) and pauses[0] == 90.0
    assert max(pauses) <= MAX_UNEVEN_SECONDS + 5.0
    # Even again: the next time begins anew.
    assert not shares.should_rejoin(dealt([3, 3]), [0], now)
    assert not shares.should_rejoin(dealt([5, 1]), [0], now + 1)
    assert shares.should_rejoin(dealt([5, 1]), [0], now + 46)
