"""HTTP through the roles of a process: an address that is taken now may be free later."""

import threading
from collections.abc import Callable
from typing import cast

import pytest

from daemon.core.errors import ConfigurationError
from daemon.service.presence import Presence
from daemon.sources.http.front import Front
from ops.server import AddressTaken


class Served:
    """A front that notes what is asked of it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.announced = threading.Event()

    def announce(self) -> None:
        """Note it."""
        self.told.append("announce")
        self.announced.set()

    def withdraw(self) -> None:
        """Note it."""
        self.told.append("withdraw")

    def stop(self) -> None:
        """Note it."""
        self.told.append("stop")


def maker(served: Served, refusals: list[Exception]) -> Callable[[], Front]:
    """Return what makes a front, after it was refused so often."""

    def make() -> Front:
        if refusals:
            raise refusals.pop(0)
        return cast("Front", served)

    return make


def test_an_address_that_comes_free_is_served() -> None:
    """The command line is told of it then, if it was to be told before."""
    served = Served()
    taken: list[Exception] = [AddressTaken("taken")] * 2
    presence = Presence(maker(served, [*taken, ConfigurationError("no file"), *taken]))
    assert not presence.open_if_free()
    assert presence.trouble == "taken"
    presence.open_when_free()
    presence.announce()
    assert served.announced.wait(10)
    assert presence.trouble == ""
    presence.close()
    presence.close()
    assert served.told == ["announce", "withdraw", "stop", "withdraw", "stop"]


def test_who_leads_from_the_start_is_told_that_the_address_is_taken() -> None:
    """That is an error for whoever starts a daemon; opened once, it stays open."""
    served = Served()
    presence = Presence(maker(served, [AddressTaken("taken")]))
    with pytest.raises(AddressTaken):
        presence.open()
    presence.open()
    presence.open_when_free()
    presence.announce()
    presence.withdraw()
    assert served.told == ["announce", "withdraw"]


def test_a_new_leader_leads_though_nothing_can_be_served_yet() -> None:
    """A token's file that was lost while it stood by does not end it: it says so, and listens once it is there."""
    served = Served()
    presence = Presence(maker(served, [ConfigurationError("no file")]))
    presence.open_when_free()
    presence.announce()
    assert served.announced.wait(10)
    presence.close()
    assert (served.told, presence.trouble) == (["announce", "withdraw", "stop"], "")


def test_without_http_there_is_nothing_to_open() -> None:
    """Nothing is tried, nothing is missed."""
    presence = Presence(None)
    presence.open_when_free()
    presence.announce()
    presence.withdraw()
    presence.close()
    assert presence.trouble == ""
