"""Spans of time as they are configured: `90s`, `30m`, `6h`, `2d`, `1w`, ISO 8601 (`PT6H`), or a number of seconds."""

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
WRITTEN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw])")


def parse(text: str) -> timedelta | None:
    """Return the span that a number with a unit means; None for anything else, and for one beyond all bounds."""
    match = WRITTEN.fullmatch(text.strip())
    try:
        return timedelta(**{UNITS[match[2]]: float(match[1])}) if match is not None else None
    except OverflowError:
        return None


def _read(given: object) -> object:
    read = parse(given) if isinstance(given, str) else None
    return given if read is None else read


FORMS: Final = (BeforeValidator(_read), WithJsonSchema({"type": ["string", "number"]}))
LONGEST: Final = timedelta(days=36_525)
"""A century: whatever instant it is added to, the sum still is one."""
Wait = Annotated[timedelta, Field(ge=timedelta(0), le=LONGEST), *FORMS]
"""A span of time, or none."""
Period = Annotated[timedelta, Field(gt=timedelta(0), le=LONGEST), *FORMS]
"""A span of time."""


def told(span: timedelta) -> str:
    """Return a span in words: `7 days`, `1 day, 2:30:00`, `0:05:00`."""
    return str(span - timedelta(microseconds=span.microseconds)).removesuffix(", 0:00:00")
