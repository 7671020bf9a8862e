"""The gate: a candidate judged, what is live watched, and what has to go again taken back."""

from policies.promotion.policy import Promotion

__all__ = ["Promotion"]
