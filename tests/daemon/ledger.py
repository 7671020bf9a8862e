"""A loop over one pipeline, and a book of our own about each arrival: where it is, and as how much."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from daemon import dead_letters
from daemon.completion import completer
from daemon.core.commands import RejectRun, RunStage, StartRun
from daemon.core.decisions import Decision
from daemon.core.encoding import encode
from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    ModelPromoted,
    ModelRejected,
    OperatorRequested,
    PipelineSettings,
    PolicySettings,
    Record,
    StageFailed,
    StageSucceeded,
)
from daemon.core.plans import Amount, Checkpoint, Intent, Schedule, Training
from daemon.core.state import Pipeline, State, free_tokens
from daemon.dispatch.specification import specify
from daemon.door import Answer, Door, Input, Letter, Offer
from daemon.journal.base import digest, scan
from daemon.journal.memory import MemoryJournal
from daemon.loop import Loop
from daemon.sources.queue import Inbox
from stages.run_folder import Arrival, Specification

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHA = "0" * 64
STAGES = ("ingest", "train", "promote")


class Trainer:
    """Trains on whatever is free, and promotes, refuses or gives up as it is told."""

    label = "trainer"
    version = 1
    verdict = "promote"

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the wish, the gate's word, or another attempt at ingest."""
        run = state.active
        if run is not None and isinstance(record.event, StageSucceeded) and record.event.stage == "train":
            if self.verdict == "reject":
                return Decision(verdict="reject", reason="It is told to.", commands=(RejectRun(run=run.run),))
            return Decision(
                verdict="promote", reason="It is.", commands=(RunStage(run=run.run, stage="promote", attempt=1),)
            )
        if run is not None and isinstance(record.event, StageFailed) and run.attempts[run.stage] < 2:
            again = RunStage(run=run.run, stage=run.stage, attempt=2)
            return Decision(verdict="again", reason="Once more.", commands=(again,))
        if not free_tokens(state) or state.failed_upto >= state.last_arrival:
            return None
        schedule = Schedule(kind="constant", peak=1.0, floor=1.0, plateau=1.0)
        training = Training(tokens=0, batch=1, context=8, replay=0.0, schedule=schedule, optimiser="keep", seed=0)
        intent = Intent(kind="increment", start="champion" if state.champion else "scratch", training=training)
        return Decision(verdict="due", reason="There is data.", commands=(StartRun(intent=intent),))


class Ledger:
    """A loop over one pipeline, and a book of our own about each arrival."""

    def __init__(self, root: Path) -> None:
        self.journal = MemoryJournal()
        self.serial = 0
        self.root = root
        self.trainer = Trainer()
        self.door = Door(pipelines={"p": None}, roots=(root,))
        self.loop = Loop(
            journal=self.journal,
            state=State(),
            policies={"p": (self.trainer,)},
            inbox=Inbox(),
            receive=self.door.receive,
            complete=completer(self.door, self.journal),
            observers=(),
            now=lambda: NOON + timedelta(seconds=self.serial),
            forget=lambda: None,
            housekeeping=lambda: None,
        )
        policy = PolicySettings(name="trainer", kind="trainer", version=1, configuration="{}")
        known = {"p": PipelineSettings(stages=STAGES, policies=(policy,))}
        self.loop.tell(ConfigurationChanged(hash="h", slots=1, pipelines=known))
        self.place: dict[int, str] = {}
        """Arrival → pending, a run's name while it is that run's, past, aside, or gone."""
        self.amount: dict[int, Amount] = {}
        self.trained: dict[str, list[int]] = {}
        self.refused: set[int] = set()
        """What ingest refused: to be used again, it has to be retried."""
        self.kept: set[int] = set()
        """What the active run goes on replaying, though it has been made pending again since the run began."""

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline's state."""
        return self.loop.state.pipelines["p"]

    def tell(self, event: AnyEvent, source: str = "/test") -> Answer:
        """Let an event in."""
        return self.commit(self.offer(event, source))[0]

    def commit(self, *offers: Offer) -> tuple[Answer, ...]:
        """Let offers in, in one transaction."""
        return self.loop.commit([Input(offers=offers)]).answers[0]

    def offer(self, event: AnyEvent, source: str = "/test") -> Offer:
        """Offer an event: an outside one through the door, a stage's as its dispatcher does."""
        self.serial += 1
        if event.origin == "stage":
            return Offer(
                source=f"/rewarm/{source}",
                id=str(self.serial),
                where="outcome",
                digest=digest(encode(event)),
                event=event,
                pipeline="p",
            )
        given = msgspec.json.decode(encode(event), type=dict[str, msgspec.Raw])
        data = {key: value for key, value in given.items() if bytes(value) not in (b"null", b"[]", b"{}")}
        envelope = {"type": event.kind, "id": str(self.serial), "source": source, "subject": "p", "data": data}
        text = msgspec.json.encode({"specversion": "1.0", **envelope})
        return self.door.receive(Letter(text=text, where="t", source="/t", id="t", by="ann"))

    def arrive(self, number: int) -> None:
        """Let data arrive."""
        tokens, domain = 10 + number % 50, ("prose", "code")[number % 2]
        answer = self.tell(DataArrived(uri="file", domain=domain, tokens=tokens, bytes=tokens))
        self.place[answer.position] = "pending"
        self.amount[answer.position] = Amount(arrivals=1, bytes=tokens, tokens=tokens)

    def domain(self, arrival: int) -> str:
        """Return an arrival's domain."""
        (record,) = self.journal.records(arrival - 1, 1)
        assert isinstance(record.event, DataArrived)
        return record.event.domain

    def specification(self) -> Specification | None:
        """Return what the ordered attempt is told."""
        active = self.pipeline.active
        if active is None or active.order is None:
            return None
        return specify(self.journal, self.pipeline, active.order, state=self.root, roots=(self.root,), threads=1)

    def work(self, number: int) -> None:
        """Carry out the ordered attempt: ingest takes, refuses or dies at any arrival; other stages end either way.

        What is withdrawn while ingest is at work, it does not know of.
        """
        told = self.specification()
        if told is None:
            return
        names: dict[str, Any] = {"run": told.run, "stage": told.stage, "attempt": told.attempt}
        if told.stage == "ingest":
            for index, arrival in enumerate(told.arrivals):
                if (number >> index) % 7 == 6:
                    self.fail(names)
                    return
                if (number >> index) % 5 == 4:
                    self.withdraw(number >> index)
                self.ingest(names, arrival, number >> index)
            if not any(place == told.run for place in self.place.values()):
                self.fail(names)
                return
        elif told.stage == "train":
            mine = sorted(arrival for arrival, place in self.place.items() if place == told.run)
            assert sorted(shard.position for shard in told.new) == mine, "trained on what is not its own"
            past = {arrival for arrival, place in self.place.items() if place == "past"}
            past |= {arrival for arrival in self.kept if self.place[arrival] != "gone"}
            assert sorted(shard.position for shard in told.past) == sorted(past)
            if number % 5 == 4:
                self.fail(names)
                return
            self.trainer.verdict = "reject" if number % 3 == 2 else "promote"
        else:
            checkpoint = Checkpoint(path="c", sha256=SHA)
            version = self.pipeline.versions + 1
            promoted = ModelPromoted(
                **names,
                model_version=version,
                path="m",
                sha256=SHA,
                trunk=checkpoint,
                parent=told.plan.parent,
                spans=told.plan.spans,
                losses={},
            )
            self.tell(promoted)
        self.tell(StageSucceeded(**names, seconds=1.0))
        self.follow(told.run)

    def ingest(self, names: dict[str, Any], arrival: Arrival, number: int) -> None:
        """Take one arrival in, or refuse it."""
        gone = self.place[arrival.position] == "gone"
        assert gone or self.place[arrival.position] in ("pending", names["run"])
        estimate = arrival.counted or Amount(arrivals=1, bytes=arrival.bytes, tokens=arrival.tokens)
        assert estimate == self.amount[arrival.position], "told another amount than is counted"
        fields = {**names, "arrival": arrival.position, "domain": arrival.domain, "estimate": estimate}
        if number % 3 == 1:
            self.tell(DataRejected(**fields, reason="empty", message="It is empty."))
            self.place[arrival.position] = "gone" if gone else "aside"
            self.refused.add(arrival.position)
            return
        amount = Amount(arrivals=1, documents=1 + number % 4, bytes=number % 30, tokens=1 + number % 30)
        self.tell(DataIngested(**fields, amount=amount, duplicates=0, manifest="m", sha256=SHA))
        self.place[arrival.position] = "gone" if gone else names["run"]
        self.amount[arrival.position] = amount

    def fail(self, names: dict[str, Any]) -> None:
        """Let the attempt fail; a run without another attempt gives its arrivals back."""
        self.tell(StageFailed(**names, failure="transient", message="It died."))
        self.follow(names["run"])

    def follow(self, run: str) -> None:
        """Move what is a run's to where its end has brought it; what becomes past is remembered under its name."""
        pipeline = self.pipeline
        if pipeline.active is not None and pipeline.active.run == run:
            return
        self.kept.clear()
        champion = pipeline.champion is not None and pipeline.champion.run == run
        rejected = any(isinstance(r.event, ModelRejected) and r.event.run == run for r in scan(self.journal))
        mine = [arrival for arrival, where in self.place.items() if where == run]
        self.place.update(dict.fromkeys(mine, "past" if champion else "aside" if rejected else "pending"))
        self.trained[run] = mine if champion else []

    def settle(self, verb: str, number: int) -> None:
        """Retry or drop one of the arrivals that ingest refused."""
        letters = dead_letters.letters(self.journal)
        found = [each for each in letters if getattr(each.record.event, "reason", "") != "nothing_to_backfill"]
        if not found:
            return
        letter = found[number % len(found)]
        request = OperatorRequested(verb="retry" if verb == "retry" else "drop", dead_letter=letter.record.position)
        accepted = self.tell(request).outcome == "accepted"
        assert accepted == (letter.settled is None)
        if accepted and isinstance(letter.record.event, DataRejected):
            assert self.place[letter.record.event.arrival] == "aside"
            self.place[letter.record.event.arrival] = "pending" if verb == "retry" else "gone"
            self.refused.discard(letter.record.event.arrival)

    def withdraw(self, number: int) -> None:
        """Withdraw an arrival, wherever it is."""
        if not self.place:
            return
        arrival = list(self.place)[number % len(self.place)]
        (record,) = self.journal.records(arrival - 1, 1)
        self.tell(DataWithdrawn(arrival_source=record.source, arrival_id=record.id))
        self.place[arrival] = "gone"

    def backfill(self, number: int) -> None:
        """Ask for a period: what is past or set aside in it is pending, and nothing else is."""
        since = NOON + timedelta(seconds=number % (self.serial // 2 + 1))
        until = since + timedelta(seconds=1 + number // 7 % (2 * self.serial + 1))
        found = {record.position for record in scan(self.journal) if since <= record.recorded_at < until}
        wanted = [
            arrival
            for arrival, where in self.place.items()
            if arrival in found and where in {"past", "aside"} and arrival not in self.refused
        ]
        answer = self.tell(OperatorRequested(verb="backfill", since=since, until=until))
        assert (answer.outcome, answer.reason) == (
            ("accepted", "") if wanted else ("dead_letter", "nothing_to_backfill")
        )
        began = self.pipeline.active.started_position if self.pipeline.active else answer.position
        if began < answer.position:
            self.kept |= {arrival for arrival in wanted if self.place[arrival] == "past"}
        self.place.update(dict.fromkeys(wanted, "pending"))

    def roll_back(self) -> None:
        """Take the champion back, where there is one before it."""
        pipeline = self.pipeline
        if pipeline.champion is None or pipeline.previous is None:
            return
        aside = [a for a in self.trained[pipeline.champion.run] if self.place[a] == "past"]
        active = pipeline.active
        self.tell(OperatorRequested(verb="rollback"))
        self.place.update(dict.fromkeys(aside, "aside"))
        assert active is None or self.pipeline.active is not None

    def check(self) -> None:
        """Compare the state's accounts with the book."""
        pipeline = self.pipeline
        run = pipeline.active
        held = {"pending": pipeline.pending, "aside": pipeline.set_aside}
        held["past"] = pipeline.champion.past if pipeline.champion else {}
        for place, amounts in held.items():
            wanted: Counter[str] = Counter()
            tokens: Counter[str] = Counter()
            for arrival, where in self.place.items():
                # A run's arrivals count as pending until its model is promoted.
                if where == place or (place == "pending" and run is not None and where == run.run):
                    wanted[self.domain(arrival)] += 1
                    tokens[self.domain(arrival)] += self.amount[arrival].tokens
            assert {domain: amount.arrivals for domain, amount in amounts.items()} == dict(wanted), place
            assert {domain: amount.tokens for domain, amount in amounts.items()} == dict(tokens), place
