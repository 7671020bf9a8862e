"""Golden journals: what was decided once is decided again, as long as no version says otherwise."""

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import replace

import daemon.core.decisions
import policies
from daemon.core.events import DecisionMade, Record
from daemon.core.transition import REDUCER_VERSION
from daemon.replay import replay
from policies import AnyPolicy
from policies.base import BasePolicy
from policies.custom import Custom
from tests.golden.record import JOURNALS, journals, pins, story, versions
from tests.golden.scenarios import SCENARIOS
from tests.golden.tape import read

POLICIES: tuple[type[BasePolicy], ...] = tuple(cls for cls in get_args(get_args(AnyPolicy)[0]) if cls is not Custom)
VERDICTS = {
    "rewarm_replay": {"due", "waiting", "blocked", "planned", "nothing_left", "look", "postponed"}
    | {"asked", "nothing_pending"}
    | {"cooling_down", "over_budget", "quiet_hours", "debouncing", "claimed", "awaiting_approval", "spending"},
    "periodic_retraining": {"due", "waiting", "blocked", "running", "judged", "beside", "no_model"},
    "stage_recovery": {"retry", "backing_off", "given_up", "watching", "ending", "replaced_already"}
    | {"step_back", "quarantine", "split"}
    | {f"failure_{how}" for how in ("before_start", "elsewhere", "known")}
    | {f"failure_of_{what}_run" for what in ("ended", "no", "stopped", "unknown", "waiting")},
    "promotion": {"promote", "reject", "hold", "thawed", "watched", "kept", "rolled_back"},
    "operator": {"approved", "cancelled", "rolled_back", "not_possible", "adopt", "withdrawn", "frozen", "thawed"},
    "sequence": {"advance", "held", "failed", "cancelled", "resume", "postponed"},
    "arbiter": {"preempt", "cancelled", "withdrawn"},
}
"""Everything that a shipped policy, or the core itself, may say."""


def kind_of(policy: type[BasePolicy]) -> str:
    """Return a policy's kind."""
    return str(policy.model_fields["kind"].default)


def records(path: Path) -> list[Record]:
    """Return a journal's records."""
    return read(path.read_bytes())


def said(paths: Iterable[Path]) -> dict[tuple[str, int], set[str]]:
    """Return the verdicts in journals by policy and its version."""
    found = defaultdict(set)
    for path in paths:
        for record in records(path):
            if isinstance(record.event, DecisionMade):
                found[record.event.policy, record.event.policy_version].add(record.event.verdict)
    return found


@pytest.mark.parametrize("path", journals(), ids=lambda path: path.stem)
def test_what_was_decided_is_decided_again(path: Path) -> None:
    """No decision differs; what has changed is explained by a version; the end has the pinned state hash."""
    found = replay(records(path))
    assert found.differs == 0, found.differences
    assert set(found.changed) <= {why for why in found.changed if "had version" in why}
    assert found.same > 0
    assert found.hash == pins().hashes[path.name]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_newest_journal_of_a_scenario_is_what_happens_today(scenario: str) -> None:
    """Played again, the scenario gives the same records, and replaying them finds no change at all.

    If not: change the version of what behaves differently, then `python tests/golden/record.py`.
    """
    newest = records(journals(scenario)[-1])
    assert story(SCENARIOS[scenario]().records) == story(newest)
    found = replay(newest)
    assert (found.changed, found.same) == ({}, found.facts)


def test_hashes_are_pinned_for_this_reducer() -> None:
    """A new version of the reducer pins its own hashes, of every journal: `python tests/golden/record.py`."""
    assert pins().reducer == REDUCER_VERSION
    assert set(pins().hashes) == {path.name for path in journals()}
    assert {path.name.split(".")[0] for path in journals()} == set(SCENARIOS)
    assert len(list(JOURNALS.glob("*.jsonl"))) == len(journals())


@pytest.mark.parametrize("policy", POLICIES, ids=kind_of)
def test_every_policy_has_a_journal_of_its_version(policy: type[BasePolicy]) -> None:
    """A policy whose version is new needs a journal in which it says everything that it can say."""
    kind, version = kind_of(policy), policy.version
    paths = [path for path in journals() if (kind, version) in versions(records(path))]
    assert said(paths)[kind, version] == VERDICTS[kind]


@pytest.mark.parametrize("author", ["operator", "sequence", "arbiter"])
def test_the_core_says_everything_in_some_journal(author: str) -> None:
    """Requests, sequence and arbitration are told in full too."""
    assert said(journals())[author, 1] == VERDICTS[author]


@pytest.mark.parametrize(
    "path",
    sorted(p for f in (policies.__file__, daemon.core.decisions.__file__) for p in Path(str(f)).parent.rglob("*.py")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_no_verdict_is_left_out(path: Path) -> None:
    """Each `verdict="…"` of the code is in the list above."""
    known = set().union(*VERDICTS.values()) | {"raised"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "verdict" and isinstance(node.value, ast.Constant):
            assert node.value.value in known


def test_a_difference_without_a_version_is_found() -> None:
    """A decision that the code would not make is reported with its position, as a bug, whatever comes after it."""
    whole = SCENARIOS["recovery"]().records
    at = next(n for n, record in enumerate(whole) if isinstance(record.event, DecisionMade) and n > 50)
    event = whole[at].event
    assert isinstance(event, DecisionMade)
    whole[at] = replace(whole[at], event=replace(event, reason="It was full moon."))
    found = replay(whole)
    assert (found.differs, found.changed) == (1, {})
    assert found.differences[0].position == whole[at].position
    assert found.differences[0].policy == event.policy
