"""Why an arrival cannot be used: a fact about the input, counted by its reason."""

from typing import Literal

Reason = Literal[
    "vanished",
    "unreadable",
    "empty",
    "truncated",
    "checksum",
    "not_utf8",
    "malformed",
    "outside_roots",
    "no_documents",
    "all_duplicates",
    "too_short",
]


class Unusable(Exception):
    """An arrival cannot be used: a fact about the input, not an error of the stage."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
