"""What a traceparent may be, by https://www.w3.org/TR/trace-context/#traceparent-header-field-values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.trace import traceparent

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, GOOD),
        (GOOD.replace("00-4", "cc-4"), GOOD.replace("00-4", "cc-4")),
        (GOOD.replace("00-4", "cc-4") + "-what-comes", GOOD.replace("00-4", "cc-4")),
        (GOOD.replace("00-4", "cc-4") + "x", ""),
        (GOOD.replace("00-4", "ff-4"), ""),
        (GOOD + "-more", ""),
        (GOOD.upper(), ""),
        (GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), ""),
        (GOOD.replace("00f067aa0ba902b7", "0" * 16), ""),
        (GOOD[:-1], ""),
        (f" {GOOD}", ""),
        (GOOD.replace("4b", "\u0664b"), ""),
        ("", ""),
    ],
)
def test_a_traceparent_is_read_or_ignored(text: str, found: str) -> None:
    """Every version's four fields are taken; an unknown version may have more of them, nothing else may."""
    assert traceparent(text) == found


@given(st.text(max_size=80))
def test_any_text_is_read(text: str) -> None:
    """Whatever comes gives one of the specified form, or nothing."""
    found = traceparent(text)
    assert found == "" or (len(found) == len(GOOD) and text.startswith(found))
