"""Asks a policy everything, in a process of its own: what answers there came, and which rules they broke."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from pydantic import TypeAdapter, ValidationError

from daemon.contract.rules import Broken, Rule, judge
from daemon.contract.situations import KINDS, Situation, lived, made_up
from daemon.contract.watch import Watch
from daemon.core.decisions import Decision
from daemon.core.events import Record
from daemon.core.state import Pipeline
from policies import AnyPolicy
from policies.base import BasePolicy

ADAPTER: Final[TypeAdapter[BasePolicy]] = TypeAdapter(AnyPolicy)
SHOWN: Final = 2000
"""Most characters of an answer that are kept to be shown."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be asked: a policy's configuration, and how the questions are made."""

    configuration: str
    seed: int = 1
    each: int = 12
    events: int = 500
    backwards: bool = False


class Fault(Broken, frozen=True, kw_only=True):
    """A broken rule, and the question after which it was; -1: before any."""

    index: int = -1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: the first fault of each rule, and each answer's digest and beginning."""

    asked: int
    decided: int
    faults: tuple[Fault, ...]
    digests: tuple[str, ...]
    answers: tuple[str, ...]


def situations(policy: BasePolicy, task: Task) -> list[Situation]:
    """Return the questions, the same in every process."""
    labels = (policy.label, *KINDS)
    asked = list(made_up(labels, seed=task.seed, each=task.each))
    return asked + lived(policy.label, seed=task.seed, events=task.events)


def examine(task: Task) -> Outcome:
    """Ask everything twice, and return what came of it."""
    policy = ADAPTER.validate_json(task.configuration)
    faults: dict[Rule, Fault] = {}
    for broken in _configured(policy):
        faults.setdefault(broken.rule, Fault(rule=broken.rule, why=broken.why))
    asked = situations(policy, task)
    told = [""] * len(asked)
    order = range(len(asked) - 1, -1, -1) if task.backwards else range(len(asked))
    sizes = []
    for turn in range(2):
        for index in order:
            for broken in _ask(policy, asked[index], told, index, first=turn == 0):
                faults.setdefault(broken.rule, Fault(rule=broken.rule, why=broken.why, index=index))
        sizes.append(_kept(policy))
    if sizes[1] > sizes[0]:
        why = f"asked the same once more, it has grown from {sizes[0]:,} to {sizes[1]:,} characters"
        faults.setdefault("bounded", Fault(rule="bounded", why=why))
    return Outcome(
        asked=len(asked),
        decided=sum(answer not in {"", "None"} for answer in told),
        faults=tuple(faults.values()),
        digests=tuple(hashlib.sha256(answer.encode()).hexdigest()[:16] for answer in told),
        answers=tuple(answer[:SHOWN] for answer in told),
    )


def main() -> None:
    """Read a task as JSON, answer with the outcome as JSON: what a child process does."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    real, sys.stdout = sys.stdout, sys.stderr  # what a policy prints is no part of the answer
    outcome = examine(task)
    real.buffer.write(msgspec.json.encode(outcome))
    real.flush()


def _configured(policy: BasePolicy) -> Iterator[Broken]:
    try:
        again = ADAPTER.validate_json(policy.model_dump_json(by_alias=True))
    except ValidationError as error:
        yield Broken(rule="configuration", why=f"its own JSON is refused: {error.errors()[0]['msg']}")
        return
    if again.model_dump_json(by_alias=True) != policy.model_dump_json(by_alias=True):
        yield Broken(rule="configuration", why="what comes back from its JSON is another configuration")
    inner = getattr(policy, "inner", policy)
    if getattr(again, "inner", again) != inner:
        yield Broken(rule="configuration", why="what comes back from its JSON is another policy")
    if not inner.model_config.get("frozen"):
        yield Broken(rule="configuration", why="its model_config has `frozen` no more: a policy is a value")
    if policy.version < 1:
        yield Broken(rule="configuration", why=f"its version is {policy.version!r}, and counts from 1")


def _ask(policy: BasePolicy, situation: Situation, told: list[str], index: int, *, first: bool) -> Iterator[Broken]:
    """Ask both methods; note the answer of the first time, compare with it at the second."""
    state, record = situation.state, situation.record
    before = _fingerprint(state, record)
    itself = _itself(policy)
    answers: list[object] = []
    watch = Watch()
    asked: BasePolicy = getattr(policy, "inner", policy)  # itself: what stands before it mends its answers
    for method in (asked.decide, asked.opinion):
        try:
            with watch.over():
                answers.append(method(state, record))
        except Exception as error:  # noqa: BLE001 - whatever it raises is what is looked for
            answers.append(None)
            if not watch.touched:
                where = "decide" if method == asked.decide else "opinion"
                yield Broken(
                    rule="survives", why=f"{where} raised {type(error).__name__} at {record.event.kind}: {error}"
                )
    for kind, what in watch.touched.items():
        yield Broken(rule=kind, why=what)
    if _fingerprint(state, record) != before:
        yield Broken(rule="arguments", why="the state or the fact is another one after the question")
    elif _itself(policy) != itself:
        yield Broken(rule="arguments", why="its own fields are others after the question")
    text = " | ".join(dict.fromkeys(map(_text, answers)))  # both methods mostly say the same
    if not first:
        if text != told[index]:
            yield Broken(rule="repeatable", why=f"first {told[index][:SHOWN]}, then {text[:SHOWN]}")
        return
    told[index] = text
    for answer in answers:
        yield from judge(policy, state, record, answer)


def _text(answer: object) -> str:
    if isinstance(answer, Decision):
        try:
            return msgspec.json.encode(answer).decode()
        except (TypeError, ValueError, msgspec.MsgspecError):
            return repr(answer)
    return repr(answer)


def _fingerprint(state: Pipeline, record: Record) -> bytes:
    return msgspec.json.encode(state) + msgspec.json.encode(record.event)


def _itself(policy: BasePolicy) -> str:
    return policy.model_dump_json(by_alias=True)


def _kept(policy: BasePolicy) -> int:
    """Return how much a policy holds in itself, whatever it is."""
    inner = getattr(policy, "inner", policy)
    own: Sequence[object] = (vars(inner), getattr(inner, "__pydantic_private__", None))
    return sum(len(repr(each)) for each in own)
