"""How much data there is, where: spans of arrivals, and amounts per domain."""

import msgspec


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The arrivals at journal positions (after, upto]."""

    after: int
    upto: int


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """How much data: counts of arrivals, documents, bytes and tokens; exact once ingested, else estimates."""

    arrivals: int = 0
    documents: int = 0
    bytes: int = 0
    tokens: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            arrivals=self.arrivals + other.arrivals,
            documents=self.documents + other.documents,
            bytes=self.bytes + other.bytes,
            tokens=self.tokens + other.tokens,
        )

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(
            arrivals=max(0, self.arrivals - other.arrivals),
            documents=max(0, self.documents - other.documents),
            bytes=max(0, self.bytes - other.bytes),
            tokens=max(0, self.tokens - other.tokens),
        )


NOTHING = Amount()
Amounts = dict[str, Amount]
"""Amounts per domain."""


def add(left: Amounts, right: Amounts) -> Amounts:
    """Return the sum per domain."""
    total = dict(left)
    for domain, amount in right.items():
        before = total.get(domain)
        total[domain] = amount if before is None else before + amount
    return total


def subtract(left: Amounts, right: Amounts) -> Amounts:
    """Return the difference per domain; what falls to zero arrivals is left out."""
    total = dict(left)
    for domain, amount in right.items():
        rest = total.pop(domain, NOTHING) - amount
        if rest.arrivals > 0:
            total[domain] = rest
    return total


def tokens(amounts: Amounts) -> int:
    """Return the tokens over all domains."""
    total = 0
    for amount in amounts.values():
        total += amount.tokens
    return total
