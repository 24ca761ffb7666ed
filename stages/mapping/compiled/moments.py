"""The times of many messages, from their JSON texts to those of lines, all at once."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Raw

from pipeline.config.mapping_schema import EPOCH_FORMATS
from stages.mapping.compiled.columns import joined_of, texts_of
from stages.mapping.compiled.texts import Text, json_of
from stages.mapping.records import timestamps
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.reject import Reject

#: What is remembered of minutes, and of what follows the seconds, at most.
_MAX_MINUTES: Final = 5_000
_MAX_ENDINGS: Final = 5_000
#: Places in a text of RFC 3339 or ISO 8601, with its quote: of the seconds, and of what follows them.
_SECONDS, _ENDING = 18, 20
#: The same in one without quotes, and of the digits of the fraction.
_VALUE_SECONDS, _VALUE_ENDING, _VALUE_DIGITS = 17, 19, 20
_MAX_SECONDS: Final = 5_000
_FRACTION: Final = re.compile(r'(?:\.([0-9]{1,9}))?((?:[^".,0-9][^".,]*)?)"')
_TWO_DIGITS: Final = {f"{number:02d}": number * 1_000_000_000 for number in range(60)}
_MINUTE_NS: Final = 59 * 1_000_000_000
#: A moment whose every part has another number, to find the seconds in what a format makes of it.
_SAMPLE: Final = datetime(2001, 11, 23, 10, 34, 57)


class TimeColumn:
    """Reads the times of one mapping's field. Not thread-safe."""

    def __init__(self, rules: RecordMapper) -> None:
        self._rules = rules
        self._unit_ns = timestamps.UNIT_NS[rules.precision]
        form = rules.times.only_format
        self._epoch = form.removeprefix("epoch_") if form in EPOCH_FORMATS else ""
        not_before = rules.times.not_before
        #: Times before this, in the precision written, need the exact rules; None where all count.
        self._not_before = None if not_before is None else -(-not_before // self._unit_ns)
        self._is_iso = form in ("rfc3339", "iso8601")
        #: Where the two digits of the seconds stand in a text with its quote; 0: nowhere for sure.
        self._seconds_at = 0 if self._epoch or self._is_iso else _seconds_at(form)
        #: By a text without its seconds and fraction: nanoseconds at second 0, or None where that says nothing.
        self._minutes: dict[str, int | None] = {}
        #: By what follows the seconds: nanoseconds of the fraction, and the zone; None where it cannot be parted so.
        self._endings: dict[str, tuple[int, str] | None] = {}
        self._utc_seconds = _UtcSeconds(self._learn_minute)

    def times(self, raws: Sequence[Raw], bad: set[int]) -> list[str]:
        """Times as lines have them; indices of those that need the exact rules are added to `bad`."""
        out = self._read(raws, bad)
        if self._not_before is not None:
            bad.update([index for index, time in enumerate(out) if int(time) < self._not_before])
        return out

    def _read(self, raws: Sequence[Raw], bad: set[int]) -> list[str]:
        if self._epoch:
            found = self._same_length(raws)
            if found is not None:
                return found
        return self._one_by_one(texts_of(raws), bad)

    def _one_by_one(self, texts: Sequence[str], bad: set[int]) -> list[str]:
        read = self._reader()
        out = []
        for index, text in enumerate(texts):
            try:
                if text in ("\0", "null"):
                    raise Reject("missing_timestamp", "")
                out.append(str(read(text)))
            except Reject:
                bad.add(index)
                out.append("0")
        return out

    def of_texts(self, values: Sequence[Text], bad: set[int]) -> list[str]:
        """The same for values that were read as texts."""
        found = self._same_form(values)
        out = self._one_by_one(list(map(json_of, values)), bad) if found is None else found
        if self._not_before is not None:
            bad.update([index for index, time in enumerate(out) if int(time) < self._not_before])
        return out

    def of_strings(self, values: Sequence[str]) -> list[str]:
        """The times of strings without escapes. Raises Reject where one needs the exact rules."""
        return self._same_form(values) or list(map(str, map(self._reader(), [f'"{value}"' for value in values])))

    def _reader(self) -> Callable[[str], int]:
        return self._iso if self._is_iso else self._by_minute if self._seconds_at else self._rules.times.written

    def _same_form(self, values: Sequence[Text]) -> list[str] | None:
        """Times such as 2024-05-06T07:08:09.123Z, all with as many digits; None where one is not, or must not be taken
        apart so.
        """
        if not self._is_iso or not isinstance(values[0], str):
            return None
        width = len(values[0]) + 1
        digits = width - _VALUE_DIGITS - 2
        try:
            joined = "\n".join(values).encode()  # type: ignore[arg-type]
        except (TypeError, UnicodeEncodeError):  # one is not there
            return None
        if len(joined) != width * len(values) - 1 or not 1 <= digits <= 9:
            return None
        places = [_VALUE_SECONDS + 1, *range(_VALUE_DIGITS, _VALUE_DIGITS + digits)]
        if (joined[width - 1::width].strip(b"\n") or joined[_VALUE_ENDING::width].strip(b".")
                or joined[width - 2::width].strip(b"Z") or joined[_VALUE_SECONDS::width].strip(b"012345")
                or not all([joined[place::width].isdigit() for place in places])):
            return None
        seconds, most = self._utc_seconds, len(str(1_000_000_000 // self._unit_ns)) - 1
        end, zeros = _VALUE_DIGITS + min(digits, most), "0" * (most - digits)
        texts: Sequence[str] = values  # type: ignore[assignment]  # they could be joined
        try:
            if zeros:
                return [f"{seconds[text[:_VALUE_ENDING]]}{text[_VALUE_DIGITS:end]}{zeros}" for text in texts]
            return [seconds[text[:_VALUE_ENDING]] + text[_VALUE_DIGITS:end] for text in texts]
        except KeyError:
            return None

    def _same_length(self, raws: Sequence[Raw]) -> list[str] | None:
        """Whole numbers that all have the same number of digits; None where they have not, or one is out of range."""
        joined = joined_of(raws)
        digits = joined.find(b"\n") if len(raws) > 1 else len(joined)
        if (len(joined) != (digits + 1) * len(raws) - 1 or joined[digits::digits + 1] != b"\n" * (len(raws) - 1)
                or joined.translate(None, b"0123456789\n")):
            return None
        first = joined[::digits + 1]
        source, target = timestamps.UNIT_NS[self._epoch], self._unit_ns
        if min(first) < ord("1") or max(first) > ord("8") or digits > len(str(timestamps.MAX_NS // source)):
            return None
        text = str(joined, "ascii")
        if source >= target:
            zeros = "0" * (len(str(source // target)) - 1)
            return (text.replace("\n", zeros + "\n") + zeros).split("\n") if zeros else text.split("\n")
        cut = len(str(target // source)) - 1
        return [one[:-cut] for one in text.split("\n")] if digits > cut else None

    def _iso(self, text: str) -> int:
        """Date and minute, seconds, fraction, zone: each part is read once. Raises Reject."""
        ending = self._endings.get(text[_ENDING:], ())
        if ending == ():
            ending = self._learn_ending(text[_ENDING:])
        second = _TWO_DIGITS.get(text[_SECONDS:_ENDING])
        if not ending or second is None:
            return self._rules.times.written(text)
        fraction, zone = ending
        before = text[:_SECONDS]
        minute = self._minutes.get(before + zone, -1)
        if minute == -1:
            minute = self._learn_minute(before + zone, before, zone + '"')
        if minute is None:
            return self._rules.times.written(text)
        return (minute + second + fraction) // self._unit_ns

    def _learn_ending(self, ending: str) -> tuple[int, str] | None:
        match = _FRACTION.fullmatch(ending)
        found = (int((match[1] or "").ljust(9, "0")), match[2]) if match is not None else None
        if len(self._endings) >= _MAX_ENDINGS:
            self._endings.clear()
        if len(ending) <= _ENDING:
            self._endings[ending] = found
        return found

    def _by_minute(self, text: str) -> int:
        """A strptime format: its text but for the seconds is read once. Raises Reject."""
        at = self._seconds_at
        second = _TWO_DIGITS.get(text[at:at + 2])
        if second is None:
            return self._rules.times.written(text)
        key = f"{text[:at]}{text[at + 2:]}"
        minute = self._minutes.get(key, -1)
        if minute == -1:
            minute = self._learn_minute(key, text[:at], text[at + 2:])
        if minute is None:
            return self._rules.times.written(text)
        return (minute + second) // self._unit_ns

    def _learn_minute(self, key: str, before: str, after: str) -> int | None:
        """Nanoseconds at second 0; None where the two digits there are no seconds of one minute."""
        read = self._rules.times.ns_of_string
        begin, end = read(f"{before}00{after}"), read(f"{before}59{after}")
        found = begin if begin is not None and end is not None and end - begin == _MINUTE_NS and (
            timestamps.MIN_NS + 2 * _MINUTE_NS < begin < timestamps.MAX_NS - 2 * _MINUTE_NS) else None
        if len(self._minutes) >= _MAX_MINUTES:
            self._minutes.clear()
        if len(key) <= 2 * _ENDING:
            self._minutes[key] = found
        return found


class _UtcSeconds(dict[str, str]):
    """Seconds since 1970 of times in UTC, by what stands before their fractions; without quotes."""

    def __init__(self, learn: Callable[[str, str, str], int | None]) -> None:
        super().__init__()
        self._learn = learn
        self._minutes: dict[str, int | None] = {}

    def __missing__(self, before: str) -> str:
        """Raises KeyError where that is no time, or one before 1970. The two digits of the seconds are such."""
        minute = before[:_VALUE_SECONDS]
        if minute not in self._minutes:
            if len(self._minutes) >= _MAX_MINUTES:
                self._minutes.clear()
            self._minutes[minute] = self._learn(f'"{minute}Z', f'"{minute}', 'Z"')
        begin = self._minutes[minute]
        if begin is None or begin < timestamps.UNIT_NS["s"]:
            raise KeyError(before)
        if len(self) >= _MAX_SECONDS:
            self.clear()
        found = self[before] = str(begin // timestamps.UNIT_NS["s"] + int(before[_VALUE_SECONDS:]))
        return found


def _seconds_at(form: str) -> int:
    """Where a strptime format has the seconds, in a text with its quote; 0 where they may stand in several places."""
    if "%S" not in form or "%f" in form or "%%" in form:
        return 0
    return _SAMPLE.strftime(form).find("57") + 1
