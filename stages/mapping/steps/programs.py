"""`jq`, and `do = "jq"`: a program of jq that changes messages."""

import importlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from pipeline.config.steps_schema import JQ_ABOUT
from pipeline.errors import missing_package
from stages.mapping.limits import Limits
from stages.mapping.steps.context import Context, described
from stages.mapping.steps.documents import encoded
from stages.mapping.steps.errors import BadStep, StepFailed
from stages.mapping.steps.paths import Document
from stages.mapping.steps.values import read_json

#: Characters of jq's own error that are shown, at most.
_WORDS: Final = 500


class JqProgram:
    """Runs a program on each message."""

    def __init__(self, program: str, limits: Limits, option: str = "program") -> None:
        """Raises BadStep."""
        try:
            jq: Any = importlib.import_module("jq")
        except ImportError:
            raise BadStep(option, missing_package("jq", "jq")) from None
        self._needs_about = JQ_ABOUT in program
        try:
            jq.compile(program, args={"about": {}})  # by itself, so that an error has its place in it
            # As texts, in which numbers keep their digits.
            about = ". as [$message, $about] | $message | " if self._needs_about else ""
            self._program = jq.compile(f"{about}({program}\n) | tojson")
        except ValueError as error:
            raise BadStep(option, f"jq cannot compile it: {_words(error)}") from None
        self._limits = limits

    def __call__(self, document: Document, context: Context) -> Iterator[tuple[str, Document | StepFailed]]:
        """The objects that the program gives. Raises StepFailed."""
        text = encoded(document).decode()
        if self._needs_about:
            text = f"[{text},{_about(context)}]"
        found: list[Document] = []
        size = 0
        context.cpu.begin_code_in_c()
        try:
            for output in self._program.input_text(text):
                size += len(output)
                self._limits.check_bytes(size)
                self._add(found, read_json(output, self._limits))
                self._limits.check_points(len(found))
        except ValueError as error:
            raise StepFailed(_words(error)) from None
        finally:
            context.cpu.end_code_in_c()
        if len(found) == 1:
            yield "", found[0]
            return
        for number, each in enumerate(found, 1):
            yield f"output {number} of jq: ", each

    def _add(self, found: list[Document], output: Any) -> None:
        """Adds an object, or the objects of an array; null is nothing. Raises StepFailed."""
        for each in output if isinstance(output, list) else [output]:
            if isinstance(each, dict):
                found.append(each)
            elif each is not None:
                raise StepFailed(f"jq gave {described(each)}, not an object")


def _about(context: Context) -> str:
    """What `$about` is, as JSON."""
    about, origin = context.about(), context.origin
    return msgspec.json.encode({
        "stream": context.stream, "topic": context.topic, "partition": origin.partition, "offset": origin.offset,
        "timestamp": about.timestamp, "origin_timestamp": about.origin_timestamp, "headers": about.headers}).decode()


def _words(error: ValueError) -> str:
    words = str(error).removesuffix("jq: 1 compile error").strip().removeprefix("jq: error: ")
    return words[:_WORDS]
