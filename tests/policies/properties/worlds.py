"""What is configured in the lives: every guard, alone and with others, in pipelines that share their slots."""

from collections.abc import Mapping

from daemon.core.decisions import Policy
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery
from tests.policies.properties.driver import Setup

DEFAULTS: Mapping[str, object] = {"after_tokens": 100_000, "max_age": "P1D"}
LOOKS: Mapping[str, object] = {"when": {"signal": "shift", "above": 0.3}, "look": {"tokens": 60_000}}


def policies(
    guards: Mapping[str, object], increments: type[RewarmReplay] = RewarmReplay, fields: Mapping[str, object] = DEFAULTS
) -> tuple[Policy, ...]:
    """Make the policies of a pipeline: increments and retrains behind the same guards."""
    return (
        increments.model_validate({**fields, "guards": guards}),
        PeriodicRetraining.model_validate({"after_increments": 4, "guards": guards, "priority": 1}),
        StageRecovery(retries=3),
        Promotion(),
    )


COOLDOWN = {"cooldown": "PT8H", "debounce": "PT20M"}
BUDGET = {"budget": {"per_day": 2.5, "per_month": 12}}
"""The month of March is used up before it ends, with a week to go."""
QUIET = {
    "quiet": [
        {"days": "mon-fri", "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"},
        {"days": "fri-sun", "from": "22:00", "to": "03:00", "timezone": "Europe/Berlin"},
    ]
}
ONCE = {"once": {"key": "{champion} {day}", "within": "PT9H", "scope": "pipeline"}}

SETUPS = {
    "cooldown": Setup({"p": policies(COOLDOWN)}),
    "looks": Setup({"p": policies({"cooldown": "PT8H", **BUDGET}, fields=LOOKS)}),
    "budget": Setup(
        {"p": policies(BUDGET), "q": policies(BUDGET, fields={**DEFAULTS, "priority": 2})}, slots=1, days=9
    ),
    "quiet": Setup({"p": policies(QUIET), "q": policies({**QUIET, **ONCE})}, slots=1, days=9),
    "reloads": Setup({"p": policies({**QUIET, **ONCE}), "q": policies(ONCE)}, slots=1, days=9, reloads=1.5),
    "approval": Setup({"p": policies({"approval": True, "debounce": "PT1H"})}, requests=12),
    "all": Setup({"p": policies({**COOLDOWN, **BUDGET, **QUIET, **ONCE})}, requests=3, failing=0.15),
}
