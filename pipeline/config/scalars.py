"""Types of single values that several tables of the schema have, with their ranges."""

from typing import Annotated

from msgspec import Meta

NonEmpty = Annotated[str, Meta(min_length=1)]
#: A file or folder: relative to the folder of the configuration's file, or to the working directory where the
#: configuration comes from standard input.
FilePath = Annotated[str, Meta(extra={"path": True})]
PositiveInt = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]
#: Milliseconds, at most an hour.
Milliseconds = Annotated[int, Meta(ge=1, le=3_600_000)]
#: Milliseconds, at most a day.
DayMilliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]
#: Milliseconds, from none to a leap year.
YearMilliseconds = Annotated[int, Meta(ge=0, le=31_622_400_000)]
