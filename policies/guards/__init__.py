"""Guards: what keeps a policy from starting although it is due. Nothing that waits behind one is lost."""

from policies.guards.base import VERDICTS, Guarded, Start
from policies.guards.guards import Guards

__all__ = ["VERDICTS", "Guarded", "Guards", "Start"]
