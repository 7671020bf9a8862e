"""JSON of producers who know no CloudEvents."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.errors import InputError
from daemon.settings.kafka import MappingSettings, TopicSettings
from daemon.sources.kafka.mapping import mapped


def made(document: object, mapping: dict[str, Any], pipeline: str | None = None) -> Any:  # noqa: ANN401 - JSON
    """Return the event that a document becomes; an arrival's domain is a constant unless it is told."""
    if mapping.get("kind", "data.arrived") == "data.arrived":
        mapping = {"constants": {"domain": "prose"}, **mapping}
    settings = MappingSettings.model_validate(mapping)
    text = mapped(json.dumps(document).encode(), settings, TopicSettings(name="t", pipeline=pipeline, mapping=settings))
    return None if text is None else json.loads(text)


NOTICE = {
    "EventName": "s3:ObjectCreated:Put",
    "Records": [{"s3": {"object": {"key": "a.jsonl", "size": 5, "none": None}}, "eventTime": "2026-01-01T00:00:00Z"}],
    "team": "p",
    "number": 7,
    "ok": True,
}
KEY = "Records.0.s3.object.key"


def test_paths_and_constants_make_an_event() -> None:
    """Fields from wherever they lie, items of arrays by their number; id, time and pipeline likewise."""
    assert made(
        NOTICE,
        {
            "data": {"uri": KEY, "bytes": "Records.0.s3.object.size"},
            "constants": {"domain": "prose"},
            "pipeline": "team",
            "id": "number",
            "time": "Records.0.eventTime",
        },
    ) == {
        "type": "data.arrived",
        "subject": "p",
        "id": "7",
        "time": "2026-01-01T00:00:00Z",
        "data": {"uri": "a.jsonl", "bytes": 5, "domain": "prose"},
    }


def test_another_kind_can_be_told() -> None:
    """`kind` says which."""
    told = made({"what": "oom"}, {"kind": "failure.reported", "data": {"failure": "what"}})
    assert told == {"type": "failure.reported", "data": {"failure": "oom"}}


def test_a_constant_stands_in_for_what_is_not_there() -> None:
    """A path that leads somewhere comes first."""
    mapping = {"data": {"uri": "u", "domain": "d"}, "constants": {"domain": "prose"}}
    assert made({"u": "a"}, mapping)["data"]["domain"] == "prose"
    assert made({"u": "a", "d": "verse"}, mapping)["data"]["domain"] == "verse"


def test_what_an_event_can_do_without_may_be_missing() -> None:
    """Null counts as missing; so do the time, and the pipeline where the topic stands for one."""
    mapping = {
        "data": {"uri": KEY, "bytes": "Records.0.s3.object.none", "documents": "x.y"},
        "time": "at",
        "pipeline": "of",
    }
    assert made(NOTICE, mapping, pipeline="q") == {
        "type": "data.arrived",
        "data": {"uri": "a.jsonl", "domain": "prose"},
    }


def test_a_cloudevent_needs_no_mapping() -> None:
    """Who says `specversion` speaks CloudEvents, whatever is configured."""
    assert made({"specversion": "1.0", "u": "a"}, {"data": {"uri": "u"}}) is None


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({"kind": "data.dreamt"}, "told by nobody outside"),
        ({"kind": "model.promoted"}, "told by nobody outside"),
        ({"data": {"uri": "u", "urii": "u"}, "constants": {"domain": "d"}}, "has no urii"),
        ({"data": {"uri": "u"}, "constants": {}}, "needs domain"),
    ],
)
def test_a_mapping_that_cannot_work_is_told_when_it_is_configured(mapping: dict[str, Any], told: str) -> None:
    """A kind that nobody outside tells, a field that the kind does not have, or one that nothing fills."""
    with pytest.raises(ValueError, match=told):
        MappingSettings.model_validate(mapping)


@pytest.mark.parametrize(
    ("document", "mapping", "told"),
    [
        (NOTICE, {"data": {"uri": "Records.1.s3"}}, "uri of data.arrived is at 'Records.1.s3'"),
        (NOTICE, {"data": {"uri": "Records.x"}}, "at 'Records' there is [{\"s3\""),
        (NOTICE, {"data": {"uri": "team.path"}}, "at 'team' there is \"p\""),
        (NOTICE, {"data": {"uri": "nothing"}}, 'the message is {"EventName"'),
        ([3], {"data": {"uri": "a.b"}}, "the message is [3]"),
        (None, {"data": {"uri": "a"}}, "the message is null"),
        (NOTICE, {"data": {"uri": "Records.99999999999999999999"}}, "not there"),
        (NOTICE, {"data": {"uri": KEY}, "id": "no"}, "the id is at 'no'"),
        (NOTICE, {"data": {"uri": KEY}, "id": "Records"}, "which is no text"),
        (NOTICE, {"data": {"uri": KEY}, "id": "ok"}, "there is true, which is no text"),
        (NOTICE, {"data": {"uri": KEY}, "pipeline": "no"}, "the pipeline is at 'no'"),
        ({"u": "a", "t": ""}, {"data": {"uri": "u"}, "time": "t"}, 'there is "", which is no text'),
    ],
)
def test_what_cannot_be_mapped_names_path_and_finding(document: object, mapping: dict[str, Any], told: str) -> None:
    """The message says what was looked for, where, and what was there, in short."""
    with pytest.raises(InputError) as caught:
        made(document, mapping)
    assert caught.value.reason == "not_mappable"
    assert "mapping of topic t" in str(caught.value)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_no_json_is_malformed() -> None:
    """As at the door."""
    settings = MappingSettings(data={"uri": "u"}, constants={"domain": "prose"})
    with pytest.raises(InputError, match="no JSON") as caught:
        mapped(b"{", settings, TopicSettings(name="t", mapping=settings))
    assert caught.value.reason == "malformed"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abuv0"), inner, max_size=3),
    max_leaves=8,
)


@given(document=values, path=st.sampled_from(["u", "a.b", "a.0.b", "0", "0.u", "v.v.v"]))
def test_whatever_comes_is_mapped_or_refused(document: object, path: str) -> None:
    """An event with what was at its path, or one of two reasons; never another error."""
    reason = ""
    try:
        event = made(document, {"data": {"uri": path}, "id": "v", "pipeline": "u", "time": "b"}, pipeline="q")
    except InputError as error:
        reason, event = error.reason, None
    assert reason in {"", "not_mappable", "malformed"}
    assert reason or event["data"]["uri"] is not None
