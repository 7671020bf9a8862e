"""Every rule is broken by a policy that was made for it, and by no other."""

import json
import re
import sys
from pathlib import Path

import pytest

from daemon.contract.check import check, compare, examples, make
from daemon.contract.examination import Task, examine
from daemon.contract.rules import RULES, Rule
from daemon.contract.situations import Maker, lived
from daemon.core.events import EVENTS
from policies.base import BasePolicy

BROKEN: dict[str, set[Rule]] = {
    "Whole": set(),
    "Clock": {"clock"},
    "Stopwatch": {"clock"},
    "Dice": {"randomness"},
    "Reads": {"outside"},
    "Mutates": {"arguments"},
    "Raises": {"survives"},
    "Ghost": {"commands"},
    "Twice": {"commands"},
    "Late": {"wakes"},
    "Big": {"bounded"},
    "Hoards": {"bounded"},
    "Counts": {"repeatable"},
    "Mumbles": {"wording"},
    "Untyped": {"json"},
    "Thawed": {"configuration"},
}


@pytest.fixture(autouse=True)
def _beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the module of this folder be found as one beside a configuration is."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parent)])


def broken(name: str) -> BasePolicy:
    """Make one of the policies of this folder."""
    return make(json.dumps({"kind": "custom", "class": f"broken:{name}"}))


def task(policy: BasePolicy) -> Task:
    """Make a short examination."""
    return Task(configuration=policy.model_dump_json(by_alias=True), each=1, events=20)


@pytest.mark.parametrize(("name", "rules"), BROKEN.items(), ids=list(BROKEN))
def test_each_breaks_its_own_rule(name: str, rules: set[Rule]) -> None:
    """What is broken is named, with what was seen, and with the question at which it was."""
    policy = broken(name)
    outcome = examine(task(policy))
    assert {fault.rule for fault in outcome.faults} == rules
    assert all(fault.why for fault in outcome.faults)
    shown = examples(policy, task(policy), compare(policy, outcome, outcome))
    assert {each.rule for each in shown} == rules - ({"configuration"} if name != "Hoards" else rules)


def test_every_rule_has_somebody_who_breaks_it() -> None:
    """But for the one that takes two processes to be seen."""
    assert set(RULES) - set().union(*BROKEN.values()) == {"deterministic"}


def test_another_order_of_hashes_is_another_process() -> None:
    """What takes the first of a set answers one in one process and another in the next."""
    policy = broken("Hashes")
    checked = check(policy, task(policy))
    assert [finding.rule for finding in checked.findings if not finding.good] == ["deterministic"]
    assert not checked.good


def test_the_policy_of_the_page_keeps_every_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class that the page on adding policies shows, under the name that it has there."""
    page = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-policy.md"
    (block,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "ours_of_the_page.py").write_text(block, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    policy = make(json.dumps({"kind": "custom", "class": "ours_of_the_page:OnPsi", "threshold": 0.25}))
    outcome = examine(Task(configuration=policy.model_dump_json(by_alias=True), each=8, events=20))
    assert outcome.faults == ()
    assert outcome.decided


def test_the_same_seed_asks_the_same() -> None:
    """Questions are made by a seed alone, in every process."""
    assert [Maker(3, ["a"]).situation(kind) for kind in sorted(EVENTS)] == [
        Maker(3, ["a"]).situation(kind) for kind in sorted(EVENTS)
    ]
    assert Maker(3, ["a"]).situation("data.arrived") != Maker(4, ["a"]).situation("data.arrived")


def test_what_was_lived_has_runs_of_the_policy() -> None:
    """The simulated pipeline's runs bear the label of whoever is asked about them."""
    seen = lived("mine", seed=1, events=60, every=1)
    assert {each.state.active.policy for each in seen if each.state.active} == {"mine"}
    assert any(each.state.champion for each in seen)
