"""The status page in a real browser: what it shows is what the pipeline says, and nothing of it is HTML."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.commands.config import load_config
from pipeline.http.client import request
from pipeline.testbed.harness.waiting import free_port, wait_until
from tests.support.chromium import Browser, browser
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, send

TOKEN = "t0ken-of-the-page"
#: A name that would be a picture with a script, if anything took it for HTML.
STREAM = "<img src=x onerror=alert(1)>"
#: Where the picture for the docs is to be put; nowhere in an everyday run.
PICTURE = os.environ.get("STATUS_PAGE_PICTURE", "")


def wait_for_text(page: Browser, selector: str, text: str) -> None:
    wait_until(lambda: text in page.text(selector), f"{text!r} in {selector}")


def check_values(page: Browser, document: dict[str, Any]) -> None:
    """Whether the page shows what `/status` says, while nothing moves."""
    sink = document["sink"]
    rows = [page.texts(f"#partition-rows tr:nth-child({row + 1}) td") for row in range(len(sink["partitions"]))]
    assert rows == [[one["stream"], one["topic"], str(one["partition"]), str(one["committed"]), str(one["end"]),
                     f"{one['lag']:,}", "0 s", ""] for one in sink["partitions"]]
    assert {name.strip() for name in page.texts(".process b")} == {one["name"] for one in document["processes"]}
    edges = page.texts(".flow .edge .soft")
    for text in (f"{sink['read']:,} messages", f"{sink['written']:,} points written",
                 f"{sink['rejected']:,} message rejected"):
        assert text in edges
    letter = sink["dead_letters"][0]
    shown = page.texts("#letter-rows tr:first-child td")
    assert shown[1] == f"{STREAM}/{TOPIC} partition {letter['partition']} offset {letter['offset']}"
    assert shown[2] == letter["reason"] and letter["detail"] in shown[3] and shown[4] == "Show"
    configured = "\n".join(page.texts("#config pre"))
    assert 'token = "(hidden)"' in configured and TOKEN not in configured and "sandbox-token" not in configured


def check_layout(page: Browser) -> None:
    """Whether nothing is cut off from a phone to a wall, in light and dark, and a screen reader finds its way."""
    for width, height in ((320, 640), (1280, 900), (3840, 2160)):
        page.resize(width, height, width < 600)
        assert page.value("document.documentElement.scrollWidth") <= width
    colours = []
    for scheme in ("dark", "light"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme},
                                                          {"name": "prefers-reduced-motion", "value": "reduce"}])
        colours.append(page.value("getComputedStyle(document.body).backgroundColor"))
    assert len(set(colours)) == 2
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = [(one["role"]["value"], one.get("name", {}).get("value", "")) for one in nodes if not one["ignored"]]
    assert {"banner", "main", "contentinfo", "status"} <= {role for role, _ in roles}
    unnamed = [role for role, name in roles if role in ("button", "link", "image", "region", "list") and not name]
    assert set(unnamed) <= {"list"}
    # All can be reached with the keyboard.
    assert page.value("[...document.querySelectorAll('.scroll, summary, button, a')].every(one => one.tabIndex >= 0)")


def take_picture(page: Browser, send_some: Callable[[int], None], path: Path) -> None:
    """Takes the picture for the docs, after some work."""
    until = time.monotonic() + 45
    first = 10_000
    while time.monotonic() < until:
        send_some(first)
        first += 500
    page.resize(1280, 800)
    time.sleep(2)
    page.screenshot(path)
    shutil.copy(path, PICTURE)


def test_the_page_shows_what_the_pipeline_does(sandbox: SandboxIggy, influxdb: SandboxInflux, tmp_path: Path,
                                               start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic(STREAM, TOPIC, 2)
    port = free_port()
    sink = start_sink(sandbox.address, STREAM, influxdb, http=f'listen = "127.0.0.1:{port}"\ntoken = "{TOKEN}"')
    bad = "<script>alert(1)</script>"
    send(sandbox.address, STREAM, [*(message(n) for n in range(1_000)), bad.encode()], 2)
    with browser(tmp_path / "chromium") as page:
        sink.settles(1_001)
        page.open(f"http://pipeline:{TOKEN}@127.0.0.1:{port}/")
        wait_for_text(page, "#state", "running")
        wait_for_text(page, ".flow", "1,001 messages")
        config = load_config(str(sink.config))
        wait_until(lambda: not any(one["lag"] for one in request(config, "GET", "/status")["sink"]["partitions"]),
                   "all to be committed")
        wait_until(lambda: page.texts("#partition-rows td:nth-child(6)") == ["0", "0"], "no lag")
        check_values(page, request(config, "GET", "/status"))
        check_layout(page)

        page.value("document.querySelector('#letter-rows button').click()")
        wait_until(lambda: page.text("#payload-text") == bad, "the payload")
        page.value("document.querySelector('#payload button').click()")

        influxdb.fail({"status": 401, "body": '{"message": "<b>unauthorized</b>"}'})
        send(sandbox.address, STREAM, [message(n) for n in range(1_000, 1_100)], 2)
        wait_for_text(page, "#state", "paused")
        reason = request(config, "GET", "/status")["readiness"]["reasons"][0]["reason"]
        wait_for_text(page, "#reasons", reason)
        influxdb.fail()
        sink.settles(1_101)
        wait_for_text(page, "#state", "running")
        wait_until(lambda: page.value("document.querySelector('#plots path').getAttribute('d').length > 20"), "a plot")
        assert page.value("document.querySelectorAll('img, script:not([src])').length") == 0
        assert page.errors == []
        if PICTURE:
            take_picture(page, lambda first: send(
                sandbox.address, STREAM, [message(n) for n in range(first, first + 500)], 2), tmp_path / "page.png")
        assert sink.stop() == 0
        wait_for_text(page, "#state", "no answer")
