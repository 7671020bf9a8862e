"""Policies of somebody's own: found beside the configuration, checked by their class, kept in the journal."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from daemon.config import load
from daemon.core.errors import ConfigurationError
from daemon.replay import in_force
from policies import AnyPolicy
from policies.base import BasePolicy
from policies.custom import Custom

if TYPE_CHECKING:
    from collections.abc import Iterator

ADAPTER: TypeAdapter[BasePolicy] = TypeAdapter(AnyPolicy)
MODULE = '''
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field

from daemon.core.decisions import Decision
from daemon.core.events import ScheduleSettings
from policies.base import BasePolicy, Starting


class Patient(BasePolicy):
    """Waits."""

    version: ClassVar[int] = 7
    kind: Literal["patient"] = "patient"
    patience: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0))
    count: int = Field(default=3, ge=1, alias="times")

    @property
    def ticks(self):
        return ScheduleSettings(cron="0 3 * * *")

    @property
    def signals(self) -> Mapping[str, int]:
        return {"shift": self.count}

    def decide(self, state, record):
        return Decision(verdict="waiting", reason=f"It waits {self.patience}.")

    def opinion(self, state, record):
        return Decision(verdict="waiting", reason="It is of an opinion.")


class FreshStart(Starting):
    """Has no kind."""

    def decide(self, state, record):
        return None


class Abstract(BasePolicy):
    """Decides nothing."""


class Odd(BasePolicy):
    """Has a default that its own bounds refuse, and a name that is taken."""

    kind: Literal["operator"] = "operator"

    def decide(self, state, record):
        return None


NUMBER = 5
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Path]":
    """A folder with a module of policies, and nothing of it left afterwards."""
    (tmp_path / "ours.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "boom.py").write_text("raise RuntimeError('no luck')", encoding="utf-8")
    (tmp_path / "needy.py").write_text("import nothing_like_that", encoding="utf-8")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)", encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("ours", "boom", "needy", "leaves"):
        sys.modules.pop(name, None)


def configured(folder: Path, *policies: str, pipeline: str = "") -> Any:  # noqa: ANN401 - a configuration
    """Load a configuration with these policies in flow form."""
    file = folder / "rewarm.yaml"
    listed = ", ".join(f"{{{policy}}}" for policy in policies)
    file.write_text(f"pipelines: {{docs-lm: {{{pipeline}policies: [{listed}]}}}}", encoding="utf-8")
    return load(file)


def test_it_is_found_beside_the_configuration(folder: Path) -> None:
    """Label, version, calendar, signals and answers are those of the class behind it."""
    configuration = configured(folder, 'kind: custom, class: "ours:Patient", times: 5, patience: PT2H')
    (policy,) = configuration.settings.pipelines["docs-lm"].policies
    assert isinstance(policy, Custom)
    assert (policy.label, policy.version, policy.signals) == ("patient", 7, {"shift": 5})
    assert policy.ticks is not None
    decided = policy.decide(None, None)  # type: ignore[arg-type]  # it looks at neither
    assert decided is not None
    assert decided.reason == "It waits 2:00:00."
    opinion = policy.opinion(None, None)  # type: ignore[arg-type]  # as above
    assert opinion is not None
    assert opinion.reason == "It is of an opinion."


def test_the_journal_keeps_it_whole_and_makes_it_again(folder: Path) -> None:
    """`configuration.changed` holds the class, its fields with its defaults, its version, its calendar and its mode."""
    changed = configured(
        folder, 'kind: custom, class: "ours:Patient", name: mine, times: 5', pipeline="mode: shadow, "
    ).changed()
    (kept,) = changed.pipelines["docs-lm"].policies
    assert (kept.name, kept.kind, kept.version, kept.shadow) == ("mine", "custom", 7, True)
    assert kept.schedule is not None
    assert changed.pipelines["docs-lm"].signals == {"shift": 5}
    assert '"patience":"PT1H","times":5' in kept.configuration
    policies, news = in_force(changed)
    (again,) = policies["docs-lm"]
    assert news == {}
    assert isinstance(again, Custom)
    assert again.model_dump_json(by_alias=True) == kept.configuration
    assert again.shadow
    assert again.inner.model_dump() == {
        "name": "mine",
        "mode": "shadow",
        "kind": "patient",
        "patience": timedelta(hours=1),
        "count": 5,
    }


def test_another_version_of_its_code_is_told_as_a_change(folder: Path) -> None:
    """What the journal decided with an older version is explained by that, as with policies that rewarm brings."""
    changed = configured(folder, 'kind: custom, class: "ours:Patient"').changed()
    sys.modules["ours"].Patient.version = 8
    _, news = in_force(changed)
    assert list(news.values()) == ["custom had version 7, now it has 8"]


def test_two_of_a_class_need_names(folder: Path) -> None:
    """Labels are unique in a pipeline; a class without a kind is called by its own name."""
    policy = ADAPTER.validate_python({"kind": "custom", "class": "ours:FreshStart"}) if _here(folder) else None
    assert policy is not None
    assert policy.label == "fresh_start"
    with pytest.raises(ConfigurationError, match="fresh_start"):
        configured(folder, 'kind: custom, class: "ours:FreshStart"', 'kind: custom, class: "ours:FreshStart"')
    named = configured(
        folder, 'kind: custom, class: "ours:FreshStart"', 'kind: custom, class: "ours:FreshStart", name: second'
    )
    assert [each.label for each in named.settings.pipelines["docs-lm"].policies] == ["fresh_start", "second"]


def test_its_own_mode_wins(folder: Path) -> None:
    """The pipeline's mode is the default of its policies, of one's own and of rewarm's."""
    configuration = configured(
        folder,
        'kind: custom, class: "ours:Patient"',
        "kind: promotion, mode: act",
        "kind: stage_recovery",
        pipeline="mode: shadow, ",
    )
    assert [each.shadow for each in configuration.settings.pipelines["docs-lm"].policies] == [True, False, True]
    acting = configured(folder, "kind: promotion", "kind: stage_recovery, mode: shadow")
    assert [each.shadow for each in acting.settings.pipelines["docs-lm"].policies] == [False, True]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('class: "ours:Patient", times: 0', "class 'ours:Patient': times: Input should be greater than or equal to 1"),
        ('class: "ours:Patient", count: 1', "count: is no field of it; its fields: mode, name, patience, times"),
        ('class: "ours:Missing"', "module ours has no Missing"),
        ('class: "ours:NUMBER"', "class 'ours:NUMBER' is no policy"),
        ('class: "ours:Abstract"', "class 'ours:Abstract' has no method 'decide'"),
        ('class: "ours:Odd"', "this name is rewarm's own"),
        ('class: "nowhere.at_all:X"', "there is no module 'nowhere'"),
        ('class: "boom:X"', "importing boom failed: RuntimeError: no luck"),
        ('class: "needy:X"', "importing needy failed: No module named 'nothing_like_that'"),
        ('class: "leaves:X"', "importing leaves failed: SystemExit: 3"),
        ('class: "ours"', "names no class: write 'package.module:Class'"),
        ('class: "policies.custom:Custom"', "is no policy"),
        ("times: 1", "custom.class: Field required"),
    ],
)
def test_mistakes_name_class_and_field(folder: Path, given: str, words: str) -> None:
    """Whatever is wrong is a configuration error with the place in the file, and never a traceback."""
    with pytest.raises(ConfigurationError) as caught:
        configured(folder, f"kind: custom, {given}")
    assert words in str(caught.value)
    assert "pipelines.docs-lm.policies.0.custom" in str(caught.value)


def _here(folder: Path) -> bool:
    """Let the module be found as a configuration beside it would."""
    sys.path.append(str(folder))
    return True
