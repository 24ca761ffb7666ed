"""A headless Chromium, driven over the pipe of its DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.testbed.harness.waiting import SOON_SECONDS, wait_until

#: Nothing of it goes to the network but what pages ask for.
_OPTIONS = ("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-extensions",
            "--disable-sync", "--mute-audio", "--hide-scrollbars")
_EXPRESSION_OPTIONS = {"returnByValue": True, "awaitPromise": True}


class Browser:
    """One page. What goes wrong in it is in `errors`."""

    def __init__(self, process: "subprocess.Popen[bytes]", commands: int, answers: int) -> None:
        self.process = process
        self._commands, self._answers = commands, answers
        self._numbers = itertools.count(1)
        self._session = ""
        self._received = b""
        #: Errors on the console, exceptions, and what the content security policy has refused.
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command. Raises AssertionError for an error."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params}
        os.write(self._commands, json.dumps(command | ({"sessionId": self._session} if self._session else {})).encode()
                 + b"\0")
        until = time.monotonic() + SOON_SECONDS
        while (message := self._receive(until)).get("id") != number:
            self._look_at(message)
        assert "error" not in message, f"{method}: {message['error']}"
        found: dict[str, Any] = message["result"]
        return found

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            readable, _, _ = select.select([self._answers], [], [], max(0, until - time.monotonic()))
            assert readable, "Chromium does not answer"
            more = os.read(self._answers, 1_000_000)
            assert more, f"Chromium ended with {self.process.wait(SOON_SECONDS)}"
            self._received += more
        line, _, self._received = self._received.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def _look_at(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert", "warning"):
                self.errors.append(json.dumps(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(json.dumps(params["entry"]))
            case "Page.javascriptDialogOpening":
                self.errors.append(f"a dialog: {params['message']}")

    def open(self, url: str) -> None:
        """Goes to a page, and returns when it has loaded."""
        assert "errorText" not in self.call("Page.navigate", url=url)
        wait_until(lambda: self.value("document.readyState") == "complete", f"{url} to load")

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is, or promises, in the page."""
        found = self.call("Runtime.evaluate", expression=expression, **_EXPRESSION_OPTIONS)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        """The visible text of the first element that a CSS selector finds; "" if there is none."""
        return str(self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a CSS selector finds."""
        found: list[str] = self.value(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.textContent)")
        return found

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """Gives the page another size, CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def screenshot(self, path: Path) -> None:
        """Writes what is seen to a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A Chromium whose files go to `folder`, while the block lasts."""
    command = shutil.which("chromium")
    assert command, "chromium is not installed; scripts/test installs it"
    (commands_in, commands), (answers, answers_out) = os.pipe(), os.pipe()
    # It reads file descriptor 3 and writes to 4.
    shell = f'exec "$@" 3<&{commands_in} 4>&{answers_out}'
    process = subprocess.Popen(["bash", "-c", shell, "chromium", command, *_OPTIONS, f"--user-data-dir={folder}"],
                               pass_fds=(commands_in, answers_out), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(commands_in)
    os.close(answers_out)
    try:
        running = Browser(process, commands, answers)
        yield running
        running._session = ""
        running.call("Browser.close")
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        os.close(commands)
        os.close(answers)
