"""From a fact to everything that follows from it: `react` asks the policies, arbitrates, and folds.

Rules 4 and 12 of the design: nothing acts without a stored decision; at most one active run a pipeline; a
suppressed wish stays until it is acted on, withdrawn or expired; slots go first come, first served within a
priority; commands about the active run never wait, cancelling before recovering.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from daemon.core import sequence, shadowing, shadows, wishes
from daemon.core.arrivals import counts
from daemon.core.commands import CancelRun, PreemptRun, ResumeRun, StartRun, WithdrawWish
from daemon.core.decisions import ARBITER, OPERATOR, SEQUENCE, Decision, Policies, Policy
from daemon.core.drafts import draft
from daemon.core.events import (
    TERMINAL,
    AnyEvent,
    ConfigurationChanged,
    DaemonStarted,
    DataWithdrawn,
    DecisionMade,
    OperatorRequested,
    Record,
    RunCancelled,
    RunResumed,
    RunStarted,
    ScheduleFired,
    StageEvent,
    StageSucceeded,
    TimerFired,
    run_of,
)
from daemon.core.operator import answer
from daemon.core.state import Pipeline, Run, State, Wish, stands, timer_key
from daemon.core.transition import evolve
from daemon.core.wishes import Proposal

SOURCE: Final = "/rewarm/daemon"

UNANSWERED: Final = Decision(
    verdict="not_possible",
    reason="No policy of this pipeline retrains now: periodic_retraining does, once there is a champion.",
)
NOTHING_TO_TRAIN: Final = Decision(
    verdict="not_possible",
    reason="Nothing waits that could be trained on, or no policy of this pipeline does: rewarm_replay trains on "
    "request; `retrain` asks for a training on everything.",
)
IN_SHADOW: Final = Decision(
    verdict="not_possible",
    reason="The policy that would start is in shadow: it decides and does not act until its `mode` is act.",
)
SHADOW: Final = "shadow"
"""What suppresses the commands of a policy that is not to act."""


def react(state: State, record: Record, policies: Policies) -> tuple[State, list[Record]]:
    """Return the state after all that follows from `record` (folded into `state` already), and those records."""
    reaction = _Reaction(state, record)
    if record.pipeline is not None:
        if record.pipeline in state.pipelines:
            reaction.pipeline(record.pipeline, policies)
    elif isinstance(record.event, ConfigurationChanged | DaemonStarted):
        for name in sorted(state.pipelines):
            reaction.pipeline(name, policies)
    else:
        return state, []
    reaction.grant()
    return reaction.state, reaction.records


class _Reaction:
    """The records that one fact brings, and the state as it grows with them."""

    __slots__ = ("cause", "hides", "records", "state")

    def __init__(self, state: State, cause: Record) -> None:
        self.state = state
        self.cause = cause
        self.records: list[Record] = []
        self.hides = False

    def emit(self, name: str, event: AnyEvent) -> None:
        """Record and fold an event that follows from the cause."""
        record = Record(
            position=self.state.position + 1,
            recorded_at=self.cause.recorded_at,
            source=SOURCE,
            id=f"{self.cause.position}.{len(self.records)}",
            pipeline=name,
            cause=self.cause.position,
            event=event,
        )
        self.records.append(record)
        self.state = evolve(self.state, record)

    def decide(self, name: str, proposal: Proposal, suppressed_by: str | None = None, *, shadow: bool = False) -> None:
        """Record a decision as it was made."""
        label, version, decision = proposal
        self.emit(
            name,
            DecisionMade(
                policy=label,
                policy_version=version,
                verdict=decision.verdict,
                reason=decision.reason,
                inputs=decision.inputs,
                thresholds=decision.thresholds,
                commands=decision.commands,
                wakes=decision.wakes,
                suppressed_by=suppressed_by,
                run=sequence.about(self.state.pipelines[name], decision, self.cause.event),
                shadow=shadow,
            ),
        )

    def pipeline(self, name: str, policies: Policies) -> None:
        """Ask everyone who has a say in a pipeline, and record what follows."""
        starters = []
        acts, asked = policies.get(name, ()), []
        self.hides = shadowing.hides(self.state.pipelines[name])
        if self.hides:
            shadowed = [policy for policy in acts if getattr(policy, "shadow", False)]
            asked = self._in_shadow(name, shadowed)
            acts = [policy for policy in acts if policy not in shadowed]
        if proposals := self._proposals(name, acts, [decision for _, decision in asked]):
            starters = [p for p in proposals if _starts(p[2])]
            others = [p for p in proposals if not _starts(p[2])]
            for proposal in sorted(others, key=lambda p: not any(isinstance(c, CancelRun) for c in p[2].commands)):
                self._immediate(name, proposal)
        self._advance(name)
        advanced = len(self.records)
        if starters:
            self._wish(name, starters)
        self._stale(name)
        if len(self.records) > advanced:
            self._advance(name)
        for policy, decision in asked:
            self._note(name, policy, decision)

    def _proposals(self, name: str, policies: Sequence[Policy], shadowed: Sequence[Decision]) -> list[Proposal]:
        pipeline, cause = self._acting(name), self.cause
        asked = cause.event if isinstance(cause.event, OperatorRequested) else None
        found: list[Proposal] = []
        if asked is not None:
            decision = answer(pipeline, asked)
            if decision is not None:
                found.append((OPERATOR, 1, decision))
        if pipeline.settings is None or not _counted(pipeline, cause.event):
            return found
        for policy in policies:
            try:  # and not by `_ask`: this is done with every fact
                decision = policy.decide(pipeline, cause)
            except Exception as error:  # noqa: BLE001 - a user's policy may raise anything
                decision = _raised(error, cause.event)
            if decision is not None:
                found.append((policy.label, policy.version, decision))
        if asked is not None and asked.verb in {"retrain", "train"} and not any(_answers(each) for _, _, each in found):
            unanswered = UNANSWERED if asked.verb == "retrain" else NOTHING_TO_TRAIN
            found.append((OPERATOR, 1, IN_SHADOW if any(map(_starts, shadowed)) else unanswered))
        return found

    def _acting(self, name: str) -> Pipeline:
        """Return the pipeline as those that act are shown it."""
        pipeline = self.state.pipelines[name]
        return shadowing.acting(pipeline) if self.hides else pipeline

    def _in_shadow(self, name: str, policies: Sequence[Policy]) -> list[tuple[Policy, Decision]]:
        """Ask policies in shadow, each of the pipeline as it would have left it, had it acted."""
        pipeline, cause = self.state.pipelines[name], self.cause
        if pipeline.settings is None or not _counted(pipeline, cause.event):
            return []
        now = cause.recorded_at
        answers = [(policy, _ask(policy, shadows.view(pipeline, policy.label, now), cause)) for policy in policies]
        return [(policy, decision) for policy, decision in answers if decision is not None]

    def _note(self, name: str, policy: Policy, decision: Decision) -> None:
        """Record what a policy in shadow decided; what it would have done is done to nothing but its view."""
        pipeline, now = self.state.pipelines[name], self.cause.recorded_at
        run = run_of(self.cause.event)
        if run in decision.wakes and (pipeline.active is None or pipeline.active.run != run):
            # The run has ended meanwhile, and whoever waited for it would.
            decision = replace(decision, wakes={key: at for key, at in decision.wakes.items() if key != run})
        seen = shadows.view(pipeline, policy.label, now)
        if shadowing.known(pipeline, policy.label, seen, decision, self.cause.event):
            return
        obstacle = shadowing.obstacle(pipeline, seen, decision, self.state.position)
        if obstacle is not None:
            if not stands(pipeline, policy.label, decision.verdict, decision.wakes):
                idle = replace(decision, commands=())
                self.decide(name, (policy.label, policy.version, idle), obstacle, shadow=True)
            return
        self.decide(name, (policy.label, policy.version, decision), SHADOW if decision.commands else None, shadow=True)
        if shadowing.starts(decision):
            # Asked again at once, so that it may ask to be woken: no run begins and ends to be asked with.
            pipeline = self.state.pipelines[name]
            after = _ask(policy, shadows.view(pipeline, policy.label, now), self.cause)
            if after is not None and not after.commands:
                self._note(name, policy, after)

    def _immediate(self, name: str, proposal: Proposal) -> None:
        label, _, decision = proposal
        pipeline = self.state.pipelines[name]
        if not decision.commands:
            if label == OPERATOR or not stands(pipeline, label, decision.verdict, decision.wakes):
                self.decide(name, proposal)  # a person is answered every time
            return
        obstacle = next((why for c in decision.commands if (why := sequence.applicable(pipeline, c))), None)
        if obstacle is not None:
            self.decide(name, (label, proposal[1], replace(decision, commands=())), obstacle)
            return
        self.decide(name, proposal)
        for event in sequence.consequences(pipeline, decision):
            self.emit(name, event)

    def _advance(self, name: str) -> None:
        while (step := sequence.advance(self._acting(name))) is not None:
            if isinstance(step, Decision):
                self.decide(name, (SEQUENCE, 1, step))
                for event in sequence.consequences(self.state.pipelines[name], step):
                    self.emit(name, event)
                continue
            self.emit(name, step)

    def _wish(self, name: str, starters: Sequence[Proposal]) -> None:
        standing = self.state.pipelines[name]
        fresh = [p for p in starters if not wishes.stands(standing, p)]
        if not fresh:
            return
        trial = _Reaction(self.state, self.cause)
        for proposal in fresh:
            trial.decide(name, proposal)
        waiting = trial.state.pipelines[name].wishes
        trial.grant()
        started = {e.event.command for e in trial.records if isinstance(e.event, RunStarted | RunResumed)}
        for proposal in fresh:
            wish = next(waiting[key] for key in wishes.keys(proposal))
            granted = wish.command in started
            void = wishes.withdrawn(trial.records, wishes.keys(proposal))
            self.decide(name, proposal, None if granted else void or self._hindrance(self.state.pipelines[name]))
            if not granted and void is None:
                self._preempt(name, proposal)

    def _hindrance(self, pipeline: Pipeline) -> str:
        if pipeline.settings is None:
            return "the pipeline is not configured"
        if pipeline.paused is not None:
            return f"paused by {pipeline.paused}"
        if pipeline.active is not None:
            return f"run {pipeline.active.run} is active"
        busy = sorted(p.active.run for p in self.state.pipelines.values() if p.active is not None)
        if len(busy) >= self.state.slots:
            return f"no free slot: {', '.join(busy)}"
        return "another wish goes first"

    def _preempt(self, name: str, proposal: Proposal) -> None:
        run = self.state.pipelines[name].active
        wanted = max((c.intent.priority for c in proposal[2].commands if isinstance(c, StartRun)), default=None)
        if run is None or wanted is None or run.stop is not None or not run.preemptible:
            return
        if wanted <= run.priority or sequence.unpreemptible(self.state.pipelines[name], run) is not None:
            return
        decision = Decision(
            verdict="preempt",
            reason=f"{proposal[0]} has priority {wanted} over {run.priority} of run {run.run}.",
            inputs={"priority": wanted, "preempted": run.preempted},
            thresholds={"priority": run.priority, "preempted": sequence.MAX_PREEMPTIONS},
            commands=(PreemptRun(run=run.run),),
        )
        self.decide(name, (ARBITER, 1, decision))

    def _stale(self, name: str) -> None:
        """Cancel a run whose champion changed under it, or whose data was withdrawn; its wish stands again."""
        pipeline = self.state.pipelines[name]
        run = pipeline.active
        if run is None or run.promoted or run.stop == "cancel" or (run.held and not sequence.orphaned(pipeline, run)):
            return
        version = pipeline.champion.version if pipeline.champion else None
        if version != run.plan.parent:
            reason = f"The champion changed from version {run.plan.parent} to {version} under the run."
        elif _samples(pipeline, run, self.cause.event):
            reason = "The run trains on an arrival that was withdrawn: it begins again without it."
        else:
            return
        decision = Decision(
            verdict="cancelled",
            reason=reason,
            inputs={"champion": version},
            thresholds={"champion": run.plan.parent},
            commands=(CancelRun(run=run.run, again=not run.held),),
        )
        self.decide(name, (ARBITER, 1, decision))

    def grant(self) -> None:
        """Give free slots to wishes until there is no slot or no wish left."""
        while (choice := wishes.choose(self.state, self.cause.recorded_at)) is not None:
            name, key, wish = choice
            pipeline = self.state.pipelines[name]
            if wish.expires(self.cause.recorded_at):
                self._drop(name, key, f"The wish expired at {wish.expires_at}.")
            elif wishes.orphaned(pipeline, wish):
                self._drop(name, key, f"Policy {wish.policy} is not configured any more, or is in shadow.")
            elif (taken := wishes.taken(pipeline, wish, self.cause.recorded_at)) is not None:
                self._drop(name, key, taken)
            elif wish.resume is not None:
                self._resume(name, key, wish)
            elif wish.intent is not None:
                plan = draft(pipeline, wish.intent, self.state.position)
                if isinstance(plan, str):
                    self._drop(name, key, f"The wish is void: {plan}.")
                    continue
                self.emit(
                    name,
                    RunStarted(
                        run=f"{name}-{self.cause.position}",
                        policy=wish.policy,
                        command=wish.command,
                        wished_at=wish.since,
                        passed_over=wish.passed_over,
                        intent=wish.intent,
                        plan=plan,
                    ),
                )

    def _resume(self, name: str, key: str, wish: Wish) -> None:
        pipeline = self.state.pipelines[name]
        version = pipeline.champion.version if pipeline.champion else None
        held, yielded = pipeline.held, pipeline.yielded
        if held is not None and held.run == wish.resume:
            unchanged = version == held.plan.parent or "evaluate" not in held.plan.stages
            stage = sequence.GATED if unchanged else "evaluate"
            self.emit(name, RunResumed(run=held.run, command=wish.command, stage=stage, forced=wish.forced))
        elif yielded is not None and yielded.run == wish.resume:
            used = yielded.plan.spans and pipeline.used_upto >= max(span.upto for span in yielded.plan.spans)
            if version != yielded.plan.parent or used:
                reason = "The champion or the pending data changed while the run had yielded."
                self.emit(name, RunCancelled(run=yielded.run, reason=reason, again=True))
            else:
                self.emit(name, RunResumed(run=yielded.run, command=wish.command, stage=yielded.stage))
        else:
            self._drop(name, key, f"Run {wish.resume} waits no longer.")

    def _drop(self, name: str, key: str, reason: str) -> None:
        decision = Decision(verdict="withdrawn", reason=reason, commands=(WithdrawWish(wish=key),))
        self.decide(name, (ARBITER, 1, decision))


def _counted(pipeline: Pipeline, event: AnyEvent) -> bool:
    """Return whether the fold took the fact in: policies are not asked about outcomes of an attempt that is past."""
    if isinstance(event, StageEvent):
        run = pipeline.active
        if run is None or event.run != run.run or event.stage != run.stage:
            return False
        if event.attempt != run.attempts.get(run.stage):
            return False
        return run.order is not None or (isinstance(event, TERMINAL) and run.done == isinstance(event, StageSucceeded))
    if isinstance(event, TimerFired):
        return timer_key(event.policy, event.key) not in pipeline.timers
    if isinstance(event, ScheduleFired):
        schedule = pipeline.schedules.get(event.policy)
        return schedule is not None and schedule.last == event.scheduled_for
    return True


def _samples(pipeline: Pipeline, run: Run, event: AnyEvent) -> bool:
    """Return whether the training that goes on draws from the arrival that was withdrawn just now."""
    if not isinstance(event, DataWithdrawn) or event.arrival is None or run.stage != "train" or run.order is None:
        return False
    if event.account is None:
        return counts(pipeline, run.plan.spans, event.arrival)
    return event.account != "set_aside" and run.plan.training.replay > 0


def _ask(policy: Policy, pipeline: Pipeline, cause: Record) -> Decision | None:
    """Return a policy's answer; what it raises stands for it."""
    try:
        return policy.decide(pipeline, cause)
    except Exception as error:  # noqa: BLE001 - a user's policy may raise anything
        return _raised(error, cause.event)


def _raised(error: Exception, event: AnyEvent) -> Decision:
    """Return what stands for the answer of a policy that raised: it must not stop everybody else."""
    reason = f"The policy raised {type(error).__name__}: {error}"[:1000].removesuffix(".") + "."
    return Decision(verdict="raised", reason=reason, inputs={"event": event.kind})


def _starts(decision: Decision) -> bool:
    return any(isinstance(command, StartRun | ResumeRun) for command in decision.commands)


def _answers(decision: Decision) -> bool:
    """Return whether it does what a person asks for: a run that looks already trains then, and none has to start."""
    return _starts(decision) or decision.verdict == "asked"
