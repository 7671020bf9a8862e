"""What the documentation says is so: keys and defaults, examples, named tests, links."""

import ast
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from daemon.config import load
from daemon.core.commands import StartRun
from daemon.core.encoding import decode
from daemon.core.events import EVENTS, DataArrived, DriftDetected, Record
from daemon.core.plans import Amount, Checkpoint
from daemon.core.state import Model, Pipeline
from daemon.door import OUTSIDE_KINDS, Door, Letter
from daemon.settings import (
    ExecutorSettings,
    HttpSettings,
    MlflowSettings,
    NotifySettings,
    PipelineConfiguration,
    RetentionSettings,
    Settings,
    SpoolSettings,
    StandbySettings,
    TlsSettings,
    TokenSettings,
)
from daemon.settings.kafka import (
    KafkaSettings,
    MappingSettings,
    OauthSettings,
    SecuritySettings,
    TopicSettings,
    TransitionsSettings,
)
from daemon.settings.model import (
    DataConfiguration,
    HfSettings,
    LlamaSettings,
    ModuleSettings,
    TokenizerConfiguration,
)
from daemon.settings.roots import CredentialsSettings, RootSettings
from daemon.sources.kafka.messages import read
from policies import AnyPolicy
from policies.base import LimitSettings, TrainingSettings
from policies.guards import Guards
from policies.guards.budget import Budget
from policies.guards.once import Once
from policies.guards.quiet import Window
from policies.periodic_retraining.curation import CurationSettings, CutSettings
from policies.periodic_retraining.policy import PlateauSettings
from policies.promotion.policy import WindowSettings
from policies.promotion.watch import WatchSettings
from policies.rewarm_replay.planning import PhaseSettings, PlannerSettings, WeightSettings
from policies.triggers.signals import Signal
from tests.bench.page import between, render, results

ROOT = Path(__file__).parent.parent
HOW_TO = ROOT / "docs" / "how-to"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
POLICIES: tuple[type[BaseModel], ...] = get_args(get_args(AnyPolicy)[0])
COMMON = {"kind", "name", "mode"}
"""Keys that every policy has; described once."""
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def text(path: Path) -> str:
    """Return a page."""
    return path.read_text(encoding="utf-8")


def fenced(page: Path, language: str) -> list[str]:
    """Return a page's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Any]:
    """Return the fenced blocks of all pages as parameters of a test."""
    found = [(page, number, block) for page in PAGES for number, block in enumerate(fenced(page, language), 1)]
    return [pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}") for page, number, block in found]


def sections(page: Path) -> dict[str, str]:
    """Return a page's parts by the first word in code quotes (else the first word) of their headings."""
    parts = re.split(r"^#{2,3} (.+)$", text(page), flags=re.MULTILINE)
    names = (re.search(r"`(\w+)`", heading) for heading in parts[1::2])
    return {
        (name[1] if name else heading.split()[0]): body
        for name, heading, body in zip(names, parts[1::2], parts[2::2], strict=True)
    }


def told(default: object) -> str:
    """Return a default as the page tells it."""
    match default:
        case _ if default is PydanticUndefined:
            return "required"
        case None | "":
            return "none"
        case BaseModel():
            return "see below"
        case timedelta():
            return f"`{TypeAdapter(timedelta).dump_python(default, mode='json')}`"
        case bool():
            return f"`{str(default).lower()}`"
        case tuple():
            shown = [str(each) if not isinstance(each, BaseModel) else flow(each) for each in default]
            return f"`[{', '.join(shown)}]`"
        case _:
            return f"`{default}`"


def flow(model: BaseModel) -> str:
    """Return a small model as YAML on one line."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in model.model_dump(mode="json").items()) + "}"


DESCRIBED: list[tuple[str, type[BaseModel]]] = [
    ("Top", Settings),
    ("mlflow", MlflowSettings),
    ("http", HttpSettings),
    ("tls", TlsSettings),
    ("tokens", TokenSettings),
    ("roots", RootSettings),
    ("credentials", CredentialsSettings),
    ("sources", SpoolSettings),
    ("kafka", KafkaSettings),
    ("topics", TopicSettings),
    ("mapping", MappingSettings),
    ("security", SecuritySettings),
    ("oauth", OauthSettings),
    ("transitions", TransitionsSettings),
    ("executor", ExecutorSettings),
    ("standby", StandbySettings),
    ("notify", NotifySettings),
    ("retention", RetentionSettings),
    ("pipelines", PipelineConfiguration),
    ("llama", LlamaSettings),
    ("hf", HfSettings),
    ("module", ModuleSettings),
    ("tokenizer", TokenizerConfiguration),
    ("data", DataConfiguration),
    ("signal", Signal),
    ("replay_schedule", PhaseSettings),
    ("planner", PlannerSettings),
    ("weights", WeightSettings),
    ("plateau", PlateauSettings),
    ("curate", CurationSettings),
    ("cuts", CutSettings),
    ("guards", Guards),
    ("once", Once),
    ("budget", Budget),
    ("quiet", Window),
    ("freeze", WindowSettings),
    ("watch", WatchSettings),
    ("training", TrainingSettings),
    ("limits", LimitSettings),
    *((str(policy.model_fields["kind"].default), policy) for policy in POLICIES),
]


@pytest.mark.parametrize(("name", "model"), DESCRIBED, ids=[name for name, _ in DESCRIBED])
def test_every_key_is_described_with_its_default(name: str, model: type[BaseModel]) -> None:
    """The page on the configuration has a row for each key of each model, with today's default, and no other row."""
    body = sections(HOW_TO / "write-a-configuration.md")[name]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| ", body, re.MULTILINE))
    keys = {field.alias or key: field.default for key, field in model.model_fields.items()}
    wanted = {key: told(default) for key, default in keys.items() if model not in POLICIES or key not in COMMON}
    assert rows == wanted


@pytest.mark.parametrize("block", blocks("yaml"))
def test_configurations_load(block: str, tmp_path: Path) -> None:
    """Every configuration that a page shows is a valid one."""
    file = tmp_path / "rewarm.yaml"
    file.write_text(block, encoding="utf-8")
    assert yaml.safe_load(block)
    load(file)


@pytest.mark.parametrize("block", blocks("json"))
def test_events_come_in(block: str) -> None:
    """Every event that a page shows is accepted by the door, and decodes as its kind."""
    door = Door(pipelines={"docs-lm": None, "manuals": None}, roots=(Path("/data/inbox"),))
    documents = json.loads(block)
    for event in documents if isinstance(documents, list) else [documents]:
        letter = Letter(text=json.dumps(event).encode(), where="page", source="/docs", id="1", by="ada")
        offer = door.receive(letter)
        assert offer.refusal is None
        kind = event["type"].removeprefix("io.rewarm.").removesuffix(".v1")
        assert isinstance(decode(kind, 1, json.dumps(event["data"])), EVENTS[kind])


def test_the_mapping_of_the_page_on_kafka_works(tmp_path: Path) -> None:
    """The JSON that it shows becomes, by the configuration that it shows, the event that a reader expects."""
    page = HOW_TO / "kafka.md"
    file = tmp_path / "rewarm.yaml"
    file.write_text(next(block for block in fenced(page, "yaml") if "mapping:" in block), encoding="utf-8")
    (topic,) = load(file).kafka[0].settings.topics
    (value,) = re.findall(r"^ {4}(\{.*\})$", text(page), re.MULTILINE)
    letter = read(Letter(text=value.encode(), where="page", source="/kafka/c/t", id="0/7"), topic)
    assert isinstance(letter, Letter)
    offer = Door(pipelines={"docs-lm": None}, roots=()).receive(letter)
    assert (offer.id, offer.pipeline, str(offer.time)) == ("pages.jsonl", "docs-lm", "2026-03-01 12:00:00+00:00")
    assert offer.event == DataArrived(uri="pages.jsonl", domain="pages", bytes=19048)


def test_every_outside_kind_has_an_example() -> None:
    """The page on sending events shows each kind that may come from outside, and each verb of a request."""
    page = text(HOW_TO / "send-events.md")
    for kind in OUTSIDE_KINDS:
        assert f'"type": "io.rewarm.{kind}.v1"' in page
    for verb in get_args(EVENTS["operator.requested"].__annotations__["verb"]):
        assert f"`{verb}`" in page


def reasons() -> Iterator[str]:
    """Yield the reasons of dead letters and of rejected data that the code can give."""
    for path in (ROOT / "daemon").rglob("*.py"):
        yield from re.findall(r"InputError\(\s*\"(\w+)\"", text(path))
        yield from re.findall(r"^REASON = \"(\w+)\"", text(path), re.MULTILINE)
        yield from re.findall(r"_refuse\(offer, \"(\w+)\"", text(path))
        yield from re.findall(r"refusal=\(\"(\w+)\"", text(path))
    source = text(ROOT / "stages" / "training" / "reading" / "unusable.py")
    listed = re.search(r"^Reason = Literal\[(.*?)\]", source, re.MULTILINE | re.DOTALL)
    assert listed is not None
    yield from ast.literal_eval(f"({listed[1]})")


def test_every_reason_is_explained() -> None:
    """Whatever word stands in a dead letter or in rejected data, the page on sending events has its row."""
    page = text(HOW_TO / "send-events.md")
    assert [reason for reason in sorted(set(reasons())) if f"| `{reason}` |" not in page] == []


def test_every_metric_is_in_its_page() -> None:
    """Each metric that the daemon shows is named in the page on watching, and that page names no other."""
    told = set(re.findall(r"\b(rewarm_\w+)", text(HOW_TO / "watch.md")))
    sources = (text(ROOT / "ops" / name) for name in ("metrics.py", "kafka_metrics.py"))
    named = {name for source in sources for name in re.findall(r"\"(rewarm_\w+)\"", source)}
    plain = {name.removesuffix("_total").removesuffix("_info") for name in told}
    assert named - plain == set()
    assert plain - named == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_tests_are_there(page: Path) -> None:
    """A relative link leads to a file, and a test that a page names exists."""
    body = text(page)
    for target in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"#\s]+)", body):
        assert "://" in target or (page.parent / target).exists(), target
    for file in re.findall(r"`(tests/[\w/]+\.py)", body):
        assert (ROOT / file).is_file(), file
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", body)
    named += [(file, name) for name, file in re.findall(r"\[`(test_\w+)`\]\([./]*(tests/[\w/]+\.py)\)", body)]
    for file, name in named:
        assert f"def {name}(" in text(ROOT / file), f"{file}::{name}"


def test_every_decision_record_is_listed() -> None:
    """The list of decision records names each of them."""
    folder = ROOT / "docs" / "adr"
    listed = text(folder / "README.md")
    assert [path.name for path in sorted(folder.glob("0*.md")) if path.name not in listed] == []


def test_the_page_on_benchmarks_tells_the_kept_results() -> None:
    """Its tables are those that the files of results give today; if not: `python tests/bench/page.py`."""
    _, inside, _ = between(text(ROOT / "docs" / "benchmarks.md"))
    assert inside == render(results())


def test_the_readme_tells_the_crash_bench_as_it_was() -> None:
    """The numbers of kills, losses and repetitions in the README are those of the kept results."""
    found = json.loads(text(ROOT / "docs" / "benchmarks" / "crash.json"))
    words = (
        f"killed it {found['kills']:,} times by SIGKILL: {found['lost']} facts or commands lost, "
        f"{found['repeated']} repeated"
    )
    assert words in " ".join(text(ROOT / "README.md").split())
    assert found["control_found"] > 0


def test_every_event_is_in_the_glossary() -> None:
    """The glossary names every kind of event."""
    page = text(ROOT / "docs" / "glossary.md")
    assert [kind for kind in EVENTS if f"`{kind}`" not in page] == []


def test_the_policy_of_the_readme_works() -> None:
    """The example policy has at most 25 lines of code, wishes to start when it should, and is silent otherwise."""
    (block,) = fenced(ROOT / "README.md", "python policy")
    assert len([line for line in block.splitlines() if line.strip()]) <= 25
    module: dict[str, Any] = {"__name__": "policies.on_drift"}
    exec(block, module)  # noqa: S102 - the page's own code
    policy = module["OnDrift"](threshold=0.2)
    trunk = Checkpoint(path="models/docs-lm/v1/trunk", sha256="0" * 64)
    champion = Model(
        version=1,
        run="docs-lm-1",
        path="models/docs-lm/v1",
        sha256="0" * 64,
        trunk=trunk,
        parent=None,
        losses={},
        past={"prose": Amount(arrivals=1, tokens=1000)},
        promoted_at=NOW,
        position=7,
    )
    state = Pipeline(name="docs-lm", champion=champion)

    def drift(value: float) -> Record:
        event = DriftDetected(metric="psi", value=value)
        return Record(position=9, recorded_at=NOW, source="/monitor", id="1", pipeline="docs-lm", event=event)

    assert policy.label == "on_drift"
    assert policy.decide(state, drift(0.1)) is None
    decision = policy.decide(state, drift(0.3))
    assert isinstance(decision.commands[0], StartRun)
    assert decision.inputs == {"value": 0.3}
