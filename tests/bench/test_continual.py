"""The comparison of continual pre-training: its texts, its arms by the real engine, and what it says of them."""

import gzip
import json
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from daemon.core.plans import ModelSettings
from stages.run_folder import read_specification
from tests.bench import bench_continual, continual_arms, continual_text
from tests.bench.bench_continual import Course, Size
from tests.bench.continual_account import Arms, account, difference
from tests.bench.continual_arms import ArmFailed, Reading, Readings
from tests.bench.continual_text import Domain

WORDS = {"old": "the model reads and learns from old words", "new": "9 = ( x ) ; 7 [ y ] { } 4 +"}
SIZE = Size(tokens=3_000, model=ModelSettings(preset="micro"), batch=4, context=32, peaks=(1e-2,), measured=2_000)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of two corpora, their documents in groups of three."""
    for name, words in WORDS.items():
        generator = random.Random(name)
        texts = [" ".join(generator.choices(words.split(), k=150)) for _ in range(60)]
        rows = [{"id": f"{name}-{at}", "group": f"{name}-{at // 3}", "text": text} for at, text in enumerate(texts)]
        with gzip.open(tmp_path / f"{name}.train.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path


@pytest.fixture
def domains(data: Path) -> tuple[Domain, Domain]:
    """Both of them, cut."""
    old, new = (continual_text.folder(data, name, SIZE.tokens, SIZE.measured) for name in ("old", "new"))
    return old, new


def test_no_group_is_trained_on_and_measured(domains: tuple[Domain, Domain]) -> None:
    """Groups are held out whole, and each part has about the bytes that were asked for."""
    for domain in domains:
        assert not {each.group for each in domain.train} & {each.group for each in domain.held_out}
        assert SIZE.tokens <= sum(len(each.text) for each in domain.train) < 2 * SIZE.tokens
        assert domain.held_out


def test_a_folder_without_the_domain_says_so(data: Path) -> None:
    """The message names the file that is missing and the settings that choose another."""
    with pytest.raises(FileNotFoundError, match=r"de\.train\.jsonl\.gz: name the two domains by FROM= and TO="):
        continual_text.folder(data, "de", 1, 1)


def test_every_arm_is_trained_by_the_engine_and_kept(
    domains: tuple[Domain, Domain], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arms that saw both domains were trained on as many tokens; a second time nothing is trained."""
    world = continual_arms.make_world(tmp_path / "state", domains, SIZE.model, 1)
    course = Course(size=SIZE, old="old", new="new", tokens=min(SIZE.tokens, *world.tokens.values()), seed=1)
    found = bench_continual.compare(world, course)
    first = capsys.readouterr().out

    assert [row["arm"] for row in found.rows][-4:] == [
        bench_continual.TRUNK,
        bench_continual.UNION,
        bench_continual.NEW_ONLY,
        bench_continual.AT_FLOOR,
    ]
    peak = float(str(found.details["peak"]))
    arms = course.arms(peak)
    spent = {arm.name: arm.training.tokens for arm in (course.base(peak), *arms.values())}
    for told, arm in arms.items():
        whole = spent[arm.name] + (spent[arm.of[0]] if arm.of else 0)
        assert whole == (1 if told in bench_continual.ONE_DOMAIN else 2) * course.tokens
    trunk = read_specification(tmp_path / "state" / "runs" / arms[bench_continual.TRUNK].name / "train" / "1")
    assert trunk.plan.start.checkpoint is not None
    assert trunk.plan.start.checkpoint.path.endswith("/trunk")
    assert (trunk.plan.training.optimiser, trunk.plan.training.replay) == ("keep", 0.25)
    assert found.details["new_learned_low"] > 0  # type: ignore[operator]
    assert "all is done at about" in first
    assert first.count("(kept)") == 0

    again = bench_continual.compare(world, course)
    assert capsys.readouterr().out.count("(kept)") == first.count("nats per byte")
    assert again == found


def test_the_sweep_goes_on_until_the_best_peak_lies_inside() -> None:
    """Beyond the end at which the best one lies half or double of it is tried, and not without end."""
    course = Course(size=SIZE, old="old", new="new", tokens=64, seed=1)

    def after(**losses: float) -> float | None:
        return bench_continual.beyond(course, {float(peak[1:]): readings(loss, 1.0) for peak, loss in losses.items()})

    assert after(p4=2.0, p8=2.1) == 2.0
    assert after(p4=2.2, p8=2.1) == 16.0
    assert after(p4=2.2, p8=2.1, p16=2.3) is None
    assert after(p1=2.0) is None
    assert after(p1=2.0, p2=2.1, p4=2.2, p8=2.3, p16=2.4, p32=2.5) is None


def test_an_arm_that_fails_says_what_its_stage_said(domains: tuple[Domain, Domain], tmp_path: Path) -> None:
    """A message names the arm, the stage, its reason and where it lies."""
    world = continual_arms.make_world(tmp_path / "state", domains, SIZE.model, 1)
    course = Course(size=SIZE, old="old", new="new", tokens=64, seed=1)
    arm = msgspec.structs.replace(course.base(1e-3), data=())

    with pytest.raises(ArmFailed, match=r"d0-0\.001: train did not succeed: .*nothing to train on"):
        continual_arms.train(world, arm)


def reading(loss: float, *, noise: float = 0.0, stream: int = 0) -> Reading:
    """Return a reading of forty documents, the same ones for every loss."""
    sizes = np.random.Generator(np.random.Philox(key=[1, 0])).integers(200, 2000, 40).astype(np.float64)
    hard = np.random.Generator(np.random.Philox(key=[2, 0])).normal(0.0, 0.3, 40)
    own = np.random.Generator(np.random.Philox(key=[3, stream])).normal(0.0, noise, 40)
    return Reading(nats=list((loss + hard + own) * sizes), bytes=list(sizes))


def readings(old: float, new: float, *, noise: float = 0.02, stream: int = 0) -> Readings:
    """Return an arm's readings of both domains."""
    return {"old": reading(old, noise=noise, stream=stream), "new": reading(new, noise=noise, stream=stream + 1)}


def test_the_account_tells_the_papers_order() -> None:
    """What forgets, repairs and learns has intervals above zero; the share removed is that of the paper's table."""
    arms = Arms(
        base=readings(2.17, 4.0),
        trunk_base=readings(2.16, 4.0),
        no_replay=readings(3.56, 1.11, stream=2),
        replay=readings(2.33, 1.16, stream=4),
        trunk=readings(2.30, 1.16, stream=6),
        union=readings(2.26, 1.25, stream=8),
    )
    found = account(arms, [], old="old", new="new", seed=1)

    assert found.removed == pytest.approx(0.88, abs=0.02)
    for name in ("no_replay_forgets", "replay_repairs", "new_learned"):
        assert 0 < found.details[f"{name}_low"] < found.details[name] < found.details[f"{name}_high"]  # type: ignore[operator]
    assert found.details["recipe_to_union"] == pytest.approx(-0.01, abs=0.01)


def test_where_nothing_is_forgotten_nothing_holds() -> None:
    """Without forgetting the lower ends of the intervals are at or below zero, and no share is claimed."""
    same = readings(2.0, 2.0)
    arms = Arms(base=same, trunk_base=same, no_replay=same, replay=same, trunk=same, union=same)
    found = account(arms, [], old="old", new="new", seed=1)

    assert found.removed == 0.0
    assert found.details["no_replay_forgets_low"] == 0.0


def test_differences_are_paired() -> None:
    """What two arms differ by on each document is known far better than what either loses."""
    one, other = reading(2.0, noise=0.01, stream=1), reading(1.95, noise=0.01, stream=2)
    apart = difference(one, other, 1)

    assert 0.04 < apart.low < apart.mean < apart.high < 0.06
