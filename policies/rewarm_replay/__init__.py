"""Continue the champion on new data: when, and by which schedule, peak, replay and length."""

from policies.rewarm_replay.policy import RewarmReplay

__all__ = ["RewarmReplay"]
