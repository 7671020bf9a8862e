"""What can be configured of a Kafka source: every mistake is told with its key, and nothing secret with it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.broker.access import Access, Oauth
from daemon.config import Configuration, load, topics_of
from daemon.core.errors import ConfigurationError

Write = Callable[..., Configuration]
SOURCE = "kind: kafka, bootstrap_servers: ['one:9092', 'two:9092'], topics: [events]"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Load a configuration with Kafka sources, each given as the inside of a flow mapping."""

    def load_sources(*sources: str, rest: str = "") -> Configuration:
        path = tmp_path / "rewarm.yaml"
        path.write_text(f"sources: [{', '.join('{' + source + '}' for source in sources)}]\n{rest}", encoding="utf-8")
        return load(path)

    return load_sources


def with_security(security: str) -> str:
    """Return a source whose connection is secured."""
    return f"{SOURCE}, security: {{{security}}}"


def with_topics(topics: str) -> str:
    """Return a source of some topics."""
    return f"kind: kafka, bootstrap_servers: ['one:9092'], topics: [{topics}]"


def test_a_source_has_defaults(write: Write) -> None:
    """Servers and topics are enough; a topic's name may stand for the topic, and there is no group to join."""
    (kafka,) = write(SOURCE).kafka
    settings = kafka.settings
    assert (settings.name, settings.group_id, settings.operators) == ("kafka", "rewarm", False)
    assert [(topic.name, topic.pipeline, topic.mapping) for topic in settings.topics] == [("events", None, None)]
    assert (settings.dead_letter_topic, settings.transitions) == ("rewarm.dlq", None)
    assert kafka.access == Access(bootstrap_servers=("one:9092", "two:9092"))
    assert write(f"{SOURCE}, dead_letters: false").kafka[0].settings.dead_letter_topic is None


def test_files_count_from_the_configuration(write: Write, tmp_path: Path) -> None:
    """Secrets and certificates are named by paths that count from the file's folder; they are not read here."""
    (kafka,) = write(
        with_security(
            "protocol: sasl_ssl, mechanism: SCRAM-SHA-512, username: rewarm, password_file: secrets/password, "
            "ca_file: /etc/ca.pem, certificate_file: c.pem, key_file: k.pem, key_password_file: k.txt"
        )
    ).kafka
    assert kafka.access == Access(
        bootstrap_servers=("one:9092", "two:9092"),
        protocol="sasl_ssl",
        mechanism="SCRAM-SHA-512",
        username="rewarm",
        password_file=tmp_path / "secrets/password",
        ca_file=Path("/etc/ca.pem"),
        certificate_file=tmp_path / "c.pem",
        key_file=tmp_path / "k.pem",
        key_password_file=tmp_path / "k.txt",
    )


@pytest.mark.parametrize(
    ("oauth", "made"),
    [
        ("token_file: t", Oauth(token_file=Path("t"))),
        (
            "url: 'https://login.example.org/token', client_id: rewarm, secret_file: s, scope: kafka",
            Oauth(url="https://login.example.org/token", client_id="rewarm", secret_file=Path("s"), scope="kafka"),
        ),
        (
            "url: 'http://[::1]:8080/token', client_id: rewarm, secret_file: s",
            Oauth(url="http://[::1]:8080/token", client_id="rewarm", secret_file=Path("s")),
        ),
    ],
)
def test_a_bearer_token_comes_from_a_file_or_an_endpoint(write: Write, tmp_path: Path, oauth: str, made: Oauth) -> None:
    """An endpoint on this machine alone may be asked without TLS."""
    (kafka,) = write(with_security(f"protocol: sasl_ssl, mechanism: OAUTHBEARER, oauth: {{{oauth}}}")).kafka
    found = kafka.access.oauth
    assert found is not None
    assert (found.url, found.client_id, found.scope) == (made.url, made.client_id, made.scope)
    assert found.token_file == (made.token_file and tmp_path / made.token_file)
    assert found.secret_file == (made.secret_file and tmp_path / made.secret_file)


@pytest.mark.parametrize(
    "server", ["broker", "broker:1", "10.0.0.1:65535", "[2001:db8::1]:9092", "kafka_1.internal-zone:9092"]
)
def test_addresses_of_brokers(write: Write, server: str) -> None:
    """Names and addresses, with a port or without."""
    found = write(f"kind: kafka, bootstrap_servers: ['{server}'], topics: [events]").kafka[0].access
    assert found.bootstrap_servers == (server,)


BAD = {
    "nothing": ("kind: kafka", ["sources.0.kafka.bootstrap_servers: Field required", "sources.0.kafka.topics"]),
    "no topic": (with_topics(""), ["sources.0.kafka.topics", "at least 1"]),
    "topic twice": (with_topics("a, b, a"), ["sources.0.kafka", "topic 'a' is named twice"]),
    "topic that cannot be": (with_topics("a b"), ["sources.0.kafka.topics.0.name", "'a b'"]),
    "topic that is no name": (with_topics("7"), ["sources.0.kafka.topics.0", "7"]),
    "unknown key of a topic": (
        with_topics("{name: t, pipelin: p}"),
        ["sources.0.kafka.topics.0.pipelin", "Did you mean 'pipeline'"],
    ),
    "unknown pipeline": (with_topics("{name: t, pipeline: q}"), ["topic 't'", "pipeline 'q'", "known: p"]),
    "unknown key of a mapping": (
        with_topics("{name: t, mapping: {dat: {}}}"),
        ["sources.0.kafka.topics.0.mapping.dat", "Did you mean 'data'", "constants"],
    ),
    "mapping to no event": (with_topics("{name: t, mapping: {kind: run.failed}}"), ["mapping", "'run.failed'"]),
    "mapping to no field": (
        with_topics("{name: t, mapping: {data: {url: a, domain: b}}}"),
        ["mapping", "data.arrived has no url"],
    ),
    "path into nothing": (
        with_topics("{name: t, mapping: {data: {uri: a..b, domain: b}}}"),
        ["mapping.data.uri", "'a..b'"],
    ),
    "servers that are none": (
        "kind: kafka, bootstrap_servers: one, topics: [t]",
        ["sources.0.kafka.bootstrap_servers"],
    ),
    "server that is a url": (
        "kind: kafka, bootstrap_servers: ['kafka://one:9092'], topics: [t]",
        ["sources.0.kafka.bootstrap_servers.0", "must be host:port"],
    ),
    "port too high": ("kind: kafka, bootstrap_servers: ['one:70000'], topics: [t]", ["must be host:port"]),
    "port zero": ("kind: kafka, bootstrap_servers: ['one:0'], topics: [t]", ["must be host:port"]),
    "marks the wrong way round": (f"{SOURCE}, high_mark: 10, low_mark: 10", ["low_mark must be below high_mark"]),
    "no time": (f"{SOURCE}, request_timeout: 0.1", ["sources.0.kafka.request_timeout", "0.5"]),
    "group that names no topic": (f"{SOURCE}, group_id: 'our group'", ["'our group.dlq' can be no topic"]),
    "own dead letters": (
        "kind: kafka, bootstrap_servers: ['one:9092'], group_id: g, topics: [g.dlq]",
        ["'g.dlq' is one that rewarm itself writes to"],
    ),
    "own transitions": (
        f"{with_topics('events')}, transitions: {{topic: events}}",
        ["'events' is one that rewarm itself writes to"],
    ),
    "transitions among the dead letters": (
        f"{SOURCE}, transitions: {{topic: rewarm.dlq}}",
        ["'rewarm.dlq' takes the dead letters"],
    ),
    "unknown kind of transition": (
        f"{SOURCE}, transitions: {{on: [model.prmoted]}}",
        ["sources.0.kafka.transitions.on.0", "is no kind of event"],
    ),
    "two of a name": ((SOURCE, SOURCE), ["two Kafka sources are called 'kafka'"]),
    "two that read the same": (
        (SOURCE, f"{with_topics('more, events')}, name: other"),
        ["'kafka' and 'other' both read topic 'events'"],
    ),
    "two that feed each other": (
        (SOURCE, f"{with_topics('rewarm.dlq')}, name: other, group_id: g"),
        ["topic 'rewarm.dlq' is one that rewarm itself writes to (Kafka sources kafka, other)"],
    ),
    "protocol": (
        with_security("protocol: SASL_SSL"),
        ["sources.0.kafka.security.protocol", "'sasl_ssl'", "'SASL_SSL'"],
    ),
    "no mechanism": (with_security("protocol: sasl_ssl"), ["protocol sasl_ssl needs a `mechanism`"]),
    "mechanism without a protocol": (with_security("mechanism: PLAIN"), ["mechanism PLAIN needs protocol sasl_ssl"]),
    "nobody": (with_security("protocol: sasl_ssl, mechanism: PLAIN"), ["needs `username` and `password_file`"]),
    "somebody for nothing": (with_security("protocol: ssl, username: rewarm"), ["need a `mechanism` that uses them"]),
    "certificates for nothing": (with_security("ca_file: ca.pem"), ["protocol plaintext encrypts nothing"]),
    "certificate without a key": (with_security("protocol: ssl, certificate_file: c"), ["go together"]),
    "key's password without a key": (with_security("protocol: ssl, key_password_file: c"), ["needs a `key_file`"]),
    "bearer without a token": (
        with_security("protocol: sasl_ssl, mechanism: OAUTHBEARER"),
        ["`oauth` and mechanism OAUTHBEARER go together"],
    ),
    "half an endpoint": (
        with_security("protocol: sasl_ssl, mechanism: OAUTHBEARER, oauth: {url: 'https://x'}"),
        ["security.oauth", "needs either `token_file`, or"],
    ),
    "endpoint without TLS": (
        with_security(
            "protocol: sasl_ssl, mechanism: OAUTHBEARER, "
            "oauth: {url: 'http://localhost.example.org', client_id: a, secret_file: s}"
        ),
        ["security.oauth", "url must begin with https://"],
    ),
}


@pytest.mark.parametrize(("sources", "words"), BAD.values(), ids=list(BAD))
def test_mistakes_are_told_with_their_key(write: Write, sources: str | tuple[str, ...], words: list[str]) -> None:
    """Each is one of rewarm's own errors, and says where, what, and what would be right."""
    with pytest.raises(ConfigurationError) as caught:
        write(*([sources] if isinstance(sources, str) else sources), rest="pipelines: {p: {}}")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "kind: kafka, bootstrap_servers: ['ann:s3cret@one:9092'], topics: [t]",
        "kind: kafka, bootstrap_servers: 'ann:s3cret@one:9092', topics: [t]",
        with_security("protocol: sasl_ssl, mechanism: PLAIN, username: ann, password: s3cret"),
        with_security("protocol: sasl_ssl, mechanism: PLAIN, username: ann, password_file: [s3cret]"),
        f"{SOURCE}, security: s3cret",
        with_security("protocol: sasl_ssl, mechanism: OAUTHBEARER, oauth: s3cret"),
        with_security("protocol: sasl_ssl, mechanism: OAUTHBEARER, oauth: {secret: s3cret}"),
        with_security("protocol: sasl_ssl, mechanism: OAUTHBEARER, oauth: {url: 'http://ann:s3cret@host/'}"),
        with_security("protocol: sasl_ssl, mechanism: OAUTHBEARER, oauth: {url: [s3cret], client_id: {a: s3cret}}"),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown(write: Write, source: str) -> None:
    """The key is named, the value is not."""
    with pytest.raises(ConfigurationError) as caught:
        write(source)
    assert "sources.0.kafka." in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_two_clusters_may_have_a_topic_of_one_name(write: Write) -> None:
    """Sources of different clusters are apart, each under its own name."""
    there = "kind: kafka, bootstrap_servers: ['far:9092'], topics: [events, more], name: far"
    assert topics_of(write(SOURCE, there)) == {"kafka": {"events"}, "far": {"events", "more"}}


def test_the_environment_gives_sources_as_a_whole(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """REWARM_SOURCES holds JSON; what is wrong in it is blamed on the variable."""
    source = {"kind": "kafka", "bootstrap_servers": ["env:9092"], "topics": ["events"]}
    monkeypatch.setenv("REWARM_SOURCES", json.dumps([source]))
    assert write(SOURCE).kafka[0].access.bootstrap_servers == ("env:9092",)
    monkeypatch.setenv("REWARM_SOURCES", json.dumps([{**source, "low_mark": -1}]))
    with pytest.raises(ConfigurationError) as caught:
        write(SOURCE)
    assert "the environment (REWARM_SOURCES): sources.0.kafka.low_mark" in str(caught.value)


def test_the_journal_is_not_told_of_sources(write: Write) -> None:
    """Where events come from changes no decision: the configuration's hash stays."""
    assert write(SOURCE).changed().hash == write("kind: spool, path: s").changed().hash
