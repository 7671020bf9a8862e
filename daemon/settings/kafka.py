"""What can be configured of a Kafka source: its cluster, its topics, and what it tells the cluster in return."""

import re
from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, Field, field_validator, model_validator

from daemon.broker.access import Access, Mechanism, Oauth, Protocol
from daemon.core.events import EVENTS
from daemon.settings.base import Model, Name, kind, unique

TOPIC = r"^[A-Za-z0-9._-]{1,249}$"
TopicName = Annotated[str, Field(pattern=TOPIC)]
PATH = r"^[^.]+(\.[^.]+)*$"
JsonPath = Annotated[str, Field(pattern=PATH, max_length=200)]
SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
MOST_PORTS = 65_535


def _server(address: str) -> str:
    """Return an address of a broker; raises ValueError without showing it: who writes a url may have a password in."""
    found = SERVER.fullmatch(address)
    if found is None or not 0 < int(found["port"] or 1) <= MOST_PORTS:
        message = "must be host:port, such as kafka-1.example.org:9092"
        raise ValueError(message)
    return address


class OauthSettings(Model):
    """A bearer token: a file that somebody renews, or a token endpoint that is asked with client credentials."""

    token_file: Path | None = None
    url: str = ""
    client_id: str = ""
    secret_file: Path | None = None
    scope: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        endpoint = bool(self.url and self.client_id and self.secret_file)
        if endpoint == (self.token_file is not None):
            message = "needs either `token_file`, or `url`, `client_id` and `secret_file`"
            raise ValueError(message)
        parts = urlsplit(self.url)
        if self.url and parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
            message = "url must begin with https://"
            raise ValueError(message)
        return self


class SecuritySettings(Model):
    """How the connection is secured and who we are; every secret is in a file."""

    protocol: Protocol = "plaintext"
    mechanism: Mechanism | None = None
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password_file: Path | None = None
    check_hostname: bool = True
    oauth: OauthSettings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sasl, tls = self.protocol.startswith("sasl"), self.protocol.endswith("ssl")
        message = ""
        if not tls and (self.ca_file or self.certificate_file or self.key_file):
            message = f"protocol {self.protocol} encrypts nothing: with certificates it must be ssl or sasl_ssl"
        elif sasl and self.mechanism is None:
            message = f"protocol {self.protocol} needs a `mechanism`"
        elif self.mechanism is not None and not sasl:
            message = f"mechanism {self.mechanism} needs protocol sasl_ssl (or sasl_plaintext)"
        elif (self.mechanism == "OAUTHBEARER") != (self.oauth is not None):
            message = "`oauth` and mechanism OAUTHBEARER go together"
        elif self.mechanism not in {None, "OAUTHBEARER"} and not (self.username and self.password_file):
            message = f"mechanism {self.mechanism} needs `username` and `password_file`"
        elif self.mechanism in {None, "OAUTHBEARER"} and (self.username or self.password_file):
            message = "`username` and `password_file` need a `mechanism` that uses them: PLAIN or SCRAM-SHA-512, say"
        elif (self.certificate_file is None) != (self.key_file is None):
            message = "`certificate_file` and `key_file` go together"
        elif self.key_password_file and not self.key_file:
            message = "`key_password_file` needs a `key_file`"
        if message:
            raise ValueError(message)
        return self


class MappingSettings(Model):
    """How a JSON that is no CloudEvent becomes an event: paths such as `meta.path` into it."""

    kind: str = "data.arrived"
    data: dict[str, JsonPath] = Field(default={}, description="field of the event → where it is in the JSON")
    constants: dict[str, str | int | float | bool] = Field(default={}, description="field of the event → its value")
    pipeline: JsonPath | None = Field(default=None, description="where the pipeline's name is")
    id: JsonPath | None = Field(default=None, description="where an id is; without one the offset serves")
    time: JsonPath | None = Field(default=None, description="where the event's time (RFC 3339) is")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        event = EVENTS.get(self.kind)
        if event is None or event.origin not in {"outside", "operator"}:
            known = ", ".join(sorted(name for name, cls in EVENTS.items() if cls.origin in {"outside", "operator"}))
            message = f"kind {self.kind!r} is told by nobody outside; known: {known}"
            raise ValueError(message)
        fields = {field.encode_name: field.required for field in msgspec.structs.fields(event)}
        named = {*self.data, *self.constants}
        if not named <= fields.keys():
            message = f"{self.kind} has no {', '.join(sorted(named - fields.keys()))}; it has {', '.join(fields)}"
            raise ValueError(message)
        missing = [name for name, required in fields.items() if required and name not in named]
        if missing:
            message = f"{self.kind} needs {', '.join(missing)}: name each in `data` or `constants`"
            raise ValueError(message)
        return self


class TopicSettings(Model):
    """A topic: `pipeline` is who its events are about where they do not say it themselves."""

    name: TopicName
    pipeline: str | None = None
    mapping: MappingSettings | None = None


class TransitionsSettings(Model):
    """A topic that is told of what happens, as CloudEvents."""

    topic: TopicName = "rewarm.transitions"
    on: tuple[Annotated[str, AfterValidator(kind)], ...] = Field(
        default=("model.promoted", "model.rejected", "model.rolled_back", "run.held", "run.failed", "run.succeeded"),
        min_length=1,
    )


class KafkaSettings(Model):
    """Topics of a Kafka cluster; every partition is read from where the journal stands."""

    kind: Literal["kafka"] = "kafka"
    name: Name = "kafka"
    bootstrap_servers: tuple[Annotated[str, AfterValidator(_server)], ...] = Field(min_length=1)
    topics: tuple[TopicSettings, ...] = Field(min_length=1)
    group_id: str = Field(default="rewarm", min_length=1, max_length=200)
    operators: bool = Field(default=False, description="whether whoever can write to the topics may operate")
    security: SecuritySettings = SecuritySettings()
    dead_letters: bool = Field(default=True, description="whether dead letters go to the topic <group_id>.dlq too")
    transitions: TransitionsSettings | None = None
    high_mark: int = Field(default=4000, ge=1, le=1_000_000, description="records in hand from which it pauses")
    low_mark: int = Field(default=1000, ge=0, le=1_000_000, description="records in hand below which it goes on")
    look_every: float = Field(default=5.0, gt=0, le=300, description="seconds between two looks at the cluster")
    watchdog: float = Field(default=60.0, gt=0, le=3600, description="seconds of lag without progress until a rebuild")
    request_timeout: float = Field(default=30.0, ge=0.5, le=600, description="seconds for an answer of a broker")

    @field_validator(
        "topics",
        mode="before",
        json_schema_input_type=Annotated[tuple[TopicName | TopicSettings, ...], Field(min_length=1)],
    )
    @classmethod
    def _named(cls, topics: object) -> object:
        if isinstance(topics, list | tuple):
            return tuple({"name": topic} if isinstance(topic, str) else topic for topic in topics)
        return topics

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [topic.name for topic in self.topics]
        message = ""
        if len(set(names)) < len(names):
            message = f"topic {next(name for name in names if names.count(name) > 1)!r} is named twice"
        elif self.low_mark >= self.high_mark:
            message = "low_mark must be below high_mark"
        elif self.dead_letter_topic is not None and not re.fullmatch(TOPIC, self.dead_letter_topic):
            message = f"{self.dead_letter_topic!r} can be no topic: mend group_id, or set `dead_letters: false`"
        elif self.transitions is not None and self.transitions.topic == self.dead_letter_topic:
            message = f"topic {self.dead_letter_topic!r} takes the dead letters: name another one in `transitions`"
        elif clash := self.written & set(names):
            message = f"topic {min(clash)!r} is one that rewarm itself writes to"
        if message:
            raise ValueError(message)
        return self

    @property
    def written(self) -> frozenset[str]:
        """The topics that rewarm itself writes to."""
        wanted = (self.dead_letter_topic, self.transitions.topic if self.transitions else None)
        return frozenset(topic for topic in wanted if topic is not None)

    @property
    def dead_letter_topic(self) -> str | None:
        """Where dead letters go, if they do."""
        return f"{self.group_id}.dlq" if self.dead_letters else None

    def access(self, base: Path) -> Access:
        """Return how the cluster is reached; paths count from `base`."""
        security = self.security

        def absolute(path: Path | None) -> Path | None:
            return None if path is None else base / path

        oauth = None
        if security.oauth is not None:
            oauth = Oauth(
                token_file=absolute(security.oauth.token_file),
                url=security.oauth.url,
                client_id=security.oauth.client_id,
                secret_file=absolute(security.oauth.secret_file),
                scope=security.oauth.scope,
            )
        return Access(
            bootstrap_servers=self.bootstrap_servers,
            protocol=security.protocol,
            mechanism=security.mechanism,
            username=security.username,
            password_file=absolute(security.password_file),
            ca_file=absolute(security.ca_file),
            certificate_file=absolute(security.certificate_file),
            key_file=absolute(security.key_file),
            key_password_file=absolute(security.key_password_file),
            check_hostname=security.check_hostname,
            oauth=oauth,
            request_timeout=self.request_timeout,
        )


def check_sources(sources: Sequence[KafkaSettings], pipelines: Collection[str]) -> None:
    """Raise ValueError for a pipeline that is none, and for sources that would read each other's topics."""
    unique([source.name for source in sources], "Kafka sources")
    for source in sources:
        for topic in source.topics:
            if topic.pipeline is not None and topic.pipeline not in pipelines:
                known = ", ".join(sorted(pipelines)) or "none"
                message = (
                    f"topic {topic.name!r} of Kafka source {source.name!r} is about pipeline {topic.pipeline!r}, "
                    f"which is none; known: {known}"
                )
                raise ValueError(message)
    for one, other in combinations(sources, 2):
        if not set(one.bootstrap_servers) & set(other.bootstrap_servers):
            continue  # another cluster, as far as can be told from here
        names, others = ({topic.name for topic in each.topics} for each in (one, other))
        if names & others:
            message = f"Kafka sources {one.name!r} and {other.name!r} both read topic {min(names & others)!r}: one can"
            raise ValueError(message)
        if back := (names & other.written) | (others & one.written):
            message = (
                f"topic {min(back)!r} is one that rewarm itself writes to (Kafka sources {one.name}, {other.name})"
            )
            raise ValueError(message)
