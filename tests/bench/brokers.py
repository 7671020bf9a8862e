"""Brokers for benches: the one that REWARM_TEST_KAFKA names, or nodes that are started here and end with the bench."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.brokers.broker import Broker
from tests.brokers.cluster import Cluster
from tests.brokers.jars import NoBroker, jars


def need(*, given: bool = True) -> None:
    """End the bench with a word where no broker can be had; `given`: whether one that is there already will do."""
    if given and os.environ.get("REWARM_TEST_KAFKA"):
        return
    try:
        jars()
    except NoBroker as error:
        sys.exit(f"This bench needs a broker: {error}")


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """Give one broker; a started one has its data below `folder`. Raises NoBroker where none can be started."""
    address = os.environ.get("REWARM_TEST_KAFKA")
    with Broker(address) if address else Cluster(folder) as found:
        yield found
