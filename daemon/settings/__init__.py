"""What can be configured, and what is refused: frozen pydantic models; `daemon.config` reads the file into them."""

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from daemon.core.errors import ConfigurationError
from daemon.cron import cron
from daemon.settings.base import Model, Name, kind, unique
from daemon.settings.kafka import KafkaSettings, check_sources
from daemon.settings.model import DataConfiguration, LlamaSettings, ModelConfiguration
from daemon.settings.roots import AnyRoot, CredentialsSettings, check_roots
from policies import AnyPolicy
from policies.base import BasePolicy, Starting
from policies.custom import Custom
from policies.periods import Period
from stages import STAGES, USUAL

if TYPE_CHECKING:
    from ops.notify.message import Target

PREFIX = "REWARM_"
Scope = Literal["send", "operate", "read"]


def _sqlite(url: str) -> str:
    if not url.startswith("sqlite:///"):
        message = "must begin with sqlite:///"
        raise ValueError(message)
    return url


def _web(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = "must be a web address: http://… or https://…"
        raise ValueError(message)
    if parts.port == 0:  # what lies beyond 65,535 raises by itself
        message = "must not name port 0"
        raise ValueError(message)
    return url


def _stage(name: str) -> str:
    module, colon, attribute = name.partition(":")
    if name not in USUAL and name in STAGES:
        message = f"comes into a run by request alone (rewarm {name}); known stages: {', '.join(USUAL)}"
        raise ValueError(message)
    if name not in USUAL and not (colon and module and attribute.isidentifier()):
        message = f"is no stage; known stages: {', '.join(USUAL)}, or your own as 'package.module:Class'"
        raise ValueError(message)
    return name


class MlflowSettings(Model):
    """Where the recorder writes; without a tracking URI nothing is recorded."""

    tracking_uri: str | None = "sqlite:///var/mlflow.db"


class TlsSettings(Model):
    """The files of a certificate (with its chain) and of its key."""

    certificate: Path
    key: Path


class HttpSettings(Model):
    """Where events are taken, and health, metrics and state served; port 0 takes a free one."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535)
    tls: TlsSettings | None = None

    @property
    def local(self) -> bool:
        """Whether nobody but this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


class TokenSettings(Model):
    """Who may do what over HTTP: whoever sends what the file holds; what they do is recorded under the name."""

    name: Name
    file: Path
    scopes: tuple[Scope, ...] = Field(min_length=1)
    expires: AwareDatetime | None = None


class SpoolSettings(Model):
    """A folder into which events are renamed, one JSON a file or a line."""

    kind: Literal["spool"] = "spool"
    path: Path


SourceSettings = Annotated[SpoolSettings | KafkaSettings, Field(discriminator="kind")]


class ExecutorSettings(Model):
    """How many runs at once, and whether a warm worker starts their stages (0: a fresh process each)."""

    kind: Literal["local"] = "local"
    slots: int = Field(default=1, ge=1, le=64)
    warm_workers: int = Field(default=1, ge=0, le=1)
    threads: int = Field(default=0, ge=0, description="threads of a stage; 0: all cores")
    on_drain: Literal["leave", "checkpoint"] = "leave"
    drain_seconds: float = Field(default=20.0, ge=0, le=3600, description="longest that a drain waits for checkpoints")


class StandbySettings(Model):
    """Whether a second daemon waits to take over, and the silence after which it does."""

    enabled: bool = False
    lease: float = Field(default=15.0, ge=0.2, le=3600, description="seconds without a sign of life of the leader")


class NotifySettings(Model):
    """A web address that is told of what happens, signed with the secret in the file."""

    url: Annotated[str, AfterValidator(_web)]
    on: tuple[Annotated[str, AfterValidator(kind)], ...] = Field(
        default=("model.promoted", "run.failed", "run.held", "input.rejected"), min_length=1
    )
    name: Name = "default"
    secret_file: Path | None = None
    timeout: float = Field(default=10.0, gt=0, le=300, description="seconds for one delivery")

    @property
    def target(self) -> "Target":
        """The same as the follower takes it."""
        from ops.notify.message import Target

        return Target(
            name=self.name, url=self.url, on=frozenset(self.on), secret_file=self.secret_file, timeout=self.timeout
        )


class RetentionSettings(Model):
    """How long files are kept; null keeps them for ever. Nothing that a champion or a rollback needs is touched."""

    checkpoints: Period | None = Field(default=timedelta(days=1), description="of ended runs, between their steps")
    runs: Period | None = Field(default=None, description="folders of ended runs")
    shards: Period | None = Field(default=None, description="tokenised arrivals that nothing needs")
    models: int | None = Field(default=None, ge=0, description="further versions beside champion, previous and base")


def _check(policy: str, expression: str, zone: str) -> None:
    try:
        cron(expression, zone)
    except ConfigurationError as error:
        message = f"policy {policy!r}: {error}".removesuffix(".")
        raise ValueError(message) from error


def _in_shadow(policy: object) -> object:
    """Return what is given for a policy, in shadow unless it says how it is."""
    if isinstance(policy, dict) and policy.get("mode") is None:
        return {**policy, "mode": "shadow"}
    if isinstance(policy, BasePolicy) and policy.mode is None:
        return policy.model_copy(update={"mode": "shadow"})
    return policy


class PipelineConfiguration(Model):
    """One model kept fresh."""

    model: ModelConfiguration = LlamaSettings()
    data: DataConfiguration = DataConfiguration()
    stages: tuple[Annotated[str, AfterValidator(_stage)], ...] = Field(default=USUAL, min_length=1)
    policies: tuple[AnyPolicy, ...] = ()
    mode: Literal["act", "shadow"] = Field(
        default="act", description="shadow: the policies decide and record, and do not act"
    )
    priority: int = 0
    max_domains: int = Field(default=64, ge=1, le=1000)

    @model_validator(mode="before")
    @classmethod
    def _usual_mode(cls, given: object) -> object:
        """Let policies that say nothing themselves be in shadow where the pipeline is: it is not asked later."""
        if (
            not isinstance(given, dict)
            or given.get("mode") != "shadow"
            or not isinstance(given.get("policies"), list | tuple)
        ):
            return given
        return {**given, "policies": [_in_shadow(policy) for policy in given["policies"]]}

    @field_validator("model", mode="before")
    @classmethod
    def _usual_kind(cls, given: object) -> object:
        return {"kind": "llama", **given} if isinstance(given, dict) and "kind" not in given else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unique([policy.label for policy in self.policies], "policies")
        for policy in self.policies:
            if policy.ticks is not None:
                _check(policy.label, policy.ticks.cron, policy.ticks.timezone)
            starting = policy.inner if isinstance(policy, Custom) else policy
            if self.model.kind == "module" and isinstance(starting, Starting) and starting.training.context != 1:
                message = (
                    f"policy {policy.label!r}: a model of kind module is trained on whole examples, "
                    "which count as one token each: set `training: {context: 1}`"
                )
                raise ValueError(message)
        if len(set(self.stages)) != len(self.stages):
            message = "a stage is named twice"
            raise ValueError(message)
        needs = {"probe": ("ingest",), "train": ("ingest",), "evaluate": ("train",), "promote": ("evaluate",)}
        for stage, earlier in needs.items():
            for other in earlier:
                if stage in self.stages and other not in self.stages[: self.stages.index(stage)]:
                    message = f"stage {stage!r} needs {other!r} before it"
                    raise ValueError(message)
        return self


class Settings(BaseSettings):
    """Everything; relative paths count from the configuration file's folder."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )
    journal: Annotated[str, AfterValidator(_sqlite)] = "sqlite:///var/journal.db"
    mlflow: MlflowSettings = MlflowSettings()
    state: Path = Path("var")
    http: HttpSettings = HttpSettings()
    tokens: tuple[TokenSettings, ...] = ()
    roots: tuple[AnyRoot, ...] = (Path("var/inbox"),)
    credentials: tuple[CredentialsSettings, ...] = ()
    sources: tuple[SourceSettings, ...] = (SpoolSettings(path=Path("var/spool")),)
    executor: ExecutorSettings = ExecutorSettings()
    standby: StandbySettings = StandbySettings()
    notify: tuple[NotifySettings, ...] = ()
    retention: RetentionSettings = RetentionSettings()
    pipelines: dict[Name, PipelineConfiguration] = {}

    @model_validator(mode="after")
    def _named(self) -> Self:
        unique([token.name for token in self.tokens], "tokens")
        unique([target.name for target in self.notify], "notify targets")
        check_roots(self.roots, self.credentials)
        check_sources([source for source in self.sources if isinstance(source, KafkaSettings)], self.pipelines)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file; nothing else counts."""
        return env_settings, init_settings
