"""Triggers: conditions on what waits, on time and on signals, which compose; policies ask them."""

from policies.triggers.base import Moment, Told, Trigger, everything, leaves, moment, needed, together, unseen
from policies.triggers.votes import AnyTrigger

__all__ = ["AnyTrigger", "Moment", "Told", "Trigger", "everything", "leaves", "moment", "needed", "together", "unseen"]
