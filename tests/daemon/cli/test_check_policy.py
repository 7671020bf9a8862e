"""`rewarm check-policy`: the table, the exit code, the examples, and mistakes in what is asked."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.cli.check_policy import settings
from daemon.contract import check
from daemon.contract.check import compare
from daemon.contract.examination import Outcome, Task, examine
from daemon.core.errors import RewarmError

if TYPE_CHECKING:
    from policies.base import BasePolicy
    from tests.daemon.cli.conftest import Command

OURS = '''
from daemon.core.decisions import Decision
from policies.base import BasePolicy


class Late(BasePolicy):
    """Asks to be woken in the past."""

    hours: int = 1

    def decide(self, state, record):
        return Decision(verdict="waiting", reason="It waits.", wakes={"x": record.recorded_at})
'''


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask in this process, and once."""

    def here(policy: "BasePolicy", task: Task) -> check.Checked:
        outcome: Outcome = examine(task)
        return compare(policy, outcome, outcome)

    monkeypatch.setattr(check, "check", here)


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with a broken policy in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("ours_late.py").write_text(OURS, encoding="utf-8")


def test_a_policy_that_rewarm_brings_keeps_every_rule(rewarm: "Command") -> None:
    """Two processes ask it, in other circumstances; the answer is a table and exit code 0."""
    result = rewarm("check-policy", "promotion", "--set", "approval=always", "--each", "1")
    assert result.code == 0, result.out
    assert "promotion: policy promotion, version" in result.out
    assert "BROKEN" not in result.out
    assert "Every rule holds." in result.out


@pytest.mark.usefixtures("ours", "once")
def test_a_broken_one_is_shown_with_an_example(rewarm: "Command") -> None:
    """Exit code 1; the rule, what was seen, and a file with the state and the fact."""
    result = rewarm("check-policy", "ours_late:Late", "--each", "1", "--set", "hours=2")
    assert result.code == 1
    assert "BROKEN" in result.out
    assert "wakes is broken" in result.out
    assert "1 rule broken." in result.out
    example = json.loads(Path("check-policy/late-wakes.json").read_text(encoding="utf-8"))
    assert example["rule"] == "wakes"
    assert example["record"]["pipeline"] == "p"
    assert example["state"]["name"] == "p"
    assert json.loads(example["configuration"])["hours"] == 2


@pytest.mark.usefixtures("ours", "once")
def test_one_that_raises_is_not_advised_to_try_other_fields(rewarm: "Command") -> None:
    """It had nothing to say because it raised, which the table has told."""
    Path("ours_raising.py").write_text(OURS.replace("        return", "        raise ValueError('no')\n        return"))
    out = rewarm("check-policy", "ours_raising:Late", "--each", "1").out
    assert "survives is broken" in out
    assert "It never said anything" not in out


@pytest.mark.usefixtures("ours", "once")
def test_as_json(rewarm: "Command") -> None:
    """--json has every rule, and where the examples lie."""
    result = rewarm("check-policy", "ours_late:Late", "--each", "1", "--json", "--examples", "elsewhere")
    told = json.loads(result.out)
    assert (result.code, told["good"]) == (1, False)
    assert [each["rule"] for each in told["findings"] if not each["good"]] == ["wakes"]
    assert told["examples"] == ["elsewhere/late-wakes.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "There is no policy 'nothing': give 'package.module:Class', or one of 'rewarm_replay'"),
        (["nothing.at_all:X"], "there is no module 'nothing'"),
        (["promotion", "--set", "approval=never"], "promotion: approval: Input should be"),
        (["promotion", "--set", "approval"], "--set 'approval' is no field: write KEY=VALUE"),
        (["promotion", "--set", "a=[1"], "--set 'a=[1' cannot be read as YAML"),
        (["promotion", "--each", "0"], "--each 0 is not possible"),
    ],
)
def test_mistakes_are_exit_code_2(rewarm: "Command", arguments: list[str], words: str) -> None:
    """One line that says what was wrong, and no traceback."""
    result = rewarm("check-policy", *arguments)
    assert result.code == 2
    assert words in result.err


def test_fields_are_yaml_and_may_lie_deeper() -> None:
    """`training.batch=4` is a field in a field; a value is what YAML makes of it."""
    assert settings(["a=1", "b.c=[x, y]", "b.d=PT1H", "e=true"]) == {
        "a": 1,
        "b": {"c": ["x", "y"], "d": "PT1H"},
        "e": True,
    }
    with pytest.raises(RewarmError, match="'a' has a value already"):
        settings(["a=1", "a.b=2"])
