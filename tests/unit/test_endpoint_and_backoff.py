"""Where a write goes, and how long a failed one waits."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.backoff import Backoff
from pipeline.config.schema import InfluxConfig
from pipeline.logs import RepeatFilter
from stages.influxdb.endpoint import authorization, write_url


def test_v2_writes_go_to_the_bucket() -> None:
    config = InfluxConfig(org="my org", bucket="b", precision="us")
    assert write_url(config, "http://h:1/", "v2") == "http://h:1/api/v2/write?org=my+org&bucket=b&precision=us"
    assert write_url(config, "http://h:1", "v2", "other") == "http://h:1/api/v2/write?org=my+org&bucket=other&precision=us"
    by_id = InfluxConfig(org_id="0123456789abcdef", bucket="b")
    assert write_url(by_id, "http://h", "v2") == "http://h/api/v2/write?orgID=0123456789abcdef&bucket=b&precision=ns"


def test_v1_writes_spell_the_precision_their_own_way() -> None:
    config = InfluxConfig(database="d&b", precision="ns", retention_policy="week", consistency="one")
    assert write_url(config, "http://h", "v1") == "http://h/write?db=d%26b&precision=n&rp=week&consistency=one"


def test_v3_writes_name_the_database_and_long_precisions() -> None:
    config = InfluxConfig(database="d", precision="ms", no_sync=True)
    assert write_url(config, "http://h", "v3") == (
        "http://h/api/v3/write_lp?db=d&precision=millisecond&accept_partial=true&no_sync=true")
    assert authorization("v3", "t") == "Bearer t"
    assert authorization("v2", "t") == "Token t"


@given(st.floats(0.001, 10), st.floats(1, 10), st.floats(0.001, 60), st.integers(0, 2**32))
def test_backoff_stays_below_its_growing_ceiling(initial: float, factor: float, maximum: float, seed: int) -> None:
    backoff = Backoff(initial, factor, maximum, random.Random(seed).random)
    for attempt in range(20):
        assert 0 <= backoff.next() <= min(initial * factor**attempt, maximum) * (1 + 1e-9)


def test_backoff_begins_again_after_a_success() -> None:
    backoff = Backoff(1.0, 2.0, 60.0, lambda: 1.0)
    assert [backoff.next() for _ in range(3)] == [1.0, 2.0, 4.0]
    backoff.reset()
    assert backoff.next() == 1.0


def test_a_repeated_line_is_muffled_until_it_changes_or_time_passes() -> None:
    muffler = RepeatFilter(10.0)
    assert muffler.allows("a", 0.0)
    assert not muffler.allows("a", 9.0)
    assert muffler.allows("b", 9.0)
    assert muffler.allows("b", 19.0)
