"""What can be configured of a Kafka source: its cluster, its topics, and what it tells the cluster in return."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from daemon.broker.access import Access, Mechanism, Oauth, Protocol
from daemon.settings.base import Model, Name, kind, unique

TOPIC = r"^[A-Za-z0-9._-]{1,249}$"
TopicName = Annotated[str, Field(pattern=TOPIC)]
PATH = r"^[^.]+(\.[^.]+)*$"
JsonPath = Annotated[str, Field(pattern=PATH, max_length=200)]


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
        if self.url and not self.url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
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
        sasl = self.protocol.startswith("sasl")
        message = ""
        if sasl and self.mechanism is None:
            message = f"protocol {self.protocol} needs a `mechanism`"
        elif self.mechanism is not None and not sasl:
            message = f"mechanism {self.mechanism} needs protocol sasl_ssl (or sasl_plaintext)"
        elif (self.mechanism == "OAUTHBEARER") != (self.oauth is not None):
            message = "`oauth` and mechanism OAUTHBEARER go together"
        elif self.mechanism not in {None, "OAUTHBEARER"} and not (self.username and self.password_file):
            message = f"mechanism {self.mechanism} needs `username` and `password_file`"
        elif (self.certificate_file is None) != (self.key_file is None):
            message = "`certificate_file` and `key_file` go together"
        if message:
            raise ValueError(message)
        return self


class MappingSettings(Model):
    """How a JSON that is no CloudEvent becomes an event: paths such as `meta.path` into it."""

    kind: Annotated[str, AfterValidator(kind)] = "data.arrived"
    data: dict[str, JsonPath] = Field(default={}, description="field of the event → where it is in the JSON")
    constants: dict[str, str | int | float | bool] = Field(default={}, description="field of the event → its value")
    pipeline: JsonPath | None = Field(default=None, description="where the pipeline's name is")
    id: JsonPath | None = Field(default=None, description="where an id is; without one the offset serves")
    time: JsonPath | None = Field(default=None, description="where the event's time (RFC 3339) is")


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
    bootstrap_servers: tuple[str, ...] = Field(min_length=1)
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

    @field_validator("topics", mode="before")
    @classmethod
    def _named(cls, topics: object) -> object:
        if isinstance(topics, list | tuple):
            return tuple({"name": topic} if isinstance(topic, str) else topic for topic in topics)
        return topics

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unique([topic.name for topic in self.topics], "topics")
        if self.low_mark >= self.high_mark:
            message = "low_mark must be below high_mark"
            raise ValueError(message)
        ours = {self.dead_letter_topic, self.transitions.topic if self.transitions else None}
        for topic in self.topics:
            if topic.name in ours:
                message = f"topic {topic.name!r} is one that rewarm itself writes to"
                raise ValueError(message)
        return self

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
