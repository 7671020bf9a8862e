"""What tests do to any journal."""

from daemon.core.events import Record
from daemon.journal.base import Journal


def append(journal: Journal, records: list[Record]) -> None:
    """Append in a transaction of its own."""
    with journal.transaction() as transaction:
        transaction.append(records)
