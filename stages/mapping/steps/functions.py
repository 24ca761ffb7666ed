"""`transform`, and `do = "function"`: a Python function of the user that changes messages."""

import base64
import importlib
import inspect
import math
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from pipeline.api import Message, Transform
from pipeline.config.schema import MappingConfig
from pipeline.config.steps_schema import FunctionStep
from stages.mapping.notices import Notices
from stages.mapping.records.record import NOT_NUMBERS
from stages.mapping.reject import shown
from stages.mapping.steps.context import Context, described
from stages.mapping.steps.errors import BadStep, StepFailed
from stages.mapping.steps.paths import Document
from stages.mapping.steps.several import ApplyMany

#: A call that lasts longer is named in the log, seconds.
SLOW_SECONDS: Final = 1.0
#: The texts that stand for NaN and the infinities in a document.
_NOT_NUMBERS: Final = {f"\0{token}": float(token) for token in NOT_NUMBERS.values()}


class Number(float):
    """A float that keeps the text which it was written with."""

    __slots__ = ("text",)
    text: str


def load(name: str, folder: str, option: str = "transform") -> Transform:
    """The function that "module:function" names; modules are also looked for in `folder`. Raises BadStep."""
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *function_name.split("."))):
        raise BadStep(option, f'"{name}" is not "module:function"')
    module = _imported(module_name, folder, option)
    function: Any = module
    for part in function_name.split("."):
        function = getattr(function, part, None)
    where = f"{module_name} ({getattr(module, '__file__', None) or 'built in'})"
    if function is None:
        raise BadStep(option, f'there is no "{function_name}" in {where}')
    if not callable(function):
        raise BadStep(option, f'"{function_name}" in {where} is not a function')
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise BadStep(option, f'"{function_name}" in {where} is async or a generator; write a plain function that '
                              "returns a dict, a list of them, or None")
    try:
        inspect.signature(function).bind({}, None)
    except (TypeError, ValueError):
        raise BadStep(option, f'"{function_name}" in {where} does not take two arguments; write '
                              f"def {function_name}(message, about)") from None
    transform: Transform = function
    return transform


def forget_modules(mappings: Iterable[MappingConfig]) -> None:
    """Has the modules of the users' functions, and what they import from `transform_path`, imported anew."""
    names: set[str] = set()
    folders = []
    for mapping in mappings:
        functions = [mapping.transform, *(step.function for step in mapping.steps if isinstance(step, FunctionStep))]
        names.update(name.partition(":")[0] for name in functions if name)
        if mapping.transform_path:
            folders.append(Path(mapping.transform_path).resolve())
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name in names or file and any(Path(file).resolve().is_relative_to(folder) for folder in folders):
            del sys.modules[name]
    importlib.invalidate_caches()


def _imported(name: str, folder: str, option: str) -> ModuleType:
    """Raises BadStep."""
    if folder and not Path(folder).is_dir():
        raise BadStep("transform_path", f'there is no folder "{folder}"')
    if folder and folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except Exception as error:  # the user's module may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            raise BadStep(option, f'there is no module "{name}"' + (
                f" in {folder}" if folder else "; give its folder in transform_path")) from None
        raise BadStep(option, f'"{name}" cannot be imported: {_words(error)}') from None
    file = getattr(module, "__file__", None)
    if folder and not (file and Path(file).resolve().is_relative_to(Path(folder).resolve())):
        at = Path(folder, *name.split("."))
        if at.with_suffix(".py").exists() or at.is_dir():
            raise BadStep(option, f'"{name}" is also the name of another module, {file or "built in"}; rename yours')
    return module


def _words(error: BaseException, file: str = "") -> str:
    """Class and words of an exception, and the line of the user's code that raised it."""
    every = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in every if frame.filename == file]
    frames = own or [frame for frame in every if frame.filename != __file__ and "<frozen" not in frame.filename
                     and "importlib" not in frame.filename]
    line = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError) and error.lineno:
        line = f" ({Path(error.filename or '').name}:{error.lineno})"
        return f"{type(error).__name__}: {error.msg}{line}"
    words = shown(str(error)) if str(error) else ""
    return type(error).__name__ + (f": {words}" if words else "") + line


class UserFunction:
    """Calls the user's function for each message."""

    def __init__(self, name: str, folder: str, timeout: float, notices: Notices, option: str = "transform"
                 ) -> None:
        """A call may last `timeout` seconds. Raises BadStep."""
        self._function = load(name, folder, option)
        self._name = name
        code = getattr(inspect.unwrap(self._function), "__code__", None)
        self._file = code.co_filename if code is not None else ""
        self._timeout = timeout
        self._notices = notices

    def __call__(self, document: Document, context: Context) -> Iterator[tuple[str, Document | StepFailed]]:
        """The messages that the function returns. Raises StepFailed."""
        result = self._result(python_value(document), _message(context), context)
        if isinstance(result, dict):
            yield "", self._document(result)
        elif isinstance(result, list | tuple):
            context.limits.check_points(len(result))
            documents = [self._document(each) for each in result]
            for number, each in enumerate(documents, 1):
                yield f"message {number} of {self._name}: ", each
        elif result is not None:
            raise StepFailed(f"{self._name} returned {type(result).__name__}, not a dict, a list of them, or None")

    def _result(self, message: Any, about: Message, context: Context) -> Any:
        began = time.monotonic()
        context.cpu.begin_call(self._timeout, f"{self._name} takes longer than transform_timeout_ms = "
                                              f"{self._timeout * 1000:.0f}")
        try:
            return self._function(message, about)
        except (Exception, SystemExit) as error:
            raise StepFailed(f"{self._name}: {_words(error, self._file)}") from None
        finally:
            context.cpu.end_call()
            seconds = time.monotonic() - began
            if seconds > SLOW_SECONDS:
                self._notices.add("slow_function", 1, context.origin.place, f"{self._name} took {seconds:.1f} s")

    def _document(self, value: Any) -> Document:
        if not isinstance(value, dict):
            raise StepFailed(f"{self._name} returned {described_type(value)} in a list, not a dict")
        try:
            document: Document = document_value(value)
            return document
        except (TypeError, ValueError, OverflowError) as error:
            raise StepFailed(f"{self._name} returned a value that cannot be represented in JSON: {error}") from None


def described_type(value: Any) -> str:
    """The type of a value, for an error."""
    return "None" if value is None else type(value).__name__


def _message(context: Context) -> Message:
    about = context.about()
    origin = context.origin
    return Message(stream=context.stream, topic=context.topic, partition=origin.partition, offset=origin.offset,
                   timestamp=about.timestamp, origin_timestamp=about.origin_timestamp, headers=about.headers)


def python_value(value: Any) -> Any:
    """A document, or a value of one, as Python's functions expect it: with floats."""
    if isinstance(value, dict):
        return {key: python_value(member) for key, member in value.items()}
    if isinstance(value, list):
        return [python_value(element) for element in value]
    if isinstance(value, Decimal):
        number = Number(value)
        number.text = str(value)
        return number
    return _NOT_NUMBERS.get(value, value) if isinstance(value, str) and value[:1] == "\0" else value


def document_value(value: Any) -> Any:
    """What a function returned, as a document. Raises TypeError, ValueError and OverflowError."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if isinstance(value, dict):
        return {_key(key): document_value(member) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [document_value(element) for element in value]
    if isinstance(value, Number):
        return Decimal(value.text)
    if isinstance(value, float):
        number = float(value)
        if math.isfinite(number):
            return Decimal(repr(number))
        return "\0NaN" if math.isnan(number) else "\0Infinity" if number > 0 else "\0-Infinity"
    if isinstance(value, Decimal) and value.is_finite():
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    return _converted(value)


def _converted(value: Any) -> Any:
    """A value of a library: a number of NumPy, a time, a UUID, a Struct, a dataclass."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return document_value(item())
    if callable(tolist := getattr(value, "tolist", None)):
        return document_value(tolist())
    found = msgspec.to_builtins(value)
    if type(found) is type(value):
        raise TypeError(f"{described(str(value))} is of the type {type(value).__name__}")
    return document_value(found)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, int):
        return str(key).lower()
    raise TypeError(f"the key {described(str(key))} is of the type {type(key).__name__}")


__all__ = ["ApplyMany", "Number", "UserFunction", "document_value", "load", "python_value"]
