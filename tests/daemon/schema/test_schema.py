"""The schemas say what the door, the decoders and the loader say."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from daemon.config import _Loader, load
from daemon.core.errors import ConfigurationError
from daemon.core.events import EVENTS
from daemon.door import OUTSIDE_KINDS, Door, Letter
from daemon.schema import DIALECT, configuration_schema, event_components, event_envelopes, event_schema, event_type

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "events"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
OUTSIDE = jsonschema_rs.validator_for(event_schema(), validate_formats=True)
ALL = jsonschema_rs.validator_for(event_schema(sorted(EVENTS)), validate_formats=True)
CONFIGURATION = jsonschema_rs.validator_for(configuration_schema())
ARRIVAL: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/crawler",
    "type": "io.rewarm.data.arrived.v1",
    "subject": "docs-lm",
    "time": "2026-03-01T12:00:00Z",
    "data": {"uri": "a.jsonl", "domain": "prose"},
}


def parsed(text: str) -> object:
    """Return what YAML says as rewarm and editors read it: `on` is a word."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one


def fenced(language: str) -> list[Any]:
    """Return the fenced blocks of all pages as parameters of a test."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(pattern.findall(page.read_text(encoding="utf-8")), 1)
    ]


def test_both_schemas_are_schemas() -> None:
    """They hold to the dialect that they name."""
    for schema in (event_schema(), event_schema(sorted(EVENTS)), configuration_schema()):
        assert schema["$schema"] == DIALECT
        jsonschema_rs.meta.validate(schema)


@pytest.mark.parametrize("block", fenced("json"))
def test_every_documented_event_fits(block: str) -> None:
    """What the pages show as events is what the schema asks for."""
    documents = json.loads(block)
    for event in documents if isinstance(documents, list) else [documents]:
        if "specversion" in event:
            OUTSIDE.validate(event)


@pytest.mark.parametrize("block", fenced("yaml"))
def test_every_documented_configuration_fits(block: str) -> None:
    """What the pages show as configuration is what an editor accepts."""
    CONFIGURATION.validate(parsed(block))


def test_the_packaged_configuration_fits() -> None:
    """So is the file that the demo uses."""
    CONFIGURATION.validate(parsed((ROOT / "rewarm.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("sample", sorted(GOLDEN.glob("*.json")), ids=lambda sample: sample.stem)
def test_every_golden_event_fits(sample: Path) -> None:
    """Each kind's sample of the current version fits the schema of its kind, and of no other one."""
    kind, version = sample.name.removesuffix(".json").rsplit(".v", 1)
    if int(version.partition(".")[0]) != EVENTS[kind].version:
        pytest.skip("a version that is no longer written")
    event = {**ARRIVAL, "type": event_type(kind), "data": json.loads(sample.read_bytes())}
    ALL.validate(event)
    assert OUTSIDE.is_valid(event) == (kind in OUTSIDE_KINDS)


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"source": "/rewarm/daemon"},
        {"type": "io.rewarm.decision.made.v1"},
        {"type": "io.rewarm.data.arrived.v2"},
        {"time": "yesterday"},
        {"time": "2026-03-01T12:00:00"},
        {"data": {"uri": "a.jsonl"}},
        {"data": {"uri": "a.jsonl", "domain": "../prose"}},
        {"data": {"uri": "a.jsonl", "domain": "prose", "bytes": -1}},
        {"subject": None},
        {"data": None},
    ],
    ids=str,
)
def test_what_the_door_refuses_does_not_fit(change: dict[str, Any]) -> None:
    """For each mistake the schema and the door agree; `None` leaves the key out."""
    door = Door(pipelines={"docs-lm": None}, roots=())
    event = {key: value for key, value in {**ARRIVAL, **change}.items() if value is not None}
    OUTSIDE.validate(ARRIVAL)
    assert not OUTSIDE.is_valid(event)
    letter = Letter(text=json.dumps(event).encode(), where="test", source="/test", id=None)
    assert door.receive(letter).refusal is not None


def test_parts_go_into_an_openapi_document() -> None:
    """References follow the template, and everything that is referred to is there."""
    template = "#/components/schemas/{name}"
    components, envelopes = event_components(template=template), event_envelopes(template=template)
    assert set(envelopes) == set(OUTSIDE_KINDS)
    refs = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps([components, envelopes])))
    assert refs
    assert {ref.removeprefix("#/components/schemas/") for ref in refs} <= set(components)


@pytest.mark.parametrize(
    ("content", "valid"),
    [
        ("journal: sqlite:///a.db", True),
        ("pipelines: {p: {policies: [{kind: rewarm_replay, max_age: 3600}]}}", True),
        ("pipelines: {p: {policies: [{kind: rewarm_replay, max_age: P7D}]}}", True),
        ("jurnal: sqlite:///a.db", False),
        ("http: {port: 99999}", False),
        ("pipelines: {p: {policies: [{kind: rewarm_replai}]}}", False),
        ("pipelines: {p: {policies: [{kind: rewarm_replay, after_tokens: 0}]}}", False),
        ("executor: {slots: many}", False),
        ("tokens: [{name: ci, file: t, scopes: [rule]}]", False),
    ],
)
def test_editor_and_loader_agree(content: str, valid: bool, tmp_path: Path) -> None:
    """A configuration that loads fits the schema, and these mistakes are seen by both."""
    file = tmp_path / "rewarm.yaml"
    file.write_text(content, encoding="utf-8")
    assert CONFIGURATION.is_valid(parsed(content)) is valid
    if valid:
        load(file)
    else:
        with pytest.raises(ConfigurationError):
            load(file)
