"""The configuration file, its errors, and what the environment changes."""

import time
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from daemon.config import Configuration, find, load
from daemon.core.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


class Write(Protocol):
    """Write a configuration file and load it."""

    def __call__(self, text: str) -> Configuration: ...  # noqa: D102


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Load a text as a configuration file."""

    def load_text(text: str) -> Configuration:
        path = tmp_path / "rewarm.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return load_text


def policies(*fields: str) -> str:
    """Make a file with one pipeline that has these policies."""
    return f"pipelines: {{p: {{policies: [{', '.join('{' + each + '}' for each in fields)}]}}}}"


def test_the_example_loads() -> None:
    """The file that comes with rewarm is valid, and names every policy."""
    configuration = load(ROOT / "rewarm.yaml")
    pipeline = configuration.settings.pipelines["docs-lm"]
    assert [policy.label for policy in pipeline.policies] == [
        "rewarm_replay",
        "periodic_retraining",
        "stage_recovery",
        "promotion",
    ]
    assert configuration.journal == ROOT / "var" / "journal.db"


def test_an_empty_file_gives_the_defaults(write: Write) -> None:
    """Every key has a default; there is no pipeline then."""
    for text in ("", "# nothing\n", "---\n"):
        settings = write(text).settings
        assert settings.pipelines == {}
        assert (settings.http.host, settings.http.port) == ("127.0.0.1", 8420)
        assert settings.executor.slots == 1


def test_loading_is_fast() -> None:
    """The file is read and checked in less than 0.2 s: every command waits for it."""
    load(ROOT / "rewarm.yaml")
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        load(ROOT / "rewarm.yaml")
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.2


BAD = {
    "text": ("only text", ["must hold keys and values", "str"]),
    "list": ("- a\n- b", ["must hold keys and values", "list"]),
    "empty list": ("[]", ["must hold keys and values", "list"]),
    "no yaml": ("journal: [", ["cannot be read as YAML", "line 1"]),
    "tabs": ("http:\n\thost: x", ["cannot be read as YAML"]),
    "control character": ("state: \0", ["cannot be read as YAML"]),
    "impossible date": ("state: 2001-99-99", ["cannot be read as YAML", "month"]),
    "too deep": ("[" * 5000, ["cannot be read as YAML", "recursion"]),
    "python object": ("state: !!python/object:os.system {}", ["cannot be read as YAML", "python/object"]),
    "key twice": ("state: a\nstate: b", ["'state' is there twice", "line 2"]),
    "pipeline twice": ("pipelines:\n  p: {}\n  p: {priority: 1}", ["'p' is there twice", "line 3"]),
    "unknown key": ("jurnal: x", ["jurnal", "no known key", "Did you mean 'journal'", "pipelines"]),
    "unknown key far from any": ("zzz: x", ["zzz", "no known key", "Known keys: credentials"]),
    "key that is no text": ("7: x", ["7", "no known key", "journal"]),
    "private key": ("_env_file: x", ["_env_file", "no known key"]),
    "nested unknown key": ("http: {prot: 1}", ["http.prot", "Did you mean 'port'", "enabled, host, port"]),
    "unknown key of a policy": (
        policies("kind: rewarm_replay, after_token: 3"),
        ["pipelines.p.policies.0.rewarm_replay.after_token", "Did you mean 'after_tokens'", "max_age"],
    ),
    "alias of a policy": (
        policies("kind: periodic_retraining, form: base"),
        ["policies.0.periodic_retraining.form", "Did you mean 'from'"],
    ),
    "unknown key in a policy's training": (
        policies("kind: rewarm_replay, training: {pek: 1}"),
        ["policies.0.rewarm_replay.training.pek", "Did you mean 'peak'"],
    ),
    "unknown key of a source": ("sources: [{kind: spool, pth: a}]", ["sources.0.spool.pth", "Did you mean 'path'"]),
    "missing key": ("sources: [{kind: spool}]", ["sources.0.spool.path", "required"]),
    "unknown source": (
        "sources: [{kind: spol, path: a}]",
        ["sources.0: there is no kind 'spol'; known kinds: 'spool', 'kafka'"],
    ),
    "unknown policy": (policies("kind: rewarm_reply"), ["pipelines.p.policies.0", "rewarm_reply", "rewarm_replay"]),
    "policy without a kind": (policies("after_tokens: 3"), ["pipelines.p.policies.0", "kind"]),
    "wrong type": ("http: {port: high}", ["http.port", "integer", "'high'"]),
    "out of range": ("http: {port: 70000}", ["http.port", "65535", "70000"]),
    "unknown key of what may be left out": (
        "http: {tls: {kye: a}}",
        ["http.tls.kye", "Did you mean 'key'", "certificate"],
    ),
    "null section": ("http: null", ["http: must hold keys and values (it is empty)"]),
    "section that is a list": ("executor: [1]", ["executor: must hold keys and values", "[1]"]),
    "list that is none": ("roots: var", ["roots: must be a list, such as [a, b] (it is 'var')"]),
    "keys that are none": ("pipelines: [p]", ["pipelines: must hold keys and values (it is ['p'])"]),
    "source without a kind": ("sources: [{path: a}]", ["sources.0: must be keys and values, with a `kind` among them"]),
    "no slots": ("executor: {slots: 0}", ["executor.slots", "greater than or equal to 1"]),
    "unknown journal": ("journal: postgres://x", ["journal", "must begin with sqlite:///", "postgres://x"]),
    "bad pipeline name": ("pipelines: {Docs LM: {}}", ["pipelines", "Docs LM"]),
    "pipeline name that is no text": ("pipelines: {7: {}}", ["pipelines.7"]),
    "two policies of a name": (
        policies("kind: promotion", "kind: promotion"),
        ["pipelines.p", "two policies are called 'promotion'", "`name`"],
    ),
    "reserved name": (policies("kind: promotion, name: operator"), ["policies.0.promotion.name", "rewarm's own"]),
    "share above one": (policies("kind: rewarm_replay, replay: 1.5"), ["policies.0.rewarm_replay.replay", "1.5"]),
    "no number": (policies("kind: promotion, min_gain: .nan"), ["policies.0.promotion.min_gain", "finite"]),
    "span that is none": (
        policies("kind: rewarm_replay, max_age: soon"),
        ["rewarm_replay.max_age: is no span of time: write a number and a unit (90s, 30m, 6h", "'soon'"],
    ),
    "empty span": (
        policies("kind: rewarm_replay, when: {age: }"),
        ["when.age.age: is no span of time", "it is empty"],
    ),
    "span beyond the calendar": (
        policies("kind: rewarm_replay, max_age: 999999999w"),
        ["max_age: is no span of time", "'999999999w'"],
    ),
    "no span": (policies("kind: rewarm_replay, max_age: 0s"), ["max_age", "greater than 0 seconds (it is 0:00:00)"]),
    "endless wait": (policies("kind: stage_recovery, max_backoff: 99999999d"), ["max_backoff", "less than or equal"]),
    "trigger inside itself": (
        policies("kind: rewarm_replay, when: &a {any: [*a]}"),
        ["rewarm_replay.when.any.any.0.any.any.0.any: stands inside itself: what `&` names"],
    ),
    "date without a zone": (
        policies("kind: promotion, freeze: [{from: 2026-12-20, until: 2027-01-03}]"),
        ["freeze.0.from: needs a time and a zone, as in 2026-12-20T00:00:00Z (it is 2026-12-20)"],
    ),
    "policy that is a word": (
        "pipelines: {p: {policies: [promotion]}}",
        ["policies.0: must hold keys and values (it is 'promotion')"],
    ),
    "unknown stage": ("pipelines: {p: {stages: [ingst]}}", ["pipelines.p.stages.0", "ingest, probe", "ingst"]),
    "adopt as a stage": ("pipelines: {p: {stages: [adopt]}}", ["pipelines.p.stages.0", "rewarm adopt", "promote"]),
    "no stages": ("pipelines: {p: {stages: []}}", ["pipelines.p.stages"]),
    "stage twice": ("pipelines: {p: {stages: [ingest, ingest]}}", ["pipelines.p", "named twice"]),
    "stages out of order": (
        "pipelines: {p: {stages: [train, ingest]}}",
        ["pipelines.p", "'train' needs 'ingest' before it"],
    ),
    "stage without what it needs": (
        "pipelines: {p: {stages: [ingest, train, promote]}}",
        ["pipelines.p", "'promote' needs 'evaluate' before it"],
    ),
    "unknown model": ("pipelines: {p: {model: {kind: gpt}}}", ["pipelines.p.model", "llama", "gpt"]),
    "not UTF-8": ("state: caf\udce9", ["cannot be read"]),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=list(BAD))
def test_errors_name_file_key_and_choices(tmp_path: Path, text: str, words: list[str]) -> None:
    """Every error is one of rewarm's own, and says where, what, and what would be right."""
    path = tmp_path / "some.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message


def test_a_list_is_not_too_short_by_its_mistakes(tmp_path: Path) -> None:
    """What is wrong inside a list is told, and not also that nothing is left of it; an empty one is too short."""
    path = tmp_path / "some.yaml"
    path.write_text("tokens: [{name: ci, file: ci, scopes: [sen]}, {name: b, file: b, scopes: []}]", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    first, second = str(caught.value).splitlines()
    assert "tokens.0.scopes.0: Input should be 'send'" in first
    assert "tokens.1.scopes: must hold at least 1 item, and is empty" in second


@pytest.mark.parametrize(
    "url", ["ftp://ann:s3cret@host/s3cret", "https://host:0/s3cret", "host/s3cret", "https://[s3cret"]
)
def test_an_address_is_not_shown(write: Write, url: str) -> None:
    """A webhook's path is a secret, and so may be a password in it: the key is named, the value is not."""
    with pytest.raises(ConfigurationError) as caught:
        write(f"notify: [{{url: '{url}'}}]")
    assert "notify.0.url" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_all_errors_are_told_at_once(write: Write) -> None:
    """Two mistakes give two lines."""
    with pytest.raises(ConfigurationError) as caught:
        write("http: {port: high}\nexecutor: {slots: many}")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """A file that was asked for and is not there is an error, not the defaults."""
    with pytest.raises(ConfigurationError, match="There is no configuration file"):
        load(tmp_path / name)


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named goes before REWARM_CONFIG, and that before the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("rewarm.yaml", "named.yaml", "from-environment.yaml"):
        (tmp_path / name).write_text("")
    environment = {"REWARM_CONFIG": "from-environment.yaml"}
    assert find(Path("named.yaml"), environment) == Path("named.yaml")
    assert find(None, environment) == Path("from-environment.yaml")
    assert find(None, {}) == Path("rewarm.yaml")
    with pytest.raises(ConfigurationError, match="REWARM_CONFIG"):
        find(None, {"REWARM_CONFIG": "nowhere.yaml"})


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("REWARM_HTTP__PORT", "9000", ("http", "port"), 9000),
        ("REWARM_HTTP__ENABLED", "false", ("http", "enabled"), False),
        ("REWARM_EXECUTOR__SLOTS", "4", ("executor", "slots"), 4),
        ("REWARM_EXECUTOR__WARM_WORKERS", "0", ("executor", "warm_workers"), 0),
        ("REWARM_MLFLOW__TRACKING_URI", "http://m:5000", ("mlflow", "tracking_uri"), "http://m:5000"),
        ("REWARM_JOURNAL", "sqlite:///other.db", ("journal",), "sqlite:///other.db"),
        ("REWARM_STATE", "elsewhere", ("state",), Path("elsewhere")),
        ("REWARM_ROOTS", '["a", "b"]', ("roots",), (Path("a"), Path("b"))),
    ],
)
def test_the_environment_overrides_the_file(
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    path: tuple[str, ...],
    expected: object,
) -> None:
    """A REWARM_ variable goes before the file, key by key: what stands beside it stays."""
    monkeypatch.setenv(variable, value)
    found: object = write("http: {host: h, port: 1}\nexecutor: {slots: 2}").settings
    for name in path:
        found = getattr(found, name)
    assert found == expected
    assert write("http: {host: h, port: 1}").settings.http.host == "h"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("REWARM_HTTP__PORT", "high", ["REWARM_HTTP__PORT", "http.port", "integer", "'high'"]),
        ("REWARM_HTTP__PROT", "1", ["REWARM_HTTP__PROT", "http.prot", "Did you mean 'port'"]),
        ("REWARM_ROOTS", "no json", ["environment", "roots"]),
        ("REWARM_HTTP", "[1]", ["REWARM_HTTP", "http"]),
        ("REWARM_SOURCES", '[{"kind": "spool"}]', ["the environment (REWARM_SOURCES)", "sources.0.spool.path"]),
    ],
)
def test_errors_of_the_environment_name_the_variable(
    write: Write, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: list[str]
) -> None:
    """A wrong override is not blamed on the file."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        write("http: {port: 1}")
    for word in words:
        assert word in str(caught.value)
    assert "rewarm.yaml" not in str(caught.value)


def test_relative_paths_count_from_the_file(
    write: Write, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory does not matter; absolute paths stay, and so do other tracking servers."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    configuration = write("roots: [in, /data/in]\nsources: [{kind: spool, path: s}]")
    assert configuration.journal == tmp_path / "var/journal.db"
    assert configuration.state == tmp_path / "var"
    assert configuration.roots == (tmp_path / "in", Path("/data/in"))
    assert configuration.spools == (tmp_path / "s",)
    assert configuration.tracking_uri == f"sqlite:///{tmp_path}/var/mlflow.db"
    assert write("journal: sqlite:////abs/j.db").journal == Path("/abs/j.db")
    assert write("mlflow: {tracking_uri: 'http://m:5000'}").tracking_uri == "http://m:5000"
    assert write("mlflow: {tracking_uri: null}").tracking_uri is None


def test_a_relative_name_of_the_file_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is named by a relative path gives absolute paths all the same."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert load(Path("sub/c.yaml")).state == tmp_path / "sub" / "var"


def test_the_hash_tells_what_matters(write: Write) -> None:
    """The hash is the same for the same policies, stages and slots, however they are written; all else is left out."""
    base = write(policies("kind: promotion")).changed()
    assert write(policies("kind: promotion")).changed() == base
    same = [
        "pipelines:\n  p:\n    policies:\n      - kind: promotion\n        min_gain: 0.0\n",
        policies("kind: promotion") + "\nhttp: {port: 1}\nroots: [x]\nstate: elsewhere",
    ]
    for text in same:
        assert write(text).changed().hash == base.hash
    others = [
        policies("kind: promotion, min_gain: 0.1"),
        policies("kind: promotion, name: gate"),
        policies("kind: promotion", "kind: stage_recovery"),
        policies("kind: stage_recovery", "kind: promotion"),
        policies("kind: promotion") + "\nexecutor: {slots: 2}",
        "pipelines: {q: {policies: [{kind: promotion}]}}",
        "pipelines: {p: {policies: [{kind: promotion}], priority: 1}}",
        "pipelines: {p: {policies: [{kind: promotion}], max_domains: 3}}",
        "pipelines: {p: {policies: [{kind: promotion}], stages: [ingest]}}",
        "pipelines: {p: {policies: [{kind: promotion}], model: {preset: micro}}}",
    ]
    hashes = [write(text).changed().hash for text in others]
    assert base.hash not in hashes
    assert len(set(hashes[:2] + hashes[4:])) == len(hashes) - 2
    assert hashes[2] != hashes[3], "the configured order decides who goes first"


def test_the_fact_survives_its_json(write: Write) -> None:
    """`configuration.changed` comes back from the journal as it was."""
    changed = write((ROOT / "rewarm.yaml").read_text()).changed()
    assert msgspec.json.decode(msgspec.json.encode(changed), type=type(changed)) == changed
    assert changed.pipelines["docs-lm"].policies[1].name == "periodic_retraining"
    assert '"from":"base"' in changed.pipelines["docs-lm"].policies[1].configuration


def test_own_stages_are_classes(write: Write) -> None:
    """A stage of one's own is named by its module and class, and has no place in the order of ours."""
    configuration = write("pipelines: {p: {stages: [ingest, 'my.package:Stage', train]}}")
    assert configuration.settings.pipelines["p"].stages == ("ingest", "my.package:Stage", "train")
    for name in ("my.package:", ":Stage", "my.package:1x"):
        with pytest.raises(ConfigurationError, match="is no stage"):
            write(f"pipelines: {{p: {{stages: ['{name}']}}}}")


def test_yaml_merge_keys_work(write: Write) -> None:
    """A mapping may take over another's keys; only a key that is written twice is refused."""
    text = "pipelines:\n  a: &base {priority: 1, stages: [ingest]}\n  b:\n    <<: *base\n    priority: 2\n"
    pipelines = write(text).settings.pipelines
    assert (pipelines["a"].priority, pipelines["b"].priority) == (1, 2)
    assert pipelines["b"].stages == ("ingest",)
