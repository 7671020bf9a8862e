"""Metrics: what is counted, what is read from the state, and names that promtool would accept."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from daemon.core.events import Record
from daemon.core.plans import Amount, Checkpoint
from daemon.core.state import Model, Pipeline, State
from ops.metrics import Metrics


@pytest.fixture
def registry(history: Sequence[Record]) -> CollectorRegistry:
    """A registry that has seen the written history."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, release="0.1.0")
    champion = Model(
        version=2,
        run="docs-lm-9",
        path="p",
        sha256="0" * 64,
        trunk=Checkpoint(path="t", sha256="0" * 64),
        parent=1,
        losses={"code": 1.1},
        past={},
        promoted_at=datetime(2026, 1, 1, tzinfo=UTC),
        position=9,
    )
    pipeline = Pipeline(
        name="docs-lm",
        champion=champion,
        pending={"code": Amount(arrivals=1, tokens=5000)},
        ignored={"stale_attempt": 3},
    )
    state = State(
        position=len(history),
        recorded_at=history[-1].recorded_at,
        pipelines={"docs-lm": pipeline},
        degraded={"spool": "gone"},
    )
    metrics.observe(history[:100], state)
    metrics.observe(history[100:], state)
    metrics.duplicates(4)
    metrics.queue(17)
    metrics.append_seconds(0.003)
    metrics.snapshot(200)
    metrics.behind("mlflow", 12)
    return registry


def test_counts_and_standings(registry: CollectorRegistry, history: Sequence[Record]) -> None:
    """Commits are counted once, the state is shown as it is."""

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    arrivals = sum(record.event.kind == "data.arrived" for record in history)
    assert value("rewarm_events_appended_total", kind="data.arrived") == arrivals
    assert value("rewarm_dead_letters_total", reason="malformed") == 1
    assert value("rewarm_runs_total", pipeline="docs-lm", outcome="promoted") == 3
    assert value("rewarm_model_changes_total", pipeline="docs-lm", change="rolled_back") == 1
    assert value("rewarm_stage_runs_total", pipeline="docs-lm", stage="train", outcome="interrupted") == 5
    assert value("rewarm_decisions_total", pipeline="docs-lm", policy="promotion", verdict="reject",
                 suppressed="false") == 1  # fmt: skip
    assert value("rewarm_event_end_to_end_duration_seconds_count") == arrivals + 1
    assert value("rewarm_log_position") == len(history)
    assert value("rewarm_champion_version", pipeline="docs-lm") == 2
    assert value("rewarm_pending_tokens", pipeline="docs-lm", domain="code") == 5000
    assert value("rewarm_run_active", pipeline="docs-lm") == 0
    assert value("rewarm_source_degraded", source="spool") == 1
    assert value("rewarm_events_duplicate_total") == 4
    assert value("rewarm_queue_depth") == 17
    assert value("rewarm_follower_behind_records", follower="mlflow") == 12
    assert value("rewarm_build_info", version="0.1.0", python=__import__("platform").python_version()) == 1


def test_names_and_helps_are_in_order(registry: CollectorRegistry) -> None:
    """Every family has a help text, counters end in _total, units are base units, no label holds an identity."""
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert len(families) > 25
    for family in families:
        assert family.documentation, family.name
        assert re.fullmatch(r"(rewarm|process)_[a-z_]+", family.name), family.name
        assert not re.search(r"_(ms|seconds?_total_seconds|kb|mb)$", family.name), family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples), family.name
        for sample in family.samples:
            assert not {"run", "id", "position", "event"} & set(sample.labels), family.name
            assert not any(value.startswith("docs-lm-") for value in sample.labels.values()), family.name


@pytest.mark.parametrize("cause", [None, "free", "killed"])
def test_it_can_be_seen_who_leads(cause: str | None) -> None:
    """A standby has 0; a change is counted when a standby became the leader, and by what."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert registry.get_sample_value("rewarm_leader") == 0
    metrics.leads(cause)
    assert registry.get_sample_value("rewarm_leader") == 1
    counted = [registry.get_sample_value("rewarm_leader_changes_total", {"cause": each}) for each in ("free", "killed")]
    assert counted == [1 if cause == each else None for each in ("free", "killed")]


def test_an_empty_daemon_has_metrics_too() -> None:
    """Before the first record nothing is missing but what depends on one."""
    registry = CollectorRegistry()
    Metrics(registry)
    assert registry.get_sample_value("rewarm_log_position") == 0
    assert registry.get_sample_value("rewarm_log_last_record_timestamp_seconds") is None
