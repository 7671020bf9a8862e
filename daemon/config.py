"""The configuration: one YAML file, validated; environment variables REWARM_… override it (`__` nests)."""

import difflib
import hashlib
import os
import re
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

import msgspec
import yaml
from pydantic import BaseModel, Tag, ValidationError
from pydantic_settings import SettingsError

from daemon.broker.access import Access
from daemon.core.errors import ConfigurationError
from daemon.core.events import ConfigurationChanged, PipelineSettings, PolicySettings
from daemon.settings import PREFIX, NotifySettings, Settings, SpoolSettings, TlsSettings, TokenSettings
from daemon.settings.kafka import KafkaSettings
from daemon.settings.roots import remotes
from policies.base import BasePolicy
from stages.roots import Remote

BOOL = "tag:yaml.org,2002:bool"
SPAN = "is no span of time: write a number and a unit (90s, 30m, 6h, 2d, 1w), or ISO 8601 (PT6H)"
ZONE = "needs a time and a zone, as in 2026-12-20T00:00:00Z"
PLAIN = {
    "model_type": "must hold keys and values",
    "dict_type": "must hold keys and values",
    "tuple_type": "must be a list, such as [a, b]",
    "too_short": "must hold at least 1 item, and is empty",
    "union_tag_not_found": "must be keys and values, with a `kind` among them",
    "model_attributes_type": "must hold keys and values",
    "recursion_loop": "stands inside itself: what `&` names is used within it by `*`",
    "time_delta_type": SPAN,
    "time_delta_parsing": SPAN,
    "timezone_aware": ZONE,
}
"""Type of a mistake → what is meant, in the words of whoever writes YAML and knows no Python."""
SEARCHED = (Path("rewarm.yaml"), Path("/etc/rewarm/rewarm.yaml"))


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that is there twice: the earlier one would be lost without a word.

    Of YAML 1.2 it has what is a truth value: `on`, `off`, `yes` and `no` are words, for `on` is a key of ours.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the library's own attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOL]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    "while reading keys and values", node.start_mark, f"key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(BOOL, re.compile(r"(?i:true|false)$"), list("tTfF"))


class Kafka(msgspec.Struct, frozen=True, kw_only=True):
    """A Kafka source, and how its cluster is reached."""

    settings: KafkaSettings
    access: Access


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with every path made absolute, and the file that they come from."""

    settings: Settings
    file: Path | None
    base: Path
    journal: Path
    tracking_uri: str | None
    state: Path
    roots: tuple[Path, ...]
    remotes: tuple[Remote, ...]
    spools: tuple[Path, ...]
    kafka: tuple[Kafka, ...]
    tls: TlsSettings | None
    tokens: tuple[TokenSettings, ...]
    notify: tuple[NotifySettings, ...]

    @property
    def all_roots(self) -> tuple[Path | Remote, ...]:
        """Where event uris may point: folders first, then what lies elsewhere."""
        return (*self.roots, *self.remotes)

    def changed(self) -> ConfigurationChanged:
        """Return the fact that tells the journal what policies and the fold depend on."""
        pipelines = {
            name: PipelineSettings(
                stages=pipeline.stages,
                policies=tuple(
                    PolicySettings(
                        name=policy.label,
                        kind=policy.kind,
                        version=policy.version,
                        configuration=policy.model_dump_json(by_alias=True),
                        schedule=policy.ticks,
                        shadow=policy.shadow,
                    )
                    for policy in pipeline.policies
                ),
                model=pipeline.model.plain(self.base),
                data=pipeline.data.plain(),
                priority=pipeline.priority,
                max_domains=pipeline.max_domains,
                signals=_signals(pipeline.policies),
            )
            for name, pipeline in sorted(self.settings.pipelines.items())
        }
        slots = self.settings.executor.slots
        content = msgspec.json.encode({"slots": slots, "pipelines": pipelines}, order="deterministic")
        return ConfigurationChanged(hash=hashlib.sha256(content).hexdigest(), slots=slots, pipelines=pipelines)


def _signals(policies: Sequence[BasePolicy]) -> dict[str, int]:
    """Return what the policies together look at, each signal as long as whoever needs most of it."""
    wanted: dict[str, int] = {}
    for policy in policies:
        for name, length in policy.signals.items():
            wanted[name] = max(length, wanted.get(name, 0))
    return dict(sorted(wanted.items()))


def topics_of(configuration: Configuration) -> dict[str, frozenset[str]]:
    """Return the topics that each Kafka source reads, by its name."""
    return {each.settings.name: frozenset(topic.name for topic in each.settings.topics) for each in configuration.kafka}


def find(path: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the configuration file: the one named, or the first of the known places; None: defaults alone."""
    named = path or (Path(environment[PREFIX + "CONFIG"]) if environment.get(PREFIX + "CONFIG") else None)
    if named is not None:
        if not named.is_file():
            raise ConfigurationError(f"There is no configuration file {named}: check --config or {PREFIX}CONFIG.")
        return named
    packaged = Path(__file__).with_name("rewarm.yaml")
    return next((place for place in (*SEARCHED, packaged) if place.is_file()), None)


def load(path: Path | None = None) -> Configuration:
    """Return the validated configuration; raises ConfigurationError that names file and key."""
    file = find(path)
    content: object = {}
    if file is not None:
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe one
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise ConfigurationError(f"{file} cannot be read as YAML: {error}.") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file} must hold keys and values at its top, not a {type(content).__name__}.")
    odd = [key for key in content if not isinstance(key, str) or key not in Settings.model_fields]
    if odd:
        raise ConfigurationError("\n".join(f"{file}: {key}: {_unknown((), str(key))}." for key in odd))
    # The packaged default belongs to whoever runs it: its paths count from the working directory.
    packaged = file is None or file.parent == Path(__file__).parent
    base = Path.cwd() if packaged or file is None else file.resolve().parent
    if _has_custom(content):
        importable(base)
    try:
        settings = Settings(**content)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(file, problem) for problem in _causes(error))) from error
    except SettingsError as error:
        raise ConfigurationError(f"The environment ({PREFIX}…): {error}: {error.__cause__}.") from error
    return _absolute(settings, file, base)


def importable(folder: Path) -> None:
    """Let classes of custom policies be found in a folder, after whatever is installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _has_custom(content: Mapping[str, Any]) -> bool:
    pipelines = content.get("pipelines")
    for pipeline in pipelines.values() if isinstance(pipelines, dict) else ():
        policies = pipeline.get("policies") if isinstance(pipeline, dict) else None
        for policy in policies if isinstance(policies, list) else ():
            if isinstance(policy, dict) and policy.get("kind") == "custom":
                return True
    return False


def _absolute(settings: Settings, file: Path | None, base: Path) -> Configuration:
    uri = settings.mlflow.tracking_uri
    if uri is not None and uri.startswith("sqlite:///"):
        uri = f"sqlite:///{base / uri.removeprefix('sqlite:///')}"
    return Configuration(
        settings=settings,
        file=file,
        base=base,
        journal=base / settings.journal.removeprefix("sqlite:///"),
        tracking_uri=uri,
        state=base / settings.state,
        roots=tuple(base / root for root in settings.roots if isinstance(root, Path)),
        remotes=remotes(settings.roots, settings.credentials, base),
        spools=tuple(base / source.path for source in settings.sources if isinstance(source, SpoolSettings)),
        kafka=tuple(
            Kafka(settings=source, access=source.access(base))
            for source in settings.sources
            if isinstance(source, KafkaSettings)
        ),
        tls=None
        if settings.http.tls is None
        else TlsSettings(certificate=base / settings.http.tls.certificate, key=base / settings.http.tls.key),
        tokens=tuple(token.model_copy(update={"file": base / token.file}) for token in settings.tokens),
        notify=tuple(
            target.model_copy(update={"secret_file": target.secret_file and base / target.secret_file})
            for target in settings.notify
        ),
    )


def _causes(error: ValidationError) -> list[Any]:
    """Return what is wrong, without the lists that are too short only because something in them is wrong."""
    problems = error.errors()
    inside = {problem["loc"][:end] for problem in problems for end in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in inside]


def _explain(file: Path | None, problem: Any) -> str:  # noqa: ANN401 - pydantic's own untyped report
    where = ".".join(str(part) for part in problem["loc"]) or "(top)"
    message = PLAIN.get(problem["type"]) or str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = _unknown(problem["loc"][:-1], str(problem["loc"][-1]))
    elif problem["type"] == "union_tag_invalid":
        given, known = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        message = f"there is no kind {given!r}; known kinds: {known}"
    elif problem["type"] not in {"missing", "too_short", "union_tag_not_found"}:
        given = problem["input"]
        hidden = _secret(problem) or isinstance(given, dict | BaseModel)
        message = message if hidden else f"{message} (it is {_written(given)})"
    variables = [PREFIX + "__".join(str(part) for part in named).upper() for named in _named(problem["loc"])]
    variable = next((name for name in variables if name in os.environ), None)
    place = f"the environment ({variable})" if variable else file or "the environment"
    return f"{place}: {where}: {message}."


def _written(given: object) -> str:
    """Return a value about as it stands in the file."""
    if given is None:
        return "empty"
    return str(given) if isinstance(given, date | timedelta) else repr(given)


def _secret(problem: Any) -> bool:  # noqa: ANN401 - as above
    """Return whether the wrong value may be a secret that was written where none belongs."""
    location = problem["loc"]
    if "security" in location:
        return bool(problem["type"] != "literal_error")
    # A password may be in a web address, its path is often a secret, and servers are given as such by mistake.
    return location[-1:] == ("url",) or "bootstrap_servers" in location


def _named(location: tuple[int | str, ...]) -> Iterator[tuple[int | str, ...]]:
    """Yield the keys that a variable may name: the very one, or the list that it is in, for that is given whole."""
    yield location
    first = next((index for index, part in enumerate(location) if isinstance(part, int)), None)
    if first is not None:
        yield location[:first]


def _unknown(location: tuple[int | str, ...], key: str) -> str:
    known = sorted(_known(location))
    close = difflib.get_close_matches(key, known, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"is no known key.{hint} Known keys: {', '.join(known)}"


def _known(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the model at `location` takes."""
    here: Any = Settings
    for part in location:
        here = _step(here, part)
    fields = getattr(here, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _step(here: Any, part: int | str) -> Any:  # noqa: ANN401 - types as values
    if isinstance(here, type) and issubclass(here, BaseModel):
        field = next((f for name, f in here.model_fields.items() if part in (name, f.alias)), None)
        return _present(field.annotation) if field else None
    origin = get_origin(here)
    if origin is Annotated:
        return _step(get_args(here)[0], part)
    if origin in (Union, UnionType):
        tagged = [member for member in get_args(here) if _tag(member) == part]
        if tagged and get_origin(tagged[0]) is Annotated:
            return get_args(tagged[0])[0]
        return tagged[0] if tagged else next((m for m in get_args(here) if isinstance(m, type)), None)
    arguments = [argument for argument in get_args(here) if argument is not Ellipsis]
    return arguments[-1] if arguments else None


def _present(annotation: Any) -> Any:  # noqa: ANN401 - types as values
    """Return what a key holds that may be left out (`X | None`): X."""
    members = [each for each in get_args(annotation) if each is not NoneType]
    optional = get_origin(annotation) in (Union, UnionType) and len(members) == 1
    return members[0] if optional else annotation


def _tag(member: Any) -> str | None:  # noqa: ANN401 - types as values
    named = next((each.tag for each in getattr(member, "__metadata__", ()) if isinstance(each, Tag)), None)
    if named is not None:
        return named
    field = getattr(member, "model_fields", {}).get("kind")
    return cast("str | None", field.default) if field else None
