"""Recover a failed stage: what each failure class calls for, within what budget, and what the next attempt changes."""

from policies.stage_recovery.policy import StageRecovery
from policies.stage_recovery.table import ANSWERS, LOST

__all__ = ["ANSWERS", "LOST", "StageRecovery"]
