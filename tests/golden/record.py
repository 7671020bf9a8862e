"""Record the golden journals: `python tests/golden/record.py`.

Each scenario has the journals `NAME.N.jsonl`; the highest N is today's behaviour, the others that of earlier
versions of policies or of the reducer, kept for ever. A scenario that tells another story than its newest journal
gets a new one when a policy's version or REDUCER_VERSION has changed since, and is refused otherwise: whoever
changes behaviour changes a version. `--replace` overwrites instead: only for what no release has had.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[2]))

from daemon.core.events import ConfigurationChanged, DaemonStarted, Record
from daemon.core.transition import REDUCER_VERSION
from daemon.replay import replay
from tests.golden.scenarios import SCENARIOS
from tests.golden.tape import read, write

JOURNALS = Path(__file__).with_name("journals")
PINS = JOURNALS / "hashes.json"


class Pins(msgspec.Struct, frozen=True, kw_only=True):
    """The state hash at the end of each journal, as one version of the reducer folds it."""

    reducer: int
    hashes: dict[str, str]


def journals(scenario: str = "*") -> list[Path]:
    """Return the kept journals of a scenario, the oldest first."""
    return sorted(JOURNALS.glob(f"{scenario}.*.jsonl"), key=lambda path: (path.name.split(".")[0], number(path)))


def number(path: Path) -> int:
    """Return the number of a journal among those of its scenario."""
    return int(path.name.split(".")[1])


def pins() -> Pins:
    """Return what is pinned."""
    return msgspec.json.decode(PINS.read_bytes(), type=Pins)


def story(records: Iterable[Record]) -> list[Record]:
    """Return records without the version of the reducer: it tells nothing of behaviour by itself."""
    return [replace(r, event=replace(r.event, reducer=0)) if isinstance(r.event, DaemonStarted) else r for r in records]


def versions(records: Iterable[Record]) -> set[tuple[str, int]]:
    """Return the versions of policies and reducer that wrote a journal."""
    found = set()
    for record in records:
        if isinstance(record.event, ConfigurationChanged):
            found |= {(p.kind, p.version) for each in record.event.pipelines.values() for p in each.policies}
        elif isinstance(record.event, DaemonStarted):
            found.add(("reducer", record.event.reducer))
    return found


def record(scenario: str, *, overwrite: bool) -> str | None:
    """Keep a scenario's journal; returns why it is refused."""
    fresh = SCENARIOS[scenario]().records
    kept = journals(scenario)
    if kept:
        before = read(kept[-1].read_bytes())
        if story(before) == story(fresh):
            return None
        if versions(before) == versions(fresh) and not overwrite:
            return f"{kept[-1].name}: the story has changed, and no version of a policy or of the reducer has."
    again = kept and versions(before) == versions(fresh)
    path = kept[-1] if again else JOURNALS / f"{scenario}.{number(kept[-1]) + 1 if kept else 1}.jsonl"
    path.write_bytes(write(fresh))
    sys.stdout.write(f"{path.name}: {len(fresh)} records\n")
    return None


def pin(*, overwrite: bool) -> list[str]:
    """Pin the final hashes of all journals; returns those that changed although the reducer's version did not."""
    hashes = {path.name: replay(read(path.read_bytes())).hash for path in journals()}
    before = pins() if PINS.exists() else Pins(reducer=0, hashes={})
    if before.reducer == REDUCER_VERSION and not overwrite:
        changed = [name for name, kept in before.hashes.items() if hashes.get(name) != kept]
        if changed:
            return [f"{name}: its state has another hash, and REDUCER_VERSION has not changed." for name in changed]
    PINS.write_bytes(msgspec.json.format(msgspec.json.encode(Pins(reducer=REDUCER_VERSION, hashes=hashes))) + b"\n")
    return []


def main() -> int:
    """Record all scenarios; returns 1 when something was refused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replace", action="store_true", help="overwrite: only for what no release has had")
    overwrite = parser.parse_args().replace
    JOURNALS.mkdir(exist_ok=True)
    refused = [why for scenario in SCENARIOS if (why := record(scenario, overwrite=overwrite))]
    refused += pin(overwrite=overwrite)
    for why in refused:
        sys.stderr.write(f"{why}\n")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
