"""What the bench makes of its measurements."""

import sys
from xml.etree import ElementTree

import click
import msgspec
import pytest

from pipeline.commands.bench import bench
from pipeline.errors import PipelineError
from pipeline.testbed.bench import encoder, flight_vs_http, plots, report, scale_law, scrape
from pipeline.testbed.bench.latency import Latencies
from pipeline.testbed.bench.results import Baseline, Figures, Held, Throughput, next_bottleneck, ratios
from pipeline.testbed.bench.sampler import Sample
from pipeline.testbed.bench.scale_law import Case, Scale
from pipeline.testbed.bench.source_throughput import Reading
from pipeline.testbed.load.runner import LoadResult

COSTS = {"total": 2.0, "coordinator": 0.05, "encode": 1.25, "ingest": 0.5, "write": 0.2}
RUN = Throughput(1_000, 500_000, COSTS, 12.5, 2, 2, 3)
HELD = Held(LoadResult(100, 100.0, 0.01, 1, True), 100.0, {"p50": 12.0, "max": 40.0}, [(0.0, 50, 11.0, 39.0)], 100,
            25.0, {"ingest": [Sample(0.5, 12.0, 20.0)]}, 100)


def figures() -> Figures:
    """A run with everything in it."""
    return Figures(about={"target": "<sandbox>"}, throughput=RUN, held=HELD, encoder={"ratio_to_generic_encoder": 4.0},
                   baselines=[Baseline("loop", 100_000, 8.0, 30.0)], scaling=[RUN], bare_lines_per_second=250_000,
                   ratio_to_bare_loop=0.95)


def test_latencies_are_those_of_the_lines() -> None:
    latencies = Latencies()
    body = b"m,a=b f=1 1000000\nm,a=c f=2 1010000\n" + b"m f=1 1099000\n" * 98
    assert latencies.add(body, 1_100_000) == 100
    assert Latencies(latencies.encoded()).milliseconds() == latencies.milliseconds()
    assert latencies.milliseconds() == {"p50": 1.0, "p90": 1.0, "p99": 90.0, "p99.9": 100.0, "max": 100.0}
    assert latencies.by_second() == [(1, 100, 1.0, 90.0)]


def test_no_latencies_have_no_percentiles() -> None:
    assert Latencies().milliseconds() == {}


@pytest.mark.parametrize(("highest", "expected"), [
    (0, [0, 1]), (10, [0, 2, 4, 6, 8, 10]), (0.9, [0, .2, .4, .6, .8, 1]), (130, [0, 50, 100, 150])])
def test_ticks_are_round_and_reach_the_highest_value(highest: float, expected: list[float]) -> None:
    assert plots.ticks(highest) == pytest.approx(expected)


def test_plots_are_well_formed_whatever_the_names() -> None:
    for drawn in (plots.lines("<a> & b", "x", "y", {"<c>": [(0, 1), (2, 3)], "d": []}), plots.lines("", "", "", {}),
                  plots.bars("t", "y", {"<g>": {"a": 1, "b": 2}, "h": {}}), plots.bars("t", "y", {})):
        ElementTree.fromstring(drawn)


def test_ratios_say_how_many_times_better_ours_is() -> None:
    assert ratios(figures()) == {"loop": {"messages_per_second": 5.0, "cpu_us_per_message": 4.0}}


def test_the_next_limit_is_the_dearest_process_but_the_encoders() -> None:
    assert next_bottleneck([RUN]) == (
        "one encoder takes 800,000 messages/s of CPU; the next limit is ingest at 2,000,000/s (0.50 us a message in "
        "each such process), reached with 2.5 encoders")
    assert next_bottleneck([]) == ""


def test_the_report_has_everything_as_text_json_and_one_page() -> None:
    words, page, flat = report.text(figures()), report.html(figures()), figures().to_json()
    for word in ("500,000", "p50 12", "loop", "0.95", "ingest at 2,000,000/s"):
        assert word in words and word in page
    assert "&lt;sandbox&gt;" in page and page.count("<svg") == 7
    assert "<script" not in page and "src=" not in page and page.count("http") == page.count("http://www.w3.org")
    assert flat["messages_per_second"] == 500_000 and flat["cpu_us_per_message"] == COSTS
    assert flat["bytes_per_point"] == 12.5 and flat["ratio_to_generic_encoder"] == 4.0


def test_check_allows_a_share_of_the_committed_ratio() -> None:
    least = encoder.COMMITTED_RATIO * encoder.LEAST_SHARE
    assert encoder.is_fast_enough(least) and not encoder.is_fast_enough(least * 0.99)
    assert "TOO SLOW" in encoder.verdict(least * 0.99) and "good" in encoder.verdict(least)


def reading(rate: int, query: float) -> Reading:
    """A run whose query process costs so much."""
    return Reading(points=1_000, page_size=100, format="json", points_per_second=rate,
                   cpu_us_per_point={"total": 2 * query, "query": query, "convert": 0.0},
                   servers_cpu_us_per_point={"influxdb": 30.0, "iggy": 1.0},
                   peak_pss_mb={"total": 100.0, "query": 40.0}, startup_cpu_seconds=1.0)


def test_ratios_of_flight_are_those_of_each_turn() -> None:
    compared = flight_vs_http.Compared()
    for http, other in ((1.0, 4.0), (2.0, 2.0), (4.0, 2.0)):
        compared.add("http", reading(1_000, http))
        compared.add("flight", reading(3_000, other))
    found = compared.figures()
    assert found.http["query_cpu_us_per_point"] == flight_vs_http.Spread(2.0, 1.0, 4.0)
    assert found.ratio["query_cpu_us_per_point"] == found.ratio["cpu_us_per_point"] \
        == flight_vs_http.Spread(1.0, 0.5, 4.0)
    assert found.ratio["points_per_second"] == flight_vs_http.Spread(3.0, 3.0, 3.0)
    # What cost nothing can't be compared.
    assert "convert_cpu_us_per_point" in found.flight and "convert_cpu_us_per_point" not in found.ratio
    assert "1 (0.5 - 4)" in flight_vs_http.text(found)


def test_a_comparison_with_flight_needs_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PipelineError, match=r"pip install 'iggy-influxdb-pipeline\[flight\]'"):
        bench.main(["flight"], standalone_mode=False)


def scale(case: Case, encode: float = 1.25) -> Scale:
    """One measured case."""
    return Scale(case=case, messages=1_000, ready_seconds=1.0, start_cpu_seconds=0.7,
                 idle_cpu_percent={"total": 0.5, "ingest": 0.5},
                 cpu_us_per_message={**COSTS, "encode": encode, "dead-letter": 9.0, "other": 9.0},
                 iggy_us_per_message=0.5, batches=2, idle_mib=100.0, busy_mib=120.0)


def test_hosts_add_up_and_the_dearest_process_of_each_decides() -> None:
    assert scale_law.messages_per_second(COSTS, 1, 1) == 800_000
    assert scale_law.messages_per_second(COSTS, 3, 1) == 2_400_000
    # With more encoders ingest is next, then what more readers bring, and at last the coordinator.
    assert scale_law.messages_per_second(COSTS, 1, 8) == 2_000_000
    assert scale_law.messages_per_second(COSTS, 1, 8, readers=2) == 4_000_000
    assert scale_law.messages_per_second(COSTS, 1, 100, readers=100, writers=100) == 20_000_000
    assert scale_law.needed(COSTS, 8) == {"ingest": 4, "write": 2}
    assert scale_law.needed(COSTS, 1) == {"ingest": 1, "write": 1}


def test_cases_of_scale_are_text_and_plots() -> None:
    found = [scale(Case(1, 1, 1)), scale(Case(200, 5, 1)), scale(Case(1, 999, 3))]
    assert [one.case.label() for one in found] == [
        "1 partition", "200 topics, 5 partitions each", "999 partitions, 3 pipelines"]
    assert "500 messages a batch" in scale_law.text(found[0])
    assert "0.80 million messages/s" in scale_law.law_text(found)
    for drawn in (scale_law.law_plot(COSTS), scale_law.law_plot(COSTS, 0.5), scale_law.cost_plot(found)):
        ElementTree.fromstring(drawn)
    assert "Iggy" in scale_law.law_plot(COSTS, 0.5) and "Iggy" not in scale_law.law_plot(COSTS)


@pytest.mark.parametrize("case", ["1", "1,0,1", "1,2,x", "-1,2,3"])
def test_a_case_of_scale_is_three_numbers(case: str) -> None:
    with pytest.raises(click.UsageError, match="TOPICS,PARTITIONS,PIPELINES"):
        bench.main(["scale", "--case", case], standalone_mode=False)


def test_scraped_backlogs_are_compared_turn_by_turn() -> None:
    turns = [scrape.ScrapeTurn(RUN, msgspec.structs.replace(RUN, messages_per_second=rate,
                                                            cpu_us_per_message={"total": total}), 3, 0.1, 0.2)
             for rate, total in ((500_000, 2.0), (400_000, 2.2), (450_000, 2.1))]
    assert scrape.ratios(turns) == {"messages_per_second": 0.9, "cpu_us_per_message": 1.05}
    assert "3 scrapes: 400,000 messages/s, 2.20 us (http 0.20 s)" in scrape.text(turns[1])
