"""Clients made of our arguments, on a real broker: who gets in, and what is said to who does not."""

import gc
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, SaslAuthenticationFailedError
from msgspec.structs import replace

from daemon.broker.access import Access, Protocol
from daemon.broker.client import arguments
from daemon.core.errors import BrokerError
from tests.brokers.secured import KEY_PASSWORD, PASSWORD, USER

if TYPE_CHECKING:
    from tests.daemon.broker.conftest import Secured

Way = Callable[["Secured"], Access]

WAYS: dict[str, Way] = {
    "plain": lambda it: replace(it.scram, mechanism="PLAIN"),
    "scram-256": lambda it: replace(it.scram, mechanism="SCRAM-SHA-256"),
    "scram-512": lambda it: it.scram,
    "unchecked name": lambda it: replace(it.scram, bootstrap_servers=(ip(it.scram),), check_hostname=False),
    "mutual TLS": lambda it: it.mutual,
    "plain without TLS": lambda it: it.open,
}
DEAD_ENDS: dict[str, tuple[Way, str]] = {
    "plain, wrong password": (
        lambda it: replace(it.scram, mechanism="PLAIN", password_file=it.folder / "wrong"),
        "it refused the user alice or the password in .*/wrong, for PLAIN",
    ),
    "scram-256, wrong password": (
        lambda it: replace(it.scram, mechanism="SCRAM-SHA-256", password_file=it.folder / "wrong"),
        "it refused the user alice or the password in .*/wrong, for SCRAM-SHA-256",
    ),
    "plain without TLS, wrong password": (
        lambda it: replace(it.open, password_file=it.folder / "wrong"),
        "it refused the user alice or the password in .*/wrong, for PLAIN",
    ),
    "another mechanism": (
        lambda it: replace(it.open, mechanism="SCRAM-SHA-256"),
        "it does not take the mechanism SCRAM-SHA-256 at this port",
    ),
    "scram-512, nobody": (lambda it: replace(it.scram, username="bob"), "it refused the user bob"),
    "no authority": (lambda it: replace(it.scram, ca_file=None), r"the system's .* \(no ca_file is set\)"),
    "wrong authority": (
        lambda it: replace(it.scram, ca_file=it.folder / "stranger.pem"),
        r"its certificate was not issued by .*/stranger.pem \(ca_file\)",
    ),
    "wrong name": (
        lambda it: replace(it.scram, bootstrap_servers=(ip(it.scram),)),
        "its certificate is for another name .*127.0.0.1.* bootstrap_servers",
    ),
    "no certificate": (
        lambda it: replace(it.mutual, certificate_file=None, key_file=None, key_password_file=None),
        "it refused us without a certificate .* certificate_file and key_file",
    ),
    "certificate of a stranger": (
        lambda it: replace(
            it.mutual,
            certificate_file=it.folder / "intruder.pem",
            key_file=it.folder / "intruder.key",
            key_password_file=None,
        ),
        "it refused our certificate .*/intruder.pem",
    ),
    "no TLS": (lambda it: replace(it.plain, bootstrap_servers=it.scram.bootstrap_servers), "for protocol plaintext"),
    "no SASL": (lambda it: replace(it.mutual, bootstrap_servers=it.scram.bootstrap_servers), "for protocol ssl"),
    "TLS, where there is none": (
        lambda it: replace(it.scram, bootstrap_servers=it.plain.bootstrap_servers),
        "for protocol sasl_ssl",
    ),
    "SASL, where there is none": (
        lambda it: replace(it.scram, protocol="sasl_plaintext", bootstrap_servers=it.plain.bootstrap_servers),
        "it wants no SASL at this port",
    ),
    "nobody there": (lambda it: Access(bootstrap_servers=("127.0.0.1:1",)), "the connection is refused"),
    "no such name": (lambda it: Access(bootstrap_servers=("nowhere.invalid:9092",)), "its name is not known here"),
}


def ip(access: Access) -> str:
    """Return the address by number."""
    return access.bootstrap_servers[0].replace("localhost", "127.0.0.1")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_whoever_is_known_gets_in(secured: "Secured", way: Way) -> None:
    """Each mechanism, and a certificate with a locked key, opens the broker."""
    admin = KafkaAdminClient(**arguments(way(secured)))
    assert admin.describe_cluster()["brokers"]
    admin.close()


def test_records_go_through_scram_and_tls(secured: "Secured") -> None:
    """A producer and a consumer that prove who they are pass records on."""
    topic = secured.cluster.topic()
    secured.cluster.allow(topic, USER, "WRITE", "READ")
    with KafkaProducer(**arguments(secured.scram)) as producer:
        producer.send(topic, b"through").get(timeout=10)
    consumer = KafkaConsumer(**arguments(secured.scram), auto_offset_reset="earliest", metrics_enabled=False)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        records = [record.value for found in consumer.poll(timeout_ms=10_000).values() for record in found]
    finally:
        consumer.close()
    assert records == [b"through"]


@pytest.mark.parametrize(("way", "words"), DEAD_ENDS.values(), ids=DEAD_ENDS)
def test_a_dead_end_is_told_in_plain_words(secured: "Secured", way: Way, words: str) -> None:
    """Whatever keeps us out is said within two seconds, with what to do and without a secret; nothing stays behind."""
    access = way(secured)
    before = set(threading.enumerate())
    begun = time.monotonic()
    with pytest.raises(BrokerError, match=words) as caught:
        KafkaAdminClient(**arguments(access))
    assert time.monotonic() - begun < 2.0
    assert access.bootstrap_servers[0] in str(caught.value)
    assert not any(secret in str(caught.value) for secret in (PASSWORD, KEY_PASSWORD, "not-the-password"))
    assert set(threading.enumerate()) <= before


def test_a_name_may_have_the_signs_that_scram_uses_itself(secured: "Secured") -> None:
    """A user called `a=b,c` gets in: what RFC 5802 wants written in another way is."""
    secured.cluster.add_user("a=b,c")
    admin = patiently(replace(secured.scram, username="a=b,c", mechanism="SCRAM-SHA-256"))
    assert admin.describe_cluster()["brokers"]
    admin.close()


def test_each_address_is_tried(secured: "Secured") -> None:
    """One that answers is found among many that do not, at once."""
    addresses = tuple(f"127.0.0.1:{port}" for port in range(1, 10))
    begun = time.monotonic()
    admin = KafkaAdminClient(
        **arguments(replace(secured.plain, bootstrap_servers=(*addresses, secured.cluster.address)))
    )
    assert time.monotonic() - begun < 1.5
    admin.close()


def test_who_is_refused_later_does_not_knock_without_a_pause(secured: "Secured") -> None:
    """A user that is taken away is tried again with growing pauses, and gets in again when it is back."""
    secured.cluster.add_user("carol")
    admin = patiently(replace(secured.scram, username="carol", mechanism="SCRAM-SHA-256"))
    try:
        (node,) = (broker["broker_id"] for broker in admin.describe_cluster()["brokers"])
        secured.cluster.remove_user("carol")
        refused = 0
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            try:
                admin.describe_cluster()
                admin._manager.run(admin._manager.close, node)  # noqa: SLF001 - as when the connection breaks
            except KafkaError as error:
                refused += isinstance(error, SaslAuthenticationFailedError)
                time.sleep(0.01)
        assert 1 <= refused <= 6
    finally:
        admin.close()


def test_attempts_leave_neither_sockets_nor_logs_behind(caplog: pytest.LogCaptureFixture) -> None:
    """A client that could not reach anybody has closed what it opened; the library's own logs do not flood ours."""
    before = sockets()
    gc.disable()  # it would hide what is not closed, by closing it one day
    try:
        with pytest.raises(BrokerError, match="refused"):
            KafkaAdminClient(**arguments(Access(bootstrap_servers=("127.0.0.1:1", "127.0.0.1:2"))))
        assert sockets() == before
    finally:
        gc.enable()
    assert caplog.records == []


@pytest.mark.parametrize("protocol", ["plaintext", "ssl"])
def test_silence_has_an_end(protocol: Protocol) -> None:
    """Who accepts the connection and says nothing is left after the request time-out, TLS or not."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        access = Access(bootstrap_servers=(address,), protocol=protocol, request_timeout=0.5)
        begun = time.monotonic()
        with pytest.raises(BrokerError, match=r"it did not answer within 0\.5 s"):
            KafkaAdminClient(**arguments(access))
        assert 0.4 < time.monotonic() - begun < 1.5


def sockets() -> int:
    """Return how many this process has open."""
    return sum(each.is_socket() for each in Path("/proc/self/fd").iterdir())


def patiently(access: Access) -> KafkaAdminClient:
    """Return a client for a user whom the broker was told of just now."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return KafkaAdminClient(**arguments(access))
        except BrokerError:
            if time.monotonic() > deadline:
                raise
