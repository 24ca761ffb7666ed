"""Times far from the present are found, and no others, however a batch mixes them."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig, Precision
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.records.plausible import AHEAD_SECONDS, EARLIEST_SECONDS, implausible
from stages.mapping.records.timestamps import UNIT_NS

NOW = 1_700_000_000
seconds = st.one_of(st.integers(-(2**33), 2**33), st.integers(NOW - 5, NOW + 5),
                    st.integers(EARLIEST_SECONDS - 2, EARLIEST_SECONDS + 2),
                    st.integers(NOW + AHEAD_SECONDS - 2, NOW + AHEAD_SECONDS + 2))


@given(st.sampled_from(["ns", "us", "ms", "s"]), st.lists(seconds, max_size=8))
def test_each_implausible_time_of_a_small_batch_is_found(precision: Precision, moments: list[int]) -> None:
    unit = UNIT_NS["s"] // UNIT_NS[precision]
    found = implausible([str(moment * unit) for moment in moments], precision, NOW * 1_000_000)
    odd = [index for index, moment in enumerate(moments)
           if not EARLIEST_SECONDS <= moment <= NOW + AHEAD_SECONDS]
    assert found == ((len(odd), odd[0]) if odd else None)


def test_times_of_iggy_are_not_looked_at_and_those_of_every_way_are() -> None:
    payloads = [b'{"v":%d,"ts":%d}' % (n, 1_700_000_000 + n) for n in range(3_000)]
    for mapping, expected in ((MappingConfig(), []), (MappingConfig(timestamp_from="field", timestamp_field="ts"),
                                                      [("implausible_time", 3_000, "partition 4 offset 7")])):
        encoder = Encoder(mapping, "ms", "s", "t")
        origin = BatchOrigin(partition=4, first=7, timestamps=[1] * 3_000, arrival=NOW * 1_000_000)
        for _ in range(2):
            encoder.encode(payloads, origin)
            notices = encoder.rules.notices.take()
            assert [(notice.kind, notice.count, notice.place) for notice in notices] == expected


def test_times_ahead_are_found_in_a_large_batch() -> None:
    times = [str(1_700_000_000_000 + n) for n in range(10_000)]
    assert implausible(times, "ms", NOW * 1_000_000) is None
    ahead = [str(1_900_000_000_000 + n) if n % 7 == 3 else time for n, time in enumerate(times)]
    assert implausible(ahead, "ms", NOW * 1_000_000) == (len(range(3, 10_000, 7)), 3)
