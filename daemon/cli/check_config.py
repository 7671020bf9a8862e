"""`rewarm check-config`: what is configured, or every mistake in it."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from daemon.cli.output import NOTHING, count, facts, heading, kept, seconds, short, show, show_json, warn
from daemon.cli.session import configured
from daemon.config import Configuration
from daemon.settings.kafka import KafkaSettings
from daemon.settings.roots import check_credentials
from daemon.sources.http.files import check

if TYPE_CHECKING:
    from daemon.cli.session import Commands

COMMON = frozenset({"kind", "name", "training", "limits"})
"""Fields of a policy that are no threshold."""


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """A configured policy; `configuration` is its own JSON with every default."""

    name: str
    kind: str
    version: int
    configuration: msgspec.Raw


class PipelineView(msgspec.Struct, frozen=True, kw_only=True):
    """A configured pipeline."""

    model: str
    stages: tuple[str, ...]
    priority: int
    policies: tuple[PolicyView, ...]


class KafkaView(msgspec.Struct, frozen=True, kw_only=True):
    """A configured Kafka source; `topics` → the pipeline that their events are about where they do not say it."""

    servers: tuple[str, ...]
    topics: dict[str, str | None]
    mapped: tuple[str, ...]
    protocol: str
    mechanism: str | None
    username: str
    group_id: str
    operators: bool
    dead_letters: str | None
    transitions: str | None
    on: tuple[str, ...]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration with paths made absolute."""

    file: str | None
    hash: str
    journal: str
    tracking_uri: str | None
    state: str
    roots: tuple[str, ...]
    spools: tuple[str, ...]
    kafka: dict[str, KafkaView]
    http: str | None
    tokens: dict[str, tuple[str, ...]]
    standby: float | None
    notify: dict[str, tuple[str, ...]]
    retention: dict[str, str | int | None]
    slots: int
    warm_workers: int
    on_drain: str
    pipelines: dict[str, PipelineView]
    warnings: tuple[str, ...]


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "what is configured, or what is wrong with it"
    parser = commands.add_parser("check-config", parents=[common], help=text, description=f"Show {text}.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show the configuration; a mistake in it is raised as ConfigurationError."""
    configuration = configured(arguments)
    check(configuration)
    check_credentials(configuration.remotes)
    view = describe(configuration)
    for warning in view.warnings:
        warn(warning)
    if arguments.json:
        show_json(view)
        return 0
    show(f"{view.file or 'No file: the defaults'} is valid.", "")
    rows = _places(view)
    show(facts(rows, indent=0, width=max(10, *(len(name) for name, _ in rows))))
    for name, pipeline in view.pipelines.items():
        show("", heading(f"{name}  ({pipeline.model})"))
        rows = [("stages", " → ".join(pipeline.stages))]
        rows += [(policy.name, thresholds(policy)) for policy in pipeline.policies]
        show(facts(rows, width=max(20, *(len(name) for name, _ in rows))))
    if not view.pipelines:
        show("", "No pipeline is configured: the daemon would wait, and do nothing.")
    return 0


def describe(configuration: Configuration) -> View:
    """Return what is configured."""
    settings = configuration.settings
    pipelines = {
        name: PipelineView(
            model=pipeline.model.named,
            stages=pipeline.stages,
            priority=pipeline.priority,
            policies=tuple(
                PolicyView(
                    name=policy.label,
                    kind=policy.kind,
                    version=policy.version,
                    configuration=msgspec.Raw(policy.model_dump_json(by_alias=True).encode()),
                )
                for policy in pipeline.policies
            ),
        )
        for name, pipeline in settings.pipelines.items()
    }
    http = settings.http
    return View(
        file=str(configuration.file) if configuration.file else None,
        hash=configuration.changed().hash,
        journal=str(configuration.journal),
        tracking_uri=configuration.tracking_uri,
        state=str(configuration.state),
        roots=(*map(str, configuration.roots), *(root.url for root in configuration.remotes)),
        spools=tuple(map(str, configuration.spools)),
        kafka={each.settings.name: _kafka(each.settings) for each in configuration.kafka},
        http=f"{'https' if http.tls else 'http'}://{http.host}:{http.port}" if http.enabled else None,
        tokens={token.name: token.scopes for token in configuration.tokens},
        standby=settings.standby.lease if settings.standby.enabled else None,
        notify={target.name: target.on for target in configuration.notify},
        retention=settings.retention.model_dump(mode="json"),
        slots=settings.executor.slots,
        warm_workers=settings.executor.warm_workers,
        on_drain=settings.executor.on_drain,
        pipelines=pipelines,
        warnings=(
            *(warning for each in configuration.kafka for warning in doubts(each.settings)),
            *(
                f"Root {root.url} sends its credentials unencrypted: let it be https://."
                for root in configuration.remotes
                if root.credentials and root.protocol == "http"
            ),
        ),
    )


def _kafka(settings: KafkaSettings) -> KafkaView:
    security, wanted = settings.security, settings.transitions
    return KafkaView(
        servers=settings.bootstrap_servers,
        topics={topic.name: topic.pipeline for topic in settings.topics},
        mapped=tuple(topic.name for topic in settings.topics if topic.mapping is not None),
        protocol=security.protocol,
        mechanism=security.mechanism,
        username=security.username or (security.oauth.client_id if security.oauth else ""),
        group_id=settings.group_id,
        operators=settings.operators,
        dead_letters=settings.dead_letter_topic,
        transitions=wanted.topic if wanted else None,
        on=wanted.on if wanted else (),
    )


def doubts(settings: KafkaSettings) -> Iterator[str]:
    """Yield what is allowed in a Kafka source, and should be meant."""
    security, name = settings.security, f"Kafka source {settings.name!r}"
    if security.mechanism in {"PLAIN", "OAUTHBEARER"} and security.protocol == "sasl_plaintext":
        what = "password" if security.mechanism == "PLAIN" else "token"
        yield f"{name} sends its {what} unencrypted: let `protocol` be sasl_ssl."
    elif security.mechanism is not None and security.protocol == "sasl_plaintext":
        yield f"{name} says who it is, and then sends everything unencrypted: let `protocol` be sasl_ssl."
    if security.protocol.endswith("ssl") and not security.check_hostname:
        yield f"{name} takes any certificate of a trusted authority for the broker's: leave `check_hostname` out."
    if settings.operators and security.mechanism is None and security.certificate_file is None:
        yield f"{name} lets everybody operate who reaches the brokers: `operators` without any authentication."


def thresholds(policy: PolicyView) -> str:
    """Return a policy's own settings in one line, without what all policies have."""
    values = msgspec.json.decode(policy.configuration, type=dict[str, object])
    own = {key: value for key, value in values.items() if key not in COMMON and value is not None}
    kind = "" if policy.kind == policy.name else f"{policy.kind}: "
    return kind + (", ".join(f"{key} {_value(value)}" for key, value in own.items()) or NOTHING)


def _value(value: object) -> str:
    if isinstance(value, dict):
        given = {key: each for key, each in value.items() if each not in (None, False, [], {})}
        return f"({', '.join(f'{key} {_value(each)}' for key, each in given.items())})" if given else "none"
    if isinstance(value, list):
        return "; ".join(map(_value, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _places(view: View) -> list[tuple[str, str]]:
    uri = view.tracking_uri
    if uri is not None and uri.startswith("sqlite:///"):
        uri = f"sqlite:///{short(uri.removeprefix('sqlite:///'))}"
    return [
        ("journal", short(view.journal)),
        ("mlflow", uri or "not recorded"),
        ("state", short(view.state)),
        ("roots", ", ".join(root if "://" in root else short(root) for root in view.roots) or NOTHING),
        ("spool", ", ".join(map(short, view.spools)) or NOTHING),
        *((f"kafka {name}", _source(each)) for name, each in view.kafka.items()),
        ("http", view.http or "not served"),
        ("tokens", ", ".join(f"{name} ({', '.join(scopes)})" for name, scopes in view.tokens.items()) or NOTHING),
        (
            "executor",
            f"{count(view.slots, 'slot')}, {count(view.warm_workers, 'warm worker')}, on_drain {view.on_drain}",
        ),
        ("standby", "none" if view.standby is None else f"a second daemon waits; lease {seconds(view.standby)}"),
        *((f"notify {name}", ", ".join(kinds)) for name, kinds in view.notify.items()),
        ("retention", kept(view.retention)),
    ]


def _source(each: KafkaView) -> str:
    """Return a Kafka source in one line."""
    topics = [
        f"{topic}{' (mapped)' if topic in each.mapped else ''}{f' → {pipeline}' if pipeline else ''}"
        for topic, pipeline in each.topics.items()
    ]
    secured = f"{each.protocol}{f', {each.mechanism}' if each.mechanism else ''}"
    parts = [
        f"{', '.join(topics)} at {', '.join(each.servers)}",
        f"{secured} as {each.username}" if each.username else secured,
        f"group {each.group_id}",
        f"dead letters to {each.dead_letters}" if each.dead_letters else "no topic of dead letters",
        *([f"tells {each.transitions} of {', '.join(each.on)}"] if each.transitions else []),
        *(["whoever writes to it may operate"] if each.operators else []),
    ]
    return "; ".join(parts)
