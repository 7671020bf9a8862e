"""`rewarm doctor`: looks at everything that rewarm stands on, and says what to do where something is wrong."""

import argparse
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table
from rich.text import Text

from daemon.cli.checks import Check, Level
from daemon.cli.kafka_checks import kafka_checks
from daemon.cli.output import count, short, show, show_json, size
from daemon.cli.positions import cursors
from daemon.cli.root_checks import root_checks
from daemon.cli.session import configured, find_daemon, perhaps_reading
from daemon.config import Configuration
from daemon.core.errors import JournalError, RewarmError
from daemon.core.state import State, dump, fingerprint
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.journal.base import Reader, Snapshot, scan
from daemon.journal.sqlite import open_reader, verify
from daemon.restore import restore
from ops.comparison import Comparison

if TYPE_CHECKING:
    from daemon.cli.session import Commands

MOST_FOLDED = 200_000
SCARCE = 1 << 30
RESOLVE_SECONDS = 5.0
TOO_LITTLE = 64 << 20
NETWORKED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "glusterfs", "lustre"})
MARKS: dict[Level, tuple[str, str]] = {"ok": ("✓", "green"), "note": ("·", "yellow"), "wrong": ("✗", "red")}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All checks, how many are wrong, and the comparison with MLflow where it could be made."""

    wrong: int
    checks: tuple[Check, ...]
    mlflow: Comparison | None = None


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "check journal, snapshots, spool, Kafka, disk, worker, MLflow and GPU; exit 1 when something is wrong"
    parser = commands.add_parser("doctor", parents=[common], help=text, description=text)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look at everything and tell."""
    report = examine(configured(arguments))
    if arguments.json:
        show_json(report)
    else:
        show(_table(report.checks), "", _verdict(report))
    return 1 if report.wrong else 0


def examine(configuration: Configuration) -> Report:
    """Return what is well and what is not."""
    checks = [Check(name="configuration", level="ok", message=f"{configuration.file or 'the defaults'} is valid")]
    comparison = None
    if configuration.journal.exists():
        checks += journal_checks(configuration)
        if not any(check.level == "wrong" for check in checks):
            comparison, check = mlflow_check(configuration)
            checks.append(check)
    else:
        checks.append(
            Check(
                name="journal",
                level="note",
                message=f"there is none at {short(configuration.journal)} yet",
                advice="`rewarm demo` or `rewarm serve` makes it",
            )
        )
    checks += [
        daemon_check(configuration),
        worker_check(configuration),
        *spool_checks(configuration),
        *place_checks(configuration),
        *root_checks(configuration.remotes),
        *notify_checks(configuration),
        *source_checks(configuration),
    ]
    checks += [gpu_check()]
    return Report(wrong=sum(check.level == "wrong" for check in checks), checks=tuple(checks), mlflow=comparison)


def journal_checks(configuration: Configuration) -> Iterator[Check]:
    """Yield whether the journal is whole, its snapshots are true, and what it holds that wants a look."""
    path = configuration.journal
    try:
        faults = verify(path)
    except RewarmError as error:
        faults = [str(error)]
    if faults:
        advice = "stop the daemon, restore the file from a backup; MLflow's segments hold every transition too"
        yield Check(name="journal", level="wrong", message="; ".join(faults[:3]), advice=advice)
        return
    try:
        with open_reader(path) as reader:
            state = restore(reader).state
            told = f"{count(state.position, 'record')}, {count(reader.duplicates(), 'duplicate')}, sound"
            yield Check(name="journal", level="ok", message=f"{short(path)}: {told}")
            yield snapshot_check(reader, state.position)
    except RewarmError as error:
        yield Check(name="journal", level="wrong", message=str(error), advice="see the message")
        return
    if state.dead_letters:
        yield Check(
            name="dead letters",
            level="note",
            message=count(state.dead_letters, "input was refused", "inputs were refused"),
            advice="rewarm dead-letters list",
        )


def snapshot_check(reader: Reader, head: int) -> Check:
    """Return whether the snapshots say what the records say: folded again from the start where that is cheap."""
    snapshots = reader.snapshots(REDUCER_VERSION)
    if not snapshots:
        return Check(name="snapshots", level="ok", message="none yet: the state is folded from the start")
    bad = [s for s in snapshots if fingerprint(s.state) != s.hash]
    newest = snapshots[0]
    age = f"the newest is {count(head - newest.position, 'record')} old"
    advice = "nothing is lost: a bad snapshot is skipped and the state folded from the records; report it as a bug"
    if bad:
        message = f"the hash of the one at {bad[0].position} does not match"
        return Check(name="snapshots", level="wrong", message=message, advice=advice)
    if newest.position > MOST_FOLDED:
        return Check(name="snapshots", level="ok", message=f"{len(snapshots)} with matching hashes, {age}")
    wrong = _folded_otherwise(reader, snapshots)
    if wrong:
        message = f"folding the records again gives another state at {wrong}"
        return Check(name="snapshots", level="wrong", message=message, advice=advice)
    return Check(name="snapshots", level="ok", message=f"{len(snapshots)}, the same as the records folded again; {age}")


def mlflow_check(configuration: Configuration) -> tuple[Comparison | None, Check]:
    """Return the comparison of every transition with MLflow, and what it means."""
    from ops.comparison import compare

    name = "mlflow"
    if configuration.tracking_uri is None:
        return None, Check(name=name, level="note", message="nothing is recorded: no tracking_uri is configured")
    try:
        with open_reader(configuration.journal) as reader:
            found = compare(reader, configuration.tracking_uri)
    except Exception as error:  # noqa: BLE001 - whatever MLflow raises means that it does not answer
        message = f"it does not answer: {type(error).__name__}: {error}"
        return None, Check(name=name, level="wrong", message=message, advice="check mlflow.tracking_uri")
    message = f"{found.recorded:,} of {count(found.transitions, 'transition')} recorded"
    if found.missing or found.differing:
        where = ", ".join(map(str, found.examples[:5]))
        message += f", {found.missing:,} missing, {found.differing:,} differing (at {where})"
        advice = "remove the MLflow store: the recorder rebuilds it from the journal"
        return found, Check(name=name, level="wrong", message=message, advice=advice)
    if found.behind:
        running = find_daemon(configuration.journal).running
        advice = "the recorder is catching up" if running else "the recorder goes on with the next `rewarm serve`"
        return found, Check(name=name, level="note", message=f"{message}, {found.behind:,} behind", advice=advice)
    return found, Check(name=name, level="ok", message=f"{message}, all the same, 0 behind")


def daemon_check(configuration: Configuration) -> Check:
    """Return who writes the journal."""
    daemon = find_daemon(configuration.journal)
    if not daemon.running:
        return Check(name="daemon", level="note", message="not running", advice="`rewarm serve` starts it")
    return Check(name="daemon", level="ok", message=f"process {daemon.pid} on {daemon.host} holds the journal's lock")


def worker_check(configuration: Configuration) -> Check:
    """Return whether a warm worker stands ready: without one a stage starts later, not never."""
    from daemon.dispatch.launcher import worker_alive

    if not configuration.settings.executor.warm_workers:
        return Check(name="worker", level="ok", message="none wanted: each stage is a fresh process")
    if worker_alive(configuration.state):
        return Check(name="worker", level="ok", message="warm")
    if find_daemon(configuration.journal).running:
        advice = f"the daemon starts one with the next stage; see {short(configuration.state / 'worker.log')}"
        return Check(name="worker", level="note", message="not running", advice=advice)
    return Check(name="worker", level="ok", message="not running: the daemon starts it")


def spool_checks(configuration: Configuration) -> Iterator[Check]:
    """Yield whether each spool can be written, renamed in and watched."""
    for spool in configuration.spools:
        if not spool.exists():
            yield Check(name="spool", level="note", message=f"{short(spool)} is made when the daemon starts")
        elif not os.access(spool, os.W_OK | os.X_OK):
            advice = f"give this user the right to write {spool}"
            yield Check(name="spool", level="wrong", message=f"{short(spool)} cannot be written", advice=advice)
        else:
            waiting = sum(1 for path in spool.iterdir() if path.is_file() and not path.name.startswith("."))
            refused = sum(1 for _ in (spool / "rejected").glob("*"))
            told = f"{count(waiting, 'file')} waiting, {refused:,} rejected"
            yield Check(name="spool", level="ok", message=f"{short(spool)}: {told}")


def place_checks(configuration: Configuration) -> Iterator[Check]:
    """Yield for each file system in use whether it is local and has room."""
    for name, path in (("journal's disk", configuration.journal.parent), ("state's disk", configuration.state)):
        place = next(p for p in (path, *path.parents) if p.exists())
        kind = filesystem(place)
        if kind in NETWORKED:
            advice = "its locks do not hold here: put it on a local disk"
            yield Check(name=name, level="wrong", message=f"{place} is on a network ({kind})", advice=advice)
            continue
        free = shutil.disk_usage(place).free
        level: Level = "ok" if free >= SCARCE else "note" if free >= TOO_LITTLE else "wrong"
        advice = "" if level == "ok" else "free some space: with none the daemon takes no more input"
        yield Check(name=name, level=level, message=f"{size(free)} free ({kind or 'unknown'})", advice=advice)


def source_checks(configuration: Configuration) -> Sequence[Check]:
    """Return what the daemon says of its sources, how the Kafka sources are, and how far each partition was read."""
    try:
        with perhaps_reading(configuration) as reader:
            state = State() if reader is None else restore(reader).state
            found = kafka_checks(configuration, state, cursors(reader))
    except JournalError:  # what is wrong with it is told already
        return kafka_checks(configuration, State(), cursors(None))
    running = find_daemon(configuration.journal).running
    return [*degraded_checks(state.degraded, found, running=running), *found]


def degraded_checks(degraded: Mapping[str, str], found: Sequence[Check], *, running: bool) -> Iterator[Check]:
    """Yield what the daemon says of its sources, without what was found here as well: each thing is told once."""
    known = {check.message for check in found}
    for name, why in sorted(degraded.items()):
        if why in known:
            continue
        if running:
            yield Check(name="source", level="wrong", message=f"{name}: {why}")
        else:
            yield Check(name="source", level="note", message=f"{name}, when the last daemon ended: {why}")


def notify_checks(configuration: Configuration) -> Iterator[Check]:
    """Yield for each target of `notify` whether its name has an address and its secret can be read."""
    for each in configuration.notify:
        from ops.notify.message import DeliveryError, read_keys, shown
        from ops.notify.post import resolve

        name, told = f"notify {each.name}", shown(each.url)
        try:
            keys = read_keys(each.secret_file)
            resolve(each.url, RESOLVE_SECONDS)
        except DeliveryError as error:
            advice = "until then nothing is sent: what happens meanwhile follows"
            yield Check(name=name, level="wrong", message=str(error), advice=advice)
        except OSError as error:
            message = f"{told} has no address: {error.strerror or 'nobody answers'}"
            yield Check(name=name, level="wrong", message=message, advice="check the url, and the name server")
        else:
            signed = "signed" if keys else "not signed: no secret_file is configured"
            yield Check(name=name, level="ok" if keys else "note", message=f"{told}, {signed}")


def filesystem(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the type of the file system that a path lies on, "" where the system does not say."""
    try:
        table = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    real = path.resolve()
    points = [(row[1].replace("\\040", " "), row[2]) for row in table if len(row) > 2]  # noqa: PLR2004 - fstab(5)
    fitting = [(len(point), kind) for point, kind in points if real.is_relative_to(point)]
    return max(fitting, default=(0, ""))[1]


def gpu_check(run_program: Callable[[list[str]], str] | None = None) -> Check:
    """Return which GPUs the driver sees; torch is not asked."""
    if run_program is None and shutil.which("nvidia-smi") is None:
        return Check(name="gpu", level="ok", message="none (no nvidia-smi): stages run on the CPU")
    try:
        ask = run_program or _output
        names = ask(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]).strip()
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name="gpu", level="note", message=f"nvidia-smi failed: {error}", advice="check the driver")
    return Check(name="gpu", level="ok", message="; ".join(names.splitlines()) or "the driver sees none")


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def _folded_otherwise(reader: Reader, snapshots: list[Snapshot]) -> int | None:
    """Return the position of a snapshot that the records contradict."""
    wanted = {snapshot.position: snapshot.hash for snapshot in snapshots}
    state = State()
    for record in scan(reader, upto=max(wanted)):
        state = evolve(state, record)
        if record.position in wanted and fingerprint(dump(state)) != wanted[record.position]:
            return record.position
    return None


def _table(checks: tuple[Check, ...]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark, colour = MARKS[check.level]
        told = Text(check.message)
        if check.advice:
            told.append(f"\n→ {check.advice}", style="dim" if check.level != "wrong" else "bold")
        table.add_row(Text(mark, style=colour), Text(check.name, style="bold"), told)
    return table


def _verdict(report: Report) -> str:
    if report.wrong:
        return f"{count(report.wrong, 'thing is', 'things are')} wrong."
    return "All is well."
