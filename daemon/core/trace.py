"""The trace that a fact belongs to, as its producer told it: https://www.w3.org/TR/trace-context/#traceparent-header."""

import re

FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
FIRST = "00"


def traceparent(text: str) -> str:
    """Return the four fields that every version has, or nothing: a trace that cannot be read is no trace.

    A version after the first may have more fields, which are left out.
    """
    found = FORM.match(text)
    if found is None:
        return ""
    rest = text[found.end() :]
    if rest and (text.startswith(FIRST) or not rest.startswith("-")):
        return ""
    return found[0]
