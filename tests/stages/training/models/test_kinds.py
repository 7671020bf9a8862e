"""The kinds of models, one adapter each."""

from collections.abc import Callable

from msgspec.structs import replace

from daemon.core.events import AnyEvent, StageFailed
from daemon.core.plans import ModelSettings, Plan


def test_a_kind_that_is_not_known_is_told_with_the_known(
    make_base_plan: Callable[..., Plan], run_stage: Callable[..., list[AnyEvent]]
) -> None:
    """A plan of a later version may name one."""
    plan = replace(make_base_plan(), model=ModelSettings(kind="rnn"))
    failed = run_stage("train", plan=plan)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "user_error"
    assert "'rnn' is not known; known kinds: llama, hf, module" in failed.message
