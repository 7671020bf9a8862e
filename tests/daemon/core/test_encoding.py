"""Stored events parse for ever: golden samples, upcasters, and what is refused."""

import json
import re
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.commands import AnyCommand
from daemon.core.encoding import UPCASTERS, Upcaster, decode, encode
from daemon.core.errors import EventError
from daemon.core.events import EVENTS, AnyEvent, DataArrived, DecisionMade, StageProgressed

GOLDEN = Path(__file__).parents[2] / "golden" / "events"
SAMPLES = sorted(GOLDEN.glob("*.json"))

words = st.text(max_size=20)
counts = st.integers(min_value=0, max_value=2**53)
floats = st.floats(allow_nan=False, allow_infinity=False)


def parts(sample: Path) -> tuple[str, int]:
    """Return kind and version of a sample, which its name tells; a word more tells several of one kind apart."""
    named = re.fullmatch(r"([a-z_.]+)\.v([1-9]\d*)(?:\.[a-z_]+)?\.json", sample.name)
    assert named is not None, sample.name
    return named[1], int(named[2])


def lost(before: object, after: object) -> bool:
    """Return whether anything that `before` says is missing or different in `after`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return any(key not in after or lost(value, after[key]) for key, value in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) != len(after) or any(map(lost, before, after))
    return before != after or type(before) is not type(after)


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_every_kind_and_version_has_a_sample(kind: str) -> None:
    """For each version that was ever written there is a sample, and none for a version that never was."""
    versions = sorted({version for name, version in map(parts, SAMPLES) if name == kind})
    assert versions == list(range(1, EVENTS[kind].version + 1))


def test_every_sample_is_of_a_known_kind() -> None:
    """A kind that was ever stored stays known."""
    assert {parts(sample)[0] for sample in SAMPLES} == set(EVENTS)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_samples_parse_and_lose_nothing(sample: Path) -> None:
    """A sample of the current version, encoded again, says all that it said; an older one is lifted and parses."""
    kind, version = parts(sample)
    data = sample.read_bytes()
    event = decode(kind, version, data)
    assert isinstance(event, EVENTS[kind])
    assert decode(kind, event.version, encode(event)) == event
    if version == event.version:
        assert not lost(json.loads(data), json.loads(encode(event)))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_samples_of_the_current_version_are_complete(sample: Path) -> None:
    """A sample names every field that has no default: parsing it alone would not show that one was made optional."""
    kind, version = parts(sample)
    if version == EVENTS[kind].version:
        required = {field.encode_name for field in msgspec.structs.fields(EVENTS[kind]) if field.required}
        assert required <= set(json.loads(sample.read_bytes()))


def test_the_sample_of_a_decision_carries_every_command() -> None:
    """Commands are stored inside decisions: each of them is in the golden sample."""
    decision = decode("decision.made", 1, (GOLDEN / "decision.made.v1.json").read_bytes())
    assert isinstance(decision, DecisionMade)
    assert {type(command) for command in decision.commands} == set(AnyCommand.__args__)


# ------------------------------------------------------------------------------------------- round trips


@given(
    event=st.builds(
        DataArrived,
        uri=words,
        domain=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
        bytes=st.none() | counts,
        sha256=st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        tokens=st.none() | counts,
    )
    | st.builds(
        StageProgressed,
        run=words,
        stage=words,
        attempt=counts,
        step=counts,
        steps=counts,
        metrics=st.dictionaries(words, floats, max_size=4),
    )
    | st.builds(
        DecisionMade,
        policy=words,
        policy_version=counts,
        verdict=words,
        reason=words,
        inputs=st.dictionaries(words, st.none() | st.booleans() | counts | floats | words, max_size=4),
        wakes=st.dictionaries(words, st.datetimes(timezones=st.just(UTC)), max_size=2),
    )
)
def test_encoding_and_decoding_give_the_same_event(event: AnyEvent) -> None:
    """Whatever text, numbers and instants an event holds, it comes back equal, and encodes to the same bytes."""
    data = encode(event)
    again = decode(event.kind, event.version, data)
    assert again == event
    assert encode(again) == encode(decode(event.kind, event.version, data.decode()))


# ---------------------------------------------------------------------------------------------- upcasters


def test_no_upcaster_is_left_over() -> None:
    """Each upcaster starts from an older version of a known kind."""
    for kind, version in UPCASTERS:
        assert 1 <= version < EVENTS[kind].version


def test_an_old_event_is_lifted_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data of version 1 passes every upcaster on its way to version 3."""
    monkeypatch.setattr(DataArrived, "version", 3)

    def name_domain(data: dict[str, object]) -> dict[str, object]:
        return {**{key: value for key, value in data.items() if key != "topic"}, "domain": data["topic"]}

    def make_uri(data: dict[str, object]) -> dict[str, object]:
        return {**{key: value for key, value in data.items() if key != "path"}, "uri": f"file://{data['path']}"}

    upcasters: Mapping[tuple[str, int], Upcaster] = {("data.arrived", 1): name_domain, ("data.arrived", 2): make_uri}
    lifted = DataArrived(uri="file:///srv/a", domain="news", tokens=3)
    assert decode("data.arrived", 1, b'{"topic": "news", "path": "/srv/a", "tokens": 3}', upcasters) == lifted
    assert decode("data.arrived", 2, b'{"domain": "news", "path": "/srv/a", "tokens": 3}', upcasters) == lifted
    assert decode("data.arrived", 3, encode(lifted), upcasters) == lifted


def test_a_missing_upcaster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old version without a way up is an error that names it."""
    monkeypatch.setattr(DataArrived, "version", 2)
    with pytest.raises(EventError, match=r"data.arrived has no upcaster from version 1"):
        decode("data.arrived", 1, b"{}", {})


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("kind", "version", "data", "match"),
    [
        ("data.dreamt", 1, b"{}", "'data.dreamt' is not known; known kinds: .*data.arrived"),
        ("data.arrived", 2, b"{}", "version 2.*upgrade rewarm"),
        ("data.arrived", 1, b"{}", "required field `uri`"),
        ("data.arrived", 1, b'{"uri": "u"', "truncated"),
        ("data.arrived", 1, b"[]", "Expected `object`"),
        ("data.arrived", 1, b"", "truncated"),
        ("data.arrived", 1, b'{"uri": 3, "domain": "news"}', r"Expected `str`.*\$\.uri"),
        ("data.arrived", 1, b'{"uri": "u", "domain": "../news"}', r"\$\.domain"),
        ("data.arrived", 1, b'{"uri": "u", "domain": "news", "bytes": -1}', r"\$\.bytes"),
        ("data.arrived", 1, b'{"uri": "u", "domain": "news", "bytes": true}', r"\$\.bytes"),
        ("data.arrived", 1, b'{"uri": "u", "domain": "news", "sha256": "abc"}', r"\$\.sha256"),
        ("data.arrived", 1, b'{"uri": "\xff", "domain": "news"}', "data.arrived version 1"),
        ("drift.detected", 1, b'{"metric": "m", "value": NaN}', "malformed"),
        ("drift.detected", 1, b'{"metric": "m", "value": 1e999}', "out of range"),
        ("data.arrived", 1, b"[" * 100_000, "data.arrived version 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(kind: str, version: int, data: bytes, match: str) -> None:
    """The error names kind, version and the field."""
    with pytest.raises(EventError, match=match):
        decode(kind, version, data)
