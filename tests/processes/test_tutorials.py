"""What the tutorials say is done as a reader does it: in terminals, in an empty folder, with the installed command.

How a page is read is in `tests/support/tutorial_pages.py`. Each page has a machine of its own, made of namespaces;
where they can't be made, these tests are left out.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from pipeline.errors import PipelineError
from pipeline.testbed.harness.waiting import SOON_SECONDS, wait_until
from tests.support.machines import Machine, Terminal, why_impossible
from tests.support.tutorial_pages import PAGES, Step, missing_line, steps_of

ROOT = Path(__file__).parents[2]
#: The installed command is first, then what the machine has.
BIN = Path(sys.executable).parent
#: Pause until a command is tried again, seconds: each try costs as much CPU as a command does.
AGAIN_SECONDS = 0.4
REASON = why_impossible()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"machines for tutorials can't be made here: {REASON}")


class Reader:
    """Does what a page says, step by step."""

    def __init__(self, machine: Machine, page: Path, path: str) -> None:
        self._machine = machine
        self._page = page
        self._path = path
        self._terminal: Terminal | None = None
        #: Steps that were left out, with the reason.
        self.left_out: list[str] = []

    def follow(self) -> None:
        """The whole page. Raises AssertionError with the step at which something else happens than it says."""
        for step in steps_of(self._page.read_text()):
            lacking = [program for program in step.needs if shutil.which(program, path=self._path) is None]
            reason = step.left_out or (f"there is no {', '.join(lacking)}" if lacking else "")
            if reason:
                self.left_out.append(f"{self._page.name}, line {step.line}: {reason}")
                continue
            try:
                self._do(step)
            except (PipelineError, AssertionError) as error:
                shown = self._terminal.text[-3_000:] if self._terminal is not None else ""
                raise AssertionError(f"{self._page.name}, line {step.line}: {error}\nThe terminal shows:\n{shown}"
                                     ) from None

    def _do(self, step: Step) -> None:
        if step.file:
            self._machine.save(step.file, "\n".join(step.lines) + "\n")
        if step.is_output:
            assert self._terminal is not None
            self._expect(self._terminal, step.lines)
        if step.file or step.is_output:
            return
        terminal = self._terminal = self._machine.terminal(step.terminal, self._path)
        if step.key:
            terminal.press_ctrl_c()
            self._ends(terminal, step)
            return
        for command in step.commands():
            last = command is step.commands()[-1]
            if step.again_until is not None:
                self._repeat(terminal, command, step)
            else:
                terminal.type(command)
                if last and step.running_when:
                    self._expect(terminal, [step.running_when])
                    assert not terminal.ended(), "the command has ended"
                else:
                    self._ends(terminal, step)

    def _ends(self, terminal: Terminal, step: Step) -> None:
        code = terminal.wait_for_end()
        assert code in step.exit_codes, f"exit code {code}"

    def _repeat(self, terminal: Terminal, command: str, step: Step) -> None:
        until = time.monotonic() + SOON_SECONDS
        while True:
            terminal.type(command)
            if terminal.wait_for_end() in step.exit_codes and (
                    not step.again_until or missing_line([step.again_until], terminal.shown()) is None):
                return
            assert time.monotonic() < until, f"never: {step.again_until or 'success'}"
            time.sleep(AGAIN_SECONDS)

    def _expect(self, terminal: Terminal, lines: list[str]) -> None:
        """Waits for lines that the last command shows."""
        try:
            wait_until(lambda: missing_line(lines, terminal.shown()) is None or terminal.ended(), "what is shown",
                       SOON_SECONDS)
        finally:
            missing = missing_line(lines, terminal.shown())
            assert missing is None, f"not shown: {missing}"


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page: Path, tmp_path: Path) -> None:
    path = [str(BIN), os.environ["PATH"]]
    with Machine(tmp_path) as machine:
        if machine.path_of(BIN) != BIN:
            path.insert(0, machine.command("pipeline", [
                f'PYTHONPATH={machine.path_of(ROOT)} exec {machine.path_of(BIN)}/python -m pipeline "$@"']))
        if helm := os.environ.get("HELM"):
            path.append(str(Path(helm).parent))
        machine.link("deploy", machine.path_of(ROOT) / "deploy")  # of the clone, where a page needs one
        reader = Reader(machine, page, os.pathsep.join(path))
        reader.follow()
        manifests = [document for text in machine.files("*.yaml") for document in yaml.safe_load_all(text)
                     if document]
    for document in manifests:
        if "apiVersion" in document:  # other files are the chart's values
            kubernetes_validate.validate(document, "1.31", strict=True)
    print(*reader.left_out, sep="\n")
