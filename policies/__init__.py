"""When to train, how, and what may go live: one file or folder is one policy; the union below registers it."""

from typing import Annotated

from pydantic import Field

from policies.custom import Custom
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

AnyPolicy = Annotated[
    RewarmReplay | PeriodicRetraining | StageRecovery | Promotion | Custom, Field(discriminator="kind")
]
