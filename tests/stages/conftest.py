"""A state folder, arrivals, and the means to run a stage in it as the dispatcher would."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import stages.training  # noqa: F401 - before torch: it says how torch's threads wait
from daemon.core.events import AnyEvent, ModelPromoted
from daemon.core.plans import Checkpoint, Limits, ModelSettings, Plan, Schedule, Start, Training
from stages.execute import execute
from stages.run_folder import Arrival, Champion, Shard, Specification, place_specification
from tests.attempts import shards_of, told, write_arrival

STAGES = ("ingest", "probe", "train", "evaluate", "promote")
TEXT = "the a model learns from text and then it reads more of the same old words"
CODE = "def return self x = ( ) : for in if else import class None True yield"
WORDS = {name: text.split() for name, text in (("prose", TEXT), ("code", CODE))}


def documents(domain: str, count: int, seed: int = 0) -> list[str]:
    """Return texts of a domain, the same ones for the same seed."""
    generator = random.Random(f"{domain}/{seed}")
    return [" ".join(generator.choices(WORDS[domain], k=generator.randint(10, 40))) for _ in range(count)]


@pytest.fixture
def make_documents() -> Callable[..., list[str]]:
    """Give texts of a domain: (domain, count, seed)."""
    return documents


def base_plan(**training: object) -> Plan:
    """Return a plan of 40 small steps from scratch; its trunk falls on step 34."""
    schedule = Schedule(kind="infinite", peak=1e-2, floor=1e-3, plateau=5e-3, warmup=0.1)
    budget = Training(
        tokens=40 * 4 * 32,
        batch=4,
        context=32,
        replay=0.0,
        schedule=schedule,
        optimiser="keep",
        seed=7,
    )
    return Plan(
        kind="base",
        start=Start(kind="scratch"),
        parent=None,
        spans=(),
        new={},
        past={},
        model=ModelSettings(preset="micro"),
        stages=STAGES,
        training=msgspec.structs.replace(budget, **training),
        limits=Limits(),
    )


def increment_plan(champion: Champion, **training: object) -> Plan:
    """Return a plan that continues a champion's trunk with a quarter of replay."""
    plan = base_plan(**{"replay": 0.25, **training})
    start = Start(kind="champion", version=champion.version, checkpoint=champion.trunk)
    return msgspec.structs.replace(plan, kind="increment", start=start, parent=champion.version)


@pytest.fixture
def make_base_plan() -> Callable[..., Plan]:
    """Give a plan from scratch; keywords replace fields of its training."""
    return base_plan


@pytest.fixture
def make_increment_plan() -> Callable[..., Plan]:
    """Give a plan that continues a champion; keywords replace fields of its training."""
    return increment_plan


def specify(state: Path, stage: str, attempt: int = 1, **fields: object) -> Path:
    """Place the specification of an attempt and return its folder."""
    given = {
        "plan": base_plan(),
        "run": "p-9",
        "implementation": stage,
        "threads": 1,
        "roots": (str(state.parent),),
        **fields,
    }
    specification = Specification(
        pipeline="p",
        stage=stage,
        attempt=attempt,
        command="1/p/test/0",
        state=str(state),
        **given,  # type: ignore[arg-type]
    )
    folder = state / "runs" / specification.run / stage / str(attempt)
    place_specification(folder, specification)
    return folder


@pytest.fixture
def place(state: Path) -> Callable[..., Path]:
    """Place an attempt without running it: (stage, attempt, **fields of the specification) → folder."""
    return lambda stage, attempt=1, **fields: specify(state, stage, attempt, **fields)


@pytest.fixture
def read_outcome() -> Callable[[Path], list[AnyEvent]]:
    """Read an attempt's events."""
    return told


@pytest.fixture
def run_stage(place: Callable[..., Path]) -> Callable[..., list[AnyEvent]]:
    """Run an attempt in this process: (stage, attempt, **fields of the specification) → its events."""

    def run(stage: str, attempt: int = 1, **fields: object) -> list[AnyEvent]:
        folder = place(stage, attempt, **fields)
        execute(folder)
        return told(folder)

    return run


@pytest.fixture
def arrive(tmp_path: Path) -> Callable[..., Arrival]:
    """Write an arrival into the inbox: (name, texts, domain, position)."""
    return lambda name, texts, domain="prose", position=1: write_arrival(
        tmp_path / "inbox" / f"{name}.jsonl", texts, domain, position
    )


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a state folder once in which a base model was trained on prose and promoted, and code has arrived."""
    root = tmp_path_factory.mktemp("template")
    state = root / "state"
    arrival = write_arrival(root / "inbox" / "prose.jsonl", documents("prose", 60), "prose")
    new: tuple[Shard, ...] = ()
    done: dict[str, str] = {}
    for stage in STAGES:
        folder = specify(state, stage, run="p-1", arrivals=(arrival,), new=new, done=done)
        execute(folder)
        new += shards_of(told(folder))
        done[stage] = str(folder)
    (promoted,) = [event for event in told(folder) if isinstance(event, ModelPromoted)]
    champion = Champion(
        version=1,
        model=Checkpoint(path=promoted.path, sha256=promoted.sha256),
        trunk=promoted.trunk,
    )
    code = write_arrival(root / "inbox" / "code.jsonl", documents("code", 60), "code", 2)
    folder = specify(state, "ingest", run="p-2", arrivals=(code,), past=new)
    execute(folder)
    facts = {"past": new, "new": shards_of(told(folder)), "champion": champion}
    (root / "facts.json").write_bytes(msgspec.json.encode(facts))
    return root


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An empty state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def trained_state(state: Path, template: Path) -> Path:
    """Fill the state folder with the template's: a promoted base model, and an arrival of code."""
    shutil.copytree(template / "state", state, dirs_exist_ok=True)
    return state


@pytest.fixture
def champion(template: Path, trained_state: Path) -> Champion:
    """The promoted base model."""
    facts = msgspec.json.decode((template / "facts.json").read_bytes())
    return msgspec.convert(facts["champion"], Champion)


@pytest.fixture
def past(template: Path, trained_state: Path) -> tuple[Shard, ...]:
    """The prose that the base model was trained on."""
    facts = msgspec.json.decode((template / "facts.json").read_bytes())
    return msgspec.convert(facts["past"], tuple[Shard, ...])


@pytest.fixture
def new(template: Path, trained_state: Path) -> tuple[Shard, ...]:
    """The code that arrived after it."""
    facts = msgspec.json.decode((template / "facts.json").read_bytes())
    return msgspec.convert(facts["new"], tuple[Shard, ...])
