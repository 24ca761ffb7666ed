"""Where a write goes, and how long a failed one waits."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.backoff import Backoff
from pipeline.logs import Muffler
from pipeline.schema import InfluxConfig
from stages.influxdb.endpoint import write_endpoint


def test_v2_writes_go_to_the_bucket_with_the_token() -> None:
    endpoint = write_endpoint(InfluxConfig(url="http://h:1/", org="my org", bucket="b", token="t", precision="us"))
    assert endpoint.url == "http://h:1/api/v2/write?org=my+org&bucket=b&precision=us"
    assert endpoint.headers["Authorization"] == "Token t"
    assert endpoint.headers["Content-Encoding"] == "gzip"
    assert endpoint.auth is None


def test_v1_writes_spell_nanoseconds_their_own_way_and_may_have_a_user() -> None:
    config = InfluxConfig(version="v1", database="d&b", precision="ns", username="u", password="p", gzip=False)
    endpoint = write_endpoint(config)
    assert endpoint.url == "http://127.0.0.1:8086/write?db=d%26b&precision=n"
    assert endpoint.auth == ("u", "p")
    assert "Content-Encoding" not in endpoint.headers
    assert "Authorization" not in endpoint.headers


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
    muffler = Muffler(10.0)
    assert muffler.allows("a", 0.0)
    assert not muffler.allows("a", 9.0)
    assert muffler.allows("b", 9.0)
    assert muffler.allows("b", 19.0)
