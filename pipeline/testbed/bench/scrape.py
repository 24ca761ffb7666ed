"""`scripts/bench scrape`: a backlog while /metrics is asked for, against one while nobody asks, in turns."""

import statistics
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
from msgspec import Struct

from pipeline.testbed.bench.results import Throughput
from pipeline.testbed.bench.throughput import backlog
from pipeline.testbed.harness.waiting import free_port

#: Longest wait for an answer, seconds.
ANSWER_SECONDS = 10.0


class ScrapeTurn(Struct, frozen=True):
    """Two runs over the same number of messages."""

    unasked: Throughput
    asked: Throughput
    #: Answers of /metrics during the second one.
    scrapes: int
    #: CPU of the process http in both, its start included; seconds.
    unasked_http_seconds: float
    asked_http_seconds: float


class Scraper:
    """Asks for /metrics at a steady pace while a block lasts, on a thread of its own."""

    def __init__(self, every_seconds: float) -> None:
        """`every_seconds`: from one answer to the next request; 0: never."""
        self.address = f"127.0.0.1:{free_port()}"
        self.answers = 0
        #: CPU that the process http had used at the end, seconds.
        self.http_seconds = 0.0
        self._every = every_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        if self._every:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        if self._every:
            self._thread.join()

    def finish(self) -> None:
        """Asks no more, but once what the process http has used. To be called while the pipeline runs."""
        self._stop()
        answer = requests.get(f"http://{self.address}/status", timeout=ANSWER_SECONDS)
        self.http_seconds = next(one["cpu_seconds"] for one in answer.json()["processes"] if one["name"] == "http")

    def _run(self) -> None:
        with requests.Session() as session:
            while not self._stopping.wait(self._every):
                try:
                    session.get(f"http://{self.address}/metrics", timeout=ANSWER_SECONDS).raise_for_status()
                    self.answers += 1
                except requests.RequestException:  # it does not listen yet, or not any more
                    continue


def measure(folder: Path, messages: int, turns: int, workers: int, every_seconds: float) -> Iterator[ScrapeTurn]:
    """Runs both kinds so many times; which goes first changes from turn to turn. Raises PipelineError."""
    for turn in range(turns):
        found: dict[bool, Throughput] = {}
        scrapers: dict[bool, Scraper] = {}
        for asked in (False, True) if turn % 2 == 0 else (True, False):
            below = folder / f"{turn}-{asked}"
            below.mkdir()
            scrapers[asked] = Scraper(every_seconds if asked else 0.0)
            found[asked] = backlog(below, messages, workers, writers=2, scraper=scrapers[asked])
        yield ScrapeTurn(found[False], found[True], scrapers[True].answers, scrapers[False].http_seconds,
                         scrapers[True].http_seconds)


def ratios(turns: Sequence[ScrapeTurn]) -> dict[str, float]:
    """Asked by unasked, the middle of all turns: messages a second, and CPU a message of all processes."""
    return {"messages_per_second": round(statistics.median(
                turn.asked.messages_per_second / turn.unasked.messages_per_second for turn in turns), 3),
            "cpu_us_per_message": round(statistics.median(
                turn.asked.cpu_us_per_message["total"] / turn.unasked.cpu_us_per_message["total"] for turn in turns),
                3)}


def text(turn: ScrapeTurn) -> str:
    """One line for a terminal."""
    return (f"nobody asks: {turn.unasked.messages_per_second:,} messages/s, "
            f"{turn.unasked.cpu_us_per_message['total']:.2f} us (http {turn.unasked_http_seconds:.2f} s); "
            f"{turn.scrapes} scrapes: {turn.asked.messages_per_second:,} messages/s, "
            f"{turn.asked.cpu_us_per_message['total']:.2f} us (http {turn.asked_http_seconds:.2f} s)")
