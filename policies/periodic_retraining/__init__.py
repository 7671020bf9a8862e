"""Retrain on everything, or on a band of it: when, from where, and one beside the other."""

from policies.periodic_retraining.policy import PeriodicRetraining

__all__ = ["PeriodicRetraining"]
