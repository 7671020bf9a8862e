"""What Kafka carries, as AsyncAPI 3.0: the clusters, topics and messages of a configuration.

https://www.asyncapi.com/docs/reference/specification/v3.0.0, with the bindings of
https://github.com/asyncapi/bindings/tree/master/kafka.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from daemon.config import Configuration
from daemon.core.errors import ConfigurationError
from daemon.schema import Schema
from daemon.schema.messages import BINDING, CORRELATION, Messages, ref
from daemon.settings.kafka import KafkaSettings, SecuritySettings, TopicSettings
from daemon.sources.cloudevents import STRUCTURED

SASL: Final = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}


def document(release: str, configuration: Configuration) -> Schema:
    """Return the document of the configured Kafka sources; there is no secret in it, and no user's name.

    Raises ConfigurationError where there is none.
    """
    sources = [each.settings for each in configuration.kafka]
    if not sources:
        raise ConfigurationError(
            "No Kafka source is configured, so there is nothing to describe: add "
            "`{kind: kafka, bootstrap_servers: [localhost:9092], topics: [rewarm.events]}` to `sources`."
        )
    messages = Messages(
        tuple(configuration.settings.pipelines),
        given=any(topic.pipeline for source in sources for topic in source.topics),
    )
    channels: dict[str, Schema] = {}
    operations: dict[str, Schema] = {}
    for source in sources:
        for topic in source.topics:
            name = f"{source.name}.{topic.name}"
            channels[name] = _channel(source, topic.name, _about(topic), messages.received(source, topic))
            operations[f"receive.{name}"] = _operation("receive", name, channels[name], _reading(source))
        for address, told, carried in _written(source, messages):
            name = f"{source.name}.{address}"
            channels[name] = _channel(source, address, told, carried)
            operations[f"send.{name}"] = _operation("send", name, channels[name], {})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "rewarm",
            "version": release or "0",
            "description": "It keeps models fresh. The daemon that leads reads every partition from where its journal "
            "stands; an event counts once, by its source and id, however often it is sent.",
        },
        "defaultContentType": STRUCTURED,
        "servers": {name: server for source in sources for name, server in _servers(source).items()},
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages.messages,
            "schemas": messages.schemas,
            "correlationIds": CORRELATION,
            "securitySchemes": {
                name: scheme for source in sources for name, scheme in _schemes(source.name, source.security).items()
            },
        },
    }


def _channel(source: KafkaSettings, address: str, about: str, carried: Sequence[str]) -> Schema:
    return {
        "address": address,
        "description": about,
        "servers": [{"$ref": f"#/servers/{name}"} for name in _servers(source)],
        "messages": {name: ref("messages", name) for name in carried},
        "bindings": {"kafka": {"topic": address, "bindingVersion": BINDING}},
    }


def _about(topic: TopicSettings) -> str:
    about = "A JSON of the producer's own becomes an event by a mapping. " if topic.mapping else ""
    if topic.pipeline is not None:
        about += f"What names no pipeline itself is about {topic.pipeline}."
    else:
        about += "The subject of an event is the pipeline that it is about."
    return about


def _written(source: KafkaSettings, messages: Messages) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the topics that are written to: name, what they are, and the messages that they carry."""
    if source.dead_letter_topic is not None:
        about = f"What came by the source {source.name} and could not be accepted."
        yield source.dead_letter_topic, about, messages.refused()
    if source.transitions is not None:
        yield source.transitions.topic, "What happens to models and runs.", messages.told(source.transitions.on)


def _operation(action: str, channel: str, carried: Schema, bindings: Schema) -> Schema:
    messages = carried["messages"]
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": "Facts come in." if action == "receive" else "Others are told.",
        "messages": [
            {"$ref": f"#/channels/{channel}/messages/{name}"}
            for name in (messages if isinstance(messages, dict) else ())
        ],
        **({"bindings": {"kafka": {**bindings, "bindingVersion": BINDING}}} if bindings else {}),
    }


def _reading(source: KafkaSettings) -> Schema:
    about = "Nobody joins it: how far the journal has come is committed under it, for tools that show lag."
    return {"groupId": {"type": "string", "enum": [source.group_id], "description": about}}


def _servers(source: KafkaSettings) -> dict[str, Schema]:
    """Return the addresses of a source's cluster."""
    addresses = source.bootstrap_servers
    names = [
        source.name if len(addresses) == 1 else f"{source.name}-{number}" for number in range(1, len(addresses) + 1)
    ]
    schemes = _schemes(source.name, source.security)
    server: Schema = {
        "protocol": "kafka-secure" if source.security.protocol.endswith("ssl") else "kafka",
        "description": f"The cluster of the source {source.name}.",
        **({"security": [ref("securitySchemes", name) for name in schemes]} if schemes else {}),
    }
    return {name: {"host": address, **server} for name, address in zip(names, addresses, strict=True)}


def _schemes(name: str, security: SecuritySettings) -> dict[str, Schema]:
    """Return how a client shows who it is; neither secrets nor names of users."""
    found: dict[str, Schema] = {}
    if security.certificate_file is not None:
        found[f"{name}-certificate"] = {"type": "X509", "description": "a certificate of the client"}
    if security.oauth is not None and security.oauth.url:
        scopes = dict.fromkeys(security.oauth.scope.split(), "as the token endpoint means it")
        flow = {"tokenUrl": security.oauth.url, "availableScopes": scopes}
        found[f"{name}-token"] = {
            "type": "oauth2",
            "description": "SASL OAUTHBEARER",
            "flows": {"clientCredentials": flow},
            "scopes": [*scopes],
        }
    elif security.oauth is not None:
        found[f"{name}-token"] = {"type": "http", "scheme": "bearer", "description": "SASL OAUTHBEARER"}
    elif security.mechanism is not None:
        found[f"{name}-password"] = {"type": SASL[security.mechanism], "description": f"SASL {security.mechanism}"}
    return found
