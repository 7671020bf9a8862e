"""Chance that repeats itself: a generator for each purpose, named by what it is for."""

from random import Random


def seeded(*purpose: object) -> Random:
    """Return a generator that gives the same numbers for the same purpose, in every process."""
    return Random("/".join(str(part) for part in purpose))  # noqa: S311 - a made-up history is no secret
