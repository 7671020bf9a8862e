"""`rewarm status`: where everything stands, in under a second and without a heavy library."""

import argparse
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from rich.console import RenderableType

from daemon.broker.positions import cursor_of
from daemon.cli.output import NOTHING, count, facts, heading, short, show, show_json, when
from daemon.cli.session import Daemon, configured, find_daemon, find_standby, perhaps_reading
from daemon.cli.shadow import InShadow, in_shadow, would_have
from daemon.config import Configuration
from daemon.core.decisions import AWAITING
from daemon.core.plans import Amounts, tokens
from daemon.core.shadowing import acting
from daemon.core.state import Model, Pipeline, State, Topic, topic_key
from daemon.core.state import Run as CoreRun
from daemon.journal.base import Reader
from daemon.restore import restore
from daemon.sources.schedule import Timetable, timetables

if TYPE_CHECKING:
    from daemon.cli.session import Commands


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The model that is live, and its losses."""

    version: int
    run: str
    sha256: str
    losses: dict[str, float]
    path: str
    promoted_at: datetime


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """Runs by how they ended, and how many are going on."""

    succeeded: int = 0
    failed: int = 0
    active: int = 0
    cancelled: int = 0


class Going(msgspec.Struct, frozen=True, kw_only=True):
    """The active run; steps of its present stage, and what its probe measured."""

    run: str
    kind: str
    stage: str
    attempt: int
    step: int
    steps: int
    started_at: datetime
    stopping: str | None = None
    shift: float | None = None
    near_duplicates: dict[str, float] = {}


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A wish that is not acted on yet, and what it waits for."""

    policy: str
    wants: str
    since: datetime
    waits_for: str


class PipelineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pipeline stands; pending and set aside in tokens per domain, `unit` is what losses are counted in.

    `approvals` are the policies whose start waits for a person, each with the position of the decision to approve;
    `shadows` those that decide and do not act.
    """

    champion: Champion | None = None
    unit: str = "nats per byte"
    runs: Runs = Runs()
    configured: bool = True
    paused: str | None = None
    frozen: str | None = None
    approvals: dict[str, int] = {}
    shadows: dict[str, InShadow] = {}
    pending: dict[str, int] = {}
    set_aside: dict[str, int] = {}
    active: Going | None = None
    held: str | None = None
    wishes: tuple[Waiting, ...] = ()
    timers: dict[str, datetime] = {}
    schedules: tuple[Timetable, ...] = ()
    last: str | None = None
    last_outcome: str | None = None
    ignored: dict[str, int] = {}


class Follower(msgspec.Struct, frozen=True, kw_only=True):
    """How many records a follower has not seen yet."""

    behind: int


class TopicStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a topic of Kafka was read: the sum of the positions of its partitions."""

    partitions: int = 0
    position: int = 0


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The journal: where it lies, its last position, and the facts that came again."""

    path: str
    position: int = 0
    duplicates: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All that `rewarm status` knows."""

    pipelines: dict[str, PipelineStatus]
    dead_letters: int
    followers: dict[str, Follower]
    daemon: Daemon
    standby: Daemon
    journal: JournalStatus
    degraded: dict[str, str] = {}
    kafka: dict[str, dict[str, TopicStatus]] = {}


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "champions, runs, what waits, and how far the followers are"
    parser = commands.add_parser("status", parents=[common], help=text, description=f"Show {text}.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show the status."""
    configuration = configured(arguments)
    with perhaps_reading(configuration) as reader:
        status = collect(configuration, reader)
    if arguments.json:
        show_json(status)
        return 0
    show(*render(status))
    return 0


def collect(configuration: Configuration, reader: Reader | None) -> Status:
    """Return the status that the journal, its lock and the followers' cursors tell."""
    state = restore(reader).state if reader is not None else State()
    names = {name: Pipeline(name=name) for name in configuration.settings.pipelines} | state.pipelines
    known = configuration.settings.pipelines
    now = datetime.now(UTC)
    followers = {}
    if configuration.tracking_uri is not None:
        followers["mlflow"] = Follower(behind=mlflow_behind(configuration, state.position))
    followers |= {f"notify:{name}": Follower(behind=lag) for name, lag in targets_behind(configuration, reader).items()}
    return Status(
        pipelines={name: describe(state, names[name], configured=name in known, now=now) for name in sorted(names)},
        dead_letters=state.dead_letters,
        followers=followers,
        daemon=find_daemon(configuration.journal),
        standby=find_standby(configuration.journal),
        journal=JournalStatus(
            path=str(configuration.journal),
            position=state.position,
            duplicates=reader.duplicates() if reader is not None else 0,
        ),
        degraded=state.degraded,
        kafka={
            each.settings.name: {
                topic.name: topic_read(state.topics.get(topic_key(each.settings.name, topic.name)), topic.name, reader)
                for topic in each.settings.topics
            }
            for each in configuration.kafka
        },
    )


def topic_read(known: Topic | None, name: str, reader: Reader | None) -> TopicStatus:
    """Return how far the journal has read a topic; the cluster is not asked, so this costs next to nothing."""
    if known is None or reader is None:
        return TopicStatus()
    positions = []
    for partition in itertools.count():  # they are numbered from 0 on
        position = reader.cursor(cursor_of(known.cluster, known.topic_id or name, partition))
        if position is None:
            break
        positions.append(position)
    return TopicStatus(partitions=len(positions), position=sum(positions))


def mlflow_behind(configuration: Configuration, head: int) -> int:
    """Return how many records MLflow has not yet: all of them while there is no store."""
    from ops.comparison import behind

    if configuration.tracking_uri is None:
        return 0
    lag = behind(head, configuration.tracking_uri, configuration.state)
    return head if lag is None else lag


def targets_behind(configuration: Configuration, reader: Reader | None) -> dict[str, int]:
    """Return how many records lie before each target of `notify`: 0 when it has been told of all that it asked for."""
    if not configuration.notify:
        return {}
    from ops.notify.cursor import behind

    return {
        each.name: behind(reader, configuration.state, each.target) if reader is not None else 0
        for each in configuration.notify
    }


def describe(state: State, pipeline: Pipeline, *, configured: bool, now: datetime | None = None) -> PipelineStatus:
    """Return where a pipeline stands, at `now` with its schedules."""
    runs = pipeline.runs
    return PipelineStatus(
        champion=_champion(pipeline.champion),
        unit=pipeline.settings.model.unit if pipeline.settings else PipelineStatus().unit,
        runs=Runs(
            succeeded=runs.succeeded,
            failed=runs.failed,
            active=int(pipeline.active is not None),
            cancelled=runs.cancelled,
        ),
        configured=configured,
        paused=pipeline.paused,
        frozen=pipeline.frozen,
        approvals={p: v.position for p, v in sorted(acting(pipeline).verdicts.items()) if v.verdict == AWAITING},
        shadows=in_shadow(pipeline),
        pending=_tokens(pipeline.pending),
        set_aside=_tokens(pipeline.set_aside),
        active=_going(pipeline.active),
        held=pipeline.held.run if pipeline.held else None,
        wishes=tuple(
            Waiting(
                policy=wish.policy,
                wants=f"resume {wish.resume}" if wish.resume else wish.intent.kind if wish.intent else NOTHING,
                since=wish.since_at,
                waits_for=hindrance(state, pipeline, wish.not_before),
            )
            for _, wish in sorted(pipeline.wishes.items())
        ),
        timers=dict(sorted(pipeline.timers.items())),
        schedules=() if now is None else timetables(state, pipeline.name, now),
        last=pipeline.last.run if pipeline.last else None,
        last_outcome=pipeline.last.outcome if pipeline.last else None,
        ignored=pipeline.ignored,
    )


def hindrance(state: State, pipeline: Pipeline, not_before: datetime | None = None) -> str:
    """Return what keeps a pipeline's wishes from starting now; of one of them, that its time has not come."""
    if pipeline.paused is not None:
        return f"the pause by {pipeline.paused}"
    if pipeline.active is not None:
        return f"run {pipeline.active.run}"
    if pipeline.settings is None:
        return "a configuration that names the pipeline"
    if not_before is not None and (state.recorded_at is None or not_before > state.recorded_at):
        return when(not_before)
    busy = sorted(other.active.run for other in state.pipelines.values() if other.active is not None)
    if len(busy) >= state.slots:
        return f"a free slot (taken by {', '.join(busy)})"
    return "the daemon's next turn"


def render(status: Status) -> list[RenderableType]:
    """Return the status for a person."""
    out: list[RenderableType] = []
    for name, pipeline in status.pipelines.items():
        out += [heading(name), facts(_rows(name, pipeline)), ""]
    if not status.pipelines:
        out += ["No pipeline is configured.", ""]
    journal = status.journal
    where = short(journal.path)
    told = f"{where}, {count(journal.position, 'record')}, {count(journal.duplicates, 'duplicate')}"
    rows = [("journal", told if journal.position else f"{where}: nothing is recorded yet")]
    dead = f"{count(status.dead_letters, 'dead letter')}: rewarm dead-letters list"
    rows += [("dead", dead)] if status.dead_letters else []
    rows += [(name, f"{count(follower.behind, 'record')} behind") for name, follower in status.followers.items()]
    rows += [
        ("kafka", f"{name}/{topic}: {_position(read)}")
        for name, topics in status.kafka.items()
        for topic, read in topics.items()
    ]
    daemon = status.daemon
    last = "" if daemon.running else ", when the last daemon ended"  # nobody has looked since
    rows += [("degraded", f"{name}{last}: {why}") for name, why in status.degraded.items()]
    rows += [("daemon", f"running, process {daemon.pid} on {daemon.host}" if daemon.running else "not running")]
    standby = status.standby
    rows += [("standby", f"waiting, process {standby.pid} on {standby.host}")] if standby.running else []
    out.append(facts(rows, indent=0, width=12))
    if not journal.position:
        out += ["", "To see it work: rewarm demo.  To keep it running: rewarm serve."]
    return out


def _position(read: TopicStatus) -> str:
    if not read.partitions:
        return "not read yet"
    return f"read up to {read.position:,} in {count(read.partitions, 'partition')}"


def losses(values: dict[str, float]) -> str:
    """Return losses in one line."""
    return " · ".join(f"{domain} {value:.4f}" for domain, value in sorted(values.items())) or NOTHING


def _rows(name: str, pipeline: PipelineStatus) -> list[tuple[str, str]]:
    champion = pipeline.champion
    rows = []
    if champion is None:
        rows.append(("champion", "none yet"))
    else:
        told = f"version {champion.version}, run {champion.run}, sha256 {champion.sha256[:12]}"
        rows.append(("champion", f"{told}, promoted {when(champion.promoted_at)}"))
        rows.append(("losses", f"{losses(champion.losses)} {pipeline.unit}"))
    runs = pipeline.runs
    ended = f"{runs.succeeded} succeeded, {runs.failed} failed, {runs.cancelled} cancelled"
    last = f"; last: {pipeline.last} {pipeline.last_outcome}" if pipeline.last else ""
    rows.append(("runs", ended + last))
    active = pipeline.active
    if active is not None:
        progress = f" {active.step:,}/{active.steps:,}" if active.steps else ""
        attempt = f", attempt {active.attempt}" if active.attempt > 1 else ""
        stopping = f", stopping ({active.stopping})" if active.stopping else ""
        rows.append(("active", f"{active.run} ({active.kind}): {active.stage}{progress}{attempt}{stopping}"))
        near = [f"{share:.1%} near-duplicates in {name}" for name, share in sorted(active.near_duplicates.items())]
        measured = [f"shift {active.shift:+.4f} {pipeline.unit}"] if active.shift is not None else []
        if measured or near:
            rows.append(("", "its data: " + ", ".join([*measured, *near])))
    waiting = " · ".join(f"{domain} {amount:,}" for domain, amount in sorted(pipeline.pending.items()))
    rows.append(("pending", f"{waiting} tokens" if waiting else "no data waits"))
    aside = " · ".join(f"{domain} {amount:,}" for domain, amount in sorted(pipeline.set_aside.items()))
    asks, who = pipeline.approvals.items(), "thaw, or for a person" if pipeline.frozen else "person"
    optional = {
        "set aside": f"{aside} tokens" if aside else None,
        "held": f"{pipeline.held} waits for a {who}: rewarm request approve {name}" if pipeline.held else None,
        "approval": ", ".join(f"{who}: rewarm request approve {name} --decision {at}" for who, at in asks) or None,
        "paused": f"by {pipeline.paused}" if pipeline.paused else None,
        "frozen": f"by {pipeline.frozen}: candidates are held" if pipeline.frozen else None,
        "note": None if pipeline.configured else "no longer configured",
    }
    rows += [(row, value) for row, value in optional.items() if value]
    rows += [("wish", f"{w.policy}: {w.wants}, waits for {w.waits_for}") for w in pipeline.wishes]
    rows += [("shadow", f"{policy} {would_have(each)}") for policy, each in pipeline.shadows.items()]
    rows += [("timer", f"{key} at {when(at)}") for key, at in pipeline.timers.items()]
    rows += [("schedule", timetable(each)) for each in pipeline.schedules]
    return rows


def timetable(schedule: Timetable) -> str:
    """Return a schedule in one line."""
    last = f", last {when(schedule.last)}" if schedule.last else ""
    due = f"; {count(schedule.due, 'tick')} due, told when a daemon runs" if schedule.due else ""
    return f"{schedule.policy}: {schedule.cron} ({schedule.timezone}), next {when(schedule.next)}{last}{due}"


def _tokens(amounts: Amounts) -> dict[str, int]:
    return {domain: tokens({domain: amount}) for domain, amount in sorted(amounts.items())}


def _champion(model: Model | None) -> Champion | None:
    if model is None:
        return None
    return Champion(
        version=model.version,
        run=model.run,
        sha256=model.sha256,
        losses=model.losses,
        path=model.path,
        promoted_at=model.promoted_at,
    )


def _going(run: CoreRun | None) -> Going | None:
    if run is None:
        return None
    return Going(
        run=run.run,
        kind=run.plan.kind,
        stage=run.stage,
        attempt=run.attempts.get(run.stage, 0),
        step=run.progress.step,
        steps=run.progress.steps,
        started_at=run.started_at,
        stopping=run.stop,
        shift=run.shift,
        near_duplicates=run.near_duplicates,
    )
