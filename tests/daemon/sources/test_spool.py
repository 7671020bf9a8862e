"""Files renamed in, read once, renamed out."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from daemon.core.errors import JournalCorrupt
from daemon.door import REFUSED, Door, Input, Offer
from daemon.sources import spool as module
from daemon.sources.queue import BATCH, Inbox
from daemon.sources.spool import Spool


class Bench:
    """A spool, and a loop that takes in what it puts: cursors move as in the journal."""

    def __init__(self, folder: Path, *, size: int = 64) -> None:
        self.folder = folder
        self.inbox = Inbox(size)
        self.cursors: dict[str, int] = {}
        self.offers: list[Offer] = []
        self.inputs: list[Input] = []
        self.reports: list[tuple[str, str | None]] = []
        self.boundaries: list[str] = []
        self.reported = threading.Event()
        self.spool = self.new()
        self.spool.prepare()

    def new(self) -> Spool:
        """Make a spool as a restarted daemon would."""
        return Spool(
            self.folder,
            door=Door(pipelines={"p": None}, roots=(self.folder,)),
            inbox=self.inbox,
            cursor=self.cursors.get,
            report=self._report,
            boundary=self.boundaries.append,
            poll=0.05,
        )

    def _report(self, name: str, reason: str | None) -> None:
        self.reports.append((name, reason))
        self.reported.set()

    def put(self, name: str, content: object) -> Path:
        """Rename a file into the spool."""
        path = self.folder.parent / f"{name}.new"
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(data)
        return path.rename(self.folder / name)

    def take(self) -> None:
        """Commit what waits, as the loop does."""
        for item in self.inbox.take(0):
            self.inputs.append(item)
            assert item.cursor is not None
            assert self.cursors.get(item.cursor.name) == item.cursor.expected
            self.cursors[item.cursor.name] = item.cursor.next
            refused = sum(offer.refusal is not None for offer in item.offers)
            if refused:
                name = REFUSED + item.cursor.name
                self.cursors[name] = self.cursors.get(name, 0) + refused
            self.offers += item.offers

    def work(self) -> None:
        """Scan and commit until nothing moves."""
        while self.spool.scan() or self.inbox.depth():
            self.take()

    def lying(self, where: str = ".") -> list[str]:
        """Return the files that lie in a folder of the spool."""
        return sorted(path.name for path in (self.folder / where).iterdir() if path.is_file())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench on an empty spool."""
    return Bench(tmp_path / "spool")


def event(number: int = 1, **fields: object) -> dict[str, object]:
    """Make an event in plain JSON."""
    return {"type": "drift.detected", "subject": "p", "data": {"metric": "m", "value": number}, **fields}


def accepted(bench: Bench) -> list[str]:
    """Return the ids of what was accepted."""
    return [offer.id for offer in bench.offers if offer.event is not None]


def test_a_file_is_read_and_moved_out_once_it_is_stored(bench: Bench) -> None:
    """It stays where it is until the journal has it; then it goes to `processed`."""
    path = bench.put("a.json", event())
    assert not bench.spool.scan()
    assert path.exists()
    assert not bench.spool.scan()
    assert bench.inbox.depth() == 1
    bench.take()
    assert path.exists()
    assert bench.spool.scan()
    assert (bench.lying(), bench.lying("processed"), bench.lying("rejected")) == ([], ["a.json"], [])
    assert bench.boundaries == ["spool.before_move", "spool.after_move"]
    assert not bench.spool.scan()


def test_a_bad_file_goes_to_rejected(bench: Bench) -> None:
    """One bad line among good ones is enough: somebody should look at it; the good ones count."""
    lines = [json.dumps(event(1)), "nonsense", json.dumps(event(2))]
    bench.put("a.jsonl", "\n".join(lines).encode())
    bench.work()
    assert (bench.lying("processed"), bench.lying("rejected")) == ([], ["a.jsonl"])
    assert len(accepted(bench)) == 2
    (letter,) = [offer for offer in bench.offers if offer.refusal is not None]
    assert letter.where == "a.jsonl:2"
    assert letter.text == b"nonsense"


def test_the_same_content_twice_counts_once(bench: Bench) -> None:
    """At the same time, later, or under another name: the second file is moved and read no more."""
    bench.put("a.json", event())
    bench.put("b.json", event())
    bench.work()
    bench.put("a.json", event())
    bench.work()
    assert len(bench.offers) == 1
    assert bench.lying("processed") == ["a.1.json", "a.json", "b.json"]


def test_names_that_are_taken_get_a_number(bench: Bench) -> None:
    """Other content under an old name overwrites nothing."""
    for number in range(4):
        bench.put("a.tar.json", event(number))
        bench.work()
    assert bench.lying("processed") == ["a.tar.1.json", "a.tar.2.json", "a.tar.3.json", "a.tar.json"]
    contents = {(bench.folder / "processed" / name).read_bytes() for name in bench.lying("processed")}
    assert len(contents) == 4


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("one.json", json.dumps(event()), 1),
        ("pretty.json", json.dumps(event(), indent=2), 1),
        ("pretty-windows.json", json.dumps(event(), indent=2).replace("\n", "\r\n"), 1),
        ("array.json", json.dumps([event(1), event(2)]), 2),
        ("pretty-array.json", json.dumps([event(1), event(2)], indent=2), 2),
        ("empty-array.json", "[]", 0),
        ("lines.jsonl", json.dumps(event(1)) + "\n" + json.dumps(event(2)), 2),
        ("lines.json", json.dumps(event(1)) + "\n" + json.dumps(event(2)) + "\n", 2),
        ("lines", json.dumps(event(1)) + "\r\n" + json.dumps(event(2)) + "\r\n", 2),
        ("blank.jsonl", "\n\n" + json.dumps(event(1)) + "\n   \n\n" + json.dumps(event(2)) + "\n\n", 2),
    ],
)
def test_the_forms_of_a_file(bench: Bench, name: str, content: str, count: int) -> None:
    """One document, an array of them, or one a line; blank lines are nothing."""
    bench.put(name, content.encode())
    bench.work()
    assert len(accepted(bench)) == count
    assert len(set(accepted(bench))) == count
    assert bench.lying("processed") == [name]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.json", b"", "empty"),
        ("blank.json", b" \n\n", "empty"),
        ("broken.json", b'{"type": "drift.det', "malformed"),
        ("broken-array.json", b'[{"type": "drift.detected"}', "wrong_envelope"),
        ("binary", bytes(range(256)), "malformed"),
    ],
)
def test_files_of_nothing_that_can_be_read(bench: Bench, name: str, content: bytes, reason: str) -> None:
    """Each gives dead letters and is kept in `rejected`."""
    bench.put(name, content)
    bench.work()
    assert {offer.refusal[0] for offer in bench.offers if offer.refusal} == {reason}
    assert bench.lying("rejected") == [name]


def test_identities_are_the_files_hash_and_line(bench: Bench) -> None:
    """A fact without an id is told by its file's content and its line, whatever the file is called."""
    content = ("\n" + json.dumps(event(1)) + "\n\n" + json.dumps(event(2))).encode()
    bench.put("a.jsonl", content)
    bench.work()
    first, second = accepted(bench)
    assert first.endswith(":2")
    assert second.endswith(":4")
    assert first.partition(":")[0] == second.partition(":")[0]
    assert {offer.source for offer in bench.offers} == {"/spool"}
    assert [offer.where for offer in bench.offers] == ["a.jsonl:2", "a.jsonl:4"]


def test_who_is_behind_a_request_is_the_files_owner(bench: Bench) -> None:
    """An operator's request is stamped with the owner of its file, whatever it says."""
    path = bench.put("r.json", {"type": "operator.requested", "subject": "p", "data": {"verb": "pause", "by": "x"}})
    owner = path.owner()
    bench.work()
    (offer,) = bench.offers
    assert getattr(offer.event, "by", None) == owner


def test_what_is_not_meant_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    """Hidden and unfinished files, folders, links and pipes are not read."""
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(event()))
    for name in (".hidden.json", "a.json.tmp", "a.part"):
        bench.put(name, event())
    (bench.folder / "link.json").symlink_to(secret)
    (bench.folder / "folder.json").mkdir()
    os.mkfifo(bench.folder / "pipe.json")
    bench.work()
    assert not bench.offers
    assert bench.lying() == [".hidden.json", "a.json.tmp", "a.part", "link.json"]


def test_a_big_file_comes_in_several_inputs(bench: Bench) -> None:
    """Each a transaction's worth, with a cursor step of its own; all arrive, in order."""
    count = 2 * BATCH + 7
    bench.put("big.jsonl", "\n".join(json.dumps(event(n)) for n in range(count)).encode())
    bench.work()
    assert [len(item.offers) for item in bench.inputs] == [BATCH, BATCH, 7]
    assert len(set(accepted(bench))) == count
    cursors = [item.cursor for item in bench.inputs if item.cursor is not None]
    assert [(c.expected, c.next) for c in cursors] == [(None, BATCH), (BATCH, 2 * BATCH), (2 * BATCH, count)]
    assert bench.lying("processed") == ["big.jsonl"]


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_restarted_daemon_goes_on_where_the_journal_stands(bench: Bench, taken: int) -> None:
    """What was sent but not stored comes again; what was stored does not; a file that was read is only moved."""
    count = 2 * BATCH
    bench.put("big.jsonl", "\n".join(json.dumps(event(n)) for n in range(count)).encode())
    while bench.spool.scan():
        pass
    waiting = bench.inbox.take(0) + bench.inbox.take(0)
    assert len(waiting) == 2
    for item in waiting[:taken]:
        bench.inbox.put(item)
    bench.take()
    bench.take()
    bench.spool = bench.new()
    bench.work()
    assert len(accepted(bench)) == len(set(accepted(bench))) == count
    assert bench.lying("processed") == ["big.jsonl"]


def test_what_did_not_get_in_is_sent_again(bench: Bench) -> None:
    """After `forget` the file is read from where the journal stands."""
    bench.put("a.json", event())
    bench.spool.scan()
    bench.inbox.take(0)
    assert not bench.spool.scan()
    assert bench.inbox.depth() == 0
    bench.spool.forget()
    bench.work()
    assert len(accepted(bench)) == 1


def test_a_file_too_large_is_rejected_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read into memory; one dead letter says what to do."""
    monkeypatch.setattr(module, "MAX_FILE", 100)
    bench.put("big.json", event(1, extra="x" * 200))
    bench.work()
    (letter,) = bench.offers
    assert letter.refusal is not None
    assert letter.refusal[0] == "too_large"
    assert bench.lying("rejected") == ["big.json"]


def test_a_file_that_vanishes_is_no_trouble(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody took it back between the listing and the reading; the others are read."""
    bench.put("a.json", event(1))
    bench.put("b.json", event(2))
    real = Spool._files  # noqa: SLF001 - to act right after the listing

    def files(spool: Spool) -> Iterable[Path]:
        found = list(real(spool))
        (bench.folder / "a.json").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Spool, "_files", files)
    bench.work()
    assert len(accepted(bench)) == 1
    assert bench.lying("processed") == ["b.json"]


def test_one_file_that_cannot_be_read_keeps_no_other_one_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All others are read before the error is told."""
    bench.put("a.json", event(1))
    bench.put("b.json", event(2))
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "a.json":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    for _ in range(3):
        with pytest.raises(PermissionError):
            bench.spool.scan()
        bench.take()
    assert len(accepted(bench)) == 1
    assert (bench.lying(), bench.lying("processed")) == (["a.json"], ["b.json"])
    monkeypatch.undo()
    bench.work()
    assert bench.lying("processed") == ["a.json", "b.json"]


def run(bench: Bench, during: Callable[[], None]) -> None:
    """Let the spool run in its thread while something happens."""
    thread = threading.Thread(target=bench.spool.run)
    thread.start()
    try:
        during()
    finally:
        bench.spool.stop()
        thread.join(10)
    assert not thread.is_alive()


def wait_for_report(bench: Bench) -> tuple[str, str | None]:
    """Return the next report."""
    assert bench.reported.wait(10)
    bench.reported.clear()
    return bench.reports[-1]


def test_a_folder_that_cannot_be_read_degrades_and_recovers(bench: Bench) -> None:
    """It is told once that the source is in trouble, and once that it is not; then files are read again."""

    def during() -> None:
        shutil.rmtree(bench.folder)
        bench.folder.write_text("a file in its place")
        bench.spool.committed([])
        name, reason = wait_for_report(bench)
        assert name == str(bench.folder)
        assert reason
        bench.folder.unlink()
        assert wait_for_report(bench) == (str(bench.folder), None)
        bench.put("a.json", event())
        while not bench.inbox.depth():
            bench.reported.wait(0.01)

    run(bench, during)
    bench.take()
    assert len(accepted(bench)) == 1
    assert len(bench.reports) == 2


def test_a_journal_that_cannot_be_read_for_now_is_waited_for(bench: Bench) -> None:
    """An error of the journal degrades the source, and does not end its thread."""
    failing = threading.Event()
    failing.set()

    def cursor(name: str) -> int | None:
        if failing.is_set():
            raise JournalCorrupt("unreadable")
        return bench.cursors.get(name)

    bench.spool._cursor = cursor  # noqa: SLF001 - another answer for the same spool
    bench.put("a.json", event())

    def during() -> None:
        assert wait_for_report(bench)[1] == "unreadable"
        failing.clear()
        assert wait_for_report(bench)[1] is None

    run(bench, during)
    assert bench.inbox.depth() == 1


def test_a_closed_inbox_ends_the_reading(bench: Bench) -> None:
    """While the daemon drains, files stay where they are for the next one."""
    bench.inbox.close()
    bench.put("a.json", event())
    assert not bench.spool.scan()
    assert bench.lying() == ["a.json"]
