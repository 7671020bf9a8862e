"""`rewarm backup` and `rewarm restore`."""

import argparse
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon.cli.output import count, facts, program, short, show, show_json, size, warn, when
from daemon.cli.session import configured

if TYPE_CHECKING:
    from daemon.backup.files import Manifest
    from daemon.cli.session import Commands
    from daemon.config import Configuration


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `--json`: what the backup holds; `identity` is the journal's, after a restore its new one."""

    folder: str
    release: str
    taken_at: datetime
    identity: str
    position: int
    reducer: int
    state_hash: str
    files: int
    bytes: int
    problems: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add both commands."""
    text = "copy the journal and what its state needs, while the daemon runs"
    parser = commands.add_parser("backup", parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the backup; it must not be there yet")
    parser.add_argument("--verify", action="store_true", help="make none: check the one that is there")
    parser.set_defaults(run=backup)
    text = "put a backup where the configuration says that journal and state lie"
    parser = commands.add_parser("restore", parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the backup")
    parser.set_defaults(run=restore)


def backup(arguments: argparse.Namespace) -> int:
    """Take a backup, or check one: 1 when something is wrong with it."""
    folder: Path = arguments.folder
    if arguments.verify:
        from daemon.backup.put import check

        manifest, problems = check(folder)
        _tell(arguments, _answer(folder, manifest, problems=problems), "The backup is whole.")
        return 1 if problems else 0
    from daemon.backup.take import take

    configuration = configured(arguments)
    manifest = take(
        configuration.journal,
        configuration.state,
        folder.absolute(),
        release=version("rewarm"),
        now=lambda: datetime.now(UTC),
    )
    _tell(arguments, _answer(folder, manifest), "The backup was taken, and every file of it checked.")
    return 0


def restore(arguments: argparse.Namespace) -> int:
    """Put a backup back; what is left to a person is said."""
    from daemon.backup.put import put

    configuration = configured(arguments)
    folder: Path = arguments.folder
    done = put(folder, configuration.journal, configuration.state)
    answer = _answer(folder, done.manifest, hints=_hints(configuration, done.manifest.position))
    answer = msgspec.structs.replace(answer, identity=done.identity)
    _tell(arguments, answer, f"Restored; `{program()} serve` goes on from here.")
    return 0


def _hints(configuration: "Configuration", position: int) -> list[str]:
    """Return what came after the copy was taken, as far as it can be seen."""
    from daemon.backup.put import unread
    from ops.recording.cursor import read_cursor, sqlite_file

    hints = []
    uri = configuration.tracking_uri
    recorded = None if uri is None else read_cursor(uri, configuration.state)
    if uri is not None and recorded is not None and recorded > position:
        file = sqlite_file(uri)
        hints.append(
            f"MLflow at {uri if file is None else short(file)} has recorded up to position {recorded:,}, and the "
            f"restored journal ends at {position:,}: move that store away, or name another one; it is filled anew."
        )
    if configuration.kafka:
        hints.append(
            "Kafka is read again from where the copy stood, as far as its topics reach back: "
            f"`{program()} align` shows how much that is."
        )
    lost = unread(configuration.journal, configuration.spools)
    if lost:
        hints.append(
            f"{count(len(lost), 'spool file')} came after the copy, such as {short(lost[0])}: "
            "move them from processed/ back into the spool, and their events count."
        )
    return hints


def _answer(
    folder: Path, manifest: "Manifest", *, problems: list[str] | None = None, hints: list[str] | None = None
) -> Answer:
    return Answer(
        folder=str(folder),
        release=manifest.release,
        taken_at=manifest.taken_at,
        identity=manifest.identity,
        position=manifest.position,
        reducer=manifest.reducer,
        state_hash=manifest.state_hash,
        files=len(manifest.files),
        bytes=manifest.bytes,
        problems=tuple(problems or ()),
        hints=tuple(hints or ()),
    )


def _tell(arguments: argparse.Namespace, answer: Answer, done: str) -> None:
    if arguments.json:
        show_json(answer)
        return
    show(
        facts(
            [
                ("folder", short(answer.folder)),
                ("taken", f"{when(answer.taken_at)} by rewarm {answer.release}"),
                ("journal", f"{answer.identity}, {count(answer.position, 'record')}"),
                ("state", answer.state_hash),
                ("files", f"{answer.files:,}, {size(answer.bytes)}"),
            ]
        )
    )
    for problem in answer.problems:
        warn(problem)
    if not answer.problems:
        show(done)
    for hint in answer.hints:
        show(hint)
