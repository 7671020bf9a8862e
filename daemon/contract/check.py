"""Checks a policy: two processes ask it the same in other circumstances, and their answers are compared."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from daemon.contract.examination import ADAPTER, Fault, Outcome, Task, situations
from daemon.contract.rules import RULES, Rule
from daemon.core.errors import RewarmError
from daemon.core.events import Record
from daemon.core.state import Pipeline
from policies.base import BasePolicy

LONGEST: Final = 300.0
"""Seconds after which a policy does not answer any more."""
CIRCUMSTANCES: Final = ({"PYTHONHASHSEED": "1", "TZ": "UTC"}, {"PYTHONHASHSEED": "2", "TZ": "Pacific/Kiritimati"})
CHILD: Final = "from daemon.contract.examination import main; main()"


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A question at which a rule broke, whole: as JSON it can be looked at, and asked again."""

    rule: Rule
    why: str
    configuration: str
    event: str
    record: Record
    state: Pipeline


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a rule holds; where it does not, what was seen, and at which question (None: at none)."""

    rule: Rule
    good: bool
    why: str = ""
    question: int | None = None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """All rules; `decided` of the questions that were `asked` it had something to say to."""

    policy: str
    version: int
    asked: int
    decided: int
    findings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        """Whether every rule holds."""
        return all(finding.good for finding in self.findings)


def check(policy: BasePolicy, task: Task) -> Checked:
    """Return what the rules say of a policy; raises RewarmError when it cannot be asked at all."""
    tasks = (task, msgspec.structs.replace(task, backwards=True))
    with ThreadPoolExecutor(len(tasks)) as pool:
        first, second = pool.map(_asked, tasks, CIRCUMSTANCES)
    return compare(policy, first, second)


def compare(policy: BasePolicy, first: Outcome, second: Outcome) -> Checked:
    """Return what the outcomes of two processes say together."""
    faults: dict[Rule, Fault] = {}
    for fault in (*first.faults, *second.faults):
        faults.setdefault(fault.rule, fault)
    unlike = (index for index, pair in enumerate(zip(first.digests, second.digests, strict=True)) if len({*pair}) > 1)
    other = next(unlike, None)
    # What reads a clock, or forgets what it was told, differs by that: the first cause is told.
    causes = {"clock", "randomness", "outside", "repeatable", "bounded", "arguments"}
    if other is not None and not causes & set(faults):
        why = f"in one process {first.answers[other]}, in another {second.answers[other]}"
        faults["deterministic"] = Fault(rule="deterministic", why=why, index=other)
    findings = tuple(
        Finding(rule=rule, good=True)
        if rule not in faults
        else Finding(
            rule=rule,
            good=False,
            why=faults[rule].why,
            question=faults[rule].index if faults[rule].index >= 0 else None,
        )
        for rule in RULES
    )
    return Checked(
        policy=policy.label, version=policy.version, asked=first.asked, decided=first.decided, findings=findings
    )


def examples(policy: BasePolicy, task: Task, checked: Checked) -> list[Example]:
    """Return the questions at which rules broke."""
    broken = [finding for finding in checked.findings if not finding.good and finding.question is not None]
    asked = situations(policy, task) if broken else []
    return [
        Example(
            rule=finding.rule,
            why=finding.why,
            configuration=policy.model_dump_json(by_alias=True),
            event=asked[finding.question].record.event.kind,
            record=asked[finding.question].record,
            state=asked[finding.question].state,
        )
        for finding in broken
        if finding.question is not None
    ]


def make(configuration: str) -> BasePolicy:
    """Return the policy of a configuration's JSON; raises pydantic's ValidationError."""
    return ADAPTER.validate_json(configuration)


def _asked(task: Task, circumstances: dict[str, str]) -> Outcome:
    path = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD],
            input=msgspec.json.encode(task),
            capture_output=True,
            timeout=LONGEST,
            check=False,
            env={**os.environ, **circumstances, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as error:
        raise RewarmError(f"The policy had not answered everything after {LONGEST:g} s: it waits, or loops.") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RewarmError(f"The policy ended the process that asked it: {''.join(last) or done.returncode}.")
    return msgspec.json.decode(done.stdout, type=Outcome)
