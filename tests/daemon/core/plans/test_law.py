"""What the planner's law says: finite whatever it is asked, and monotone where the paper's is."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.core.plans.law import NEW, OLD, Law, NewDomain, OldDomain, Traits, forgetting, gain

positive = st.floats(1e-3, 1e3)
losses = st.floats(0, 5)
shares = st.floats(0, 0.9)
UNFITTED = Law(runs=0, error=None)
Make = Callable[..., Traits]


@st.composite
def laws(draw: st.DrawFn) -> Law:
    """Draw a law with any coefficients that a fit can give."""
    new = {name: draw(positive) for name in NEW}
    return Law(runs=3, error=0.01, new=new, old={name: draw(positive) for name in OLD})


def traits(replay: float = 0.05, forward: float = 0.5, annealing: float = 0.0, **domains: object) -> Traits:
    """Make the traits of a run on one new domain, with one old one."""
    old = OldDomain(shift=0.5, height=0.3, lost=0.1, first=False, part=replay)
    new = NewDomain(excess=0.8, unseen=False, part=1 - replay)
    return Traits(
        old=(replace(old, **domains.get("old", {})),),  # type: ignore[arg-type]
        new=(replace(new, **domains.get("new", {})),),  # type: ignore[arg-type]
        forward=forward,
        annealing=annealing,
        replay=replay,
        tokens=1000,
        trunk=False,
    )


@given(laws(), losses, losses, st.booleans(), shares, st.floats(0, 1e4), st.floats(-10, 10))
def test_predictions_are_finite(
    law: Law, loss: float, lost: float, first: bool, replay: float, forward: float, annealing: float
) -> None:
    """Whatever was fitted and measured, the law answers with numbers."""
    old = {"shift": loss, "height": loss, "lost": lost, "first": first}
    seen = traits(replay, forward, annealing, old=old, new={"excess": loss, "unseen": first})
    assert math.isfinite(gain(law, seen))
    assert math.isfinite(forgetting(law, seen))


@given(laws(), shares, shares)
def test_replay_never_makes_more_forgotten_nor_more_gained(law: Law, one: float, other: float) -> None:
    """At the same areas, more of the old domain in every batch keeps more of it and leaves less to the new."""
    less, more = sorted((one, other))
    low, high = traits(less), traits(more)
    assert forgetting(law, high) <= forgetting(law, low) + 1e-9 * (1 + abs(forgetting(law, low)))
    assert gain(law, high) <= gain(law, low) + 1e-9


@given(laws(), st.floats(0, 100), st.floats(0, 100))
def test_a_larger_forward_area_gains_more(law: Law, one: float, other: float) -> None:
    """The gain grows with the forward area, and saturates."""
    less, more = sorted((one, other))
    assert gain(law, traits(forward=less)) <= gain(law, traits(forward=more)) + 1e-9


@given(laws(), losses, losses)
def test_a_stronger_shift_forgets_more(law: Law, one: float, other: float) -> None:
    """Forgetting grows with the shift and with how far there is to fall, the gain with the excess."""
    less, more = sorted((one, other))
    for name in ("shift", "height"):
        low, high = traits(old={name: less}), traits(old={name: more})
        assert forgetting(law, low) <= forgetting(law, high) + 1e-9 * (1 + abs(forgetting(law, high)))
    assert gain(law, traits(new={"excess": less})) <= gain(law, traits(new={"excess": more})) + 1e-9


@given(laws(), st.floats(-1, 1), st.floats(-1, 1))
def test_a_larger_annealing_area_lowers_both_losses(law: Law, one: float, other: float) -> None:
    """What the paper calls the annealing area lowers the loss on old and on new domains."""
    less, more = sorted((one, other))
    low, high = traits(annealing=less), traits(annealing=more)
    assert forgetting(law, high) <= forgetting(law, low) + 1e-9 * (1 + abs(forgetting(law, low)))
    assert gain(law, low) <= gain(law, high) + 1e-9 * (1 + abs(gain(law, high)))


def test_by_hand() -> None:
    """The formula of the module's page, computed apart from it."""
    law = Law(
        runs=3,
        error=None,
        new={"share": 0.5, "offset": 0.1, "speed": 30.0, "anneal": 2.0, "trunk": 0.01},
        old={
            "share": 0.4,
            "room": 0.6,
            "offset": 0.1,
            "speed": 30.0,
            "relief": 60.0,
            "reach": 0.5,
            "transfer": 0.2,
            "anneal": 2.0,
            "trunk": 0.01,
        },
    )
    seen = replace(traits(replay=0.05, forward=0.5, annealing=-0.01), trunk=True)
    grown = 1 - (1 + 30 * 0.5 * 0.95) ** -0.25
    assert gain(law, seen) == pytest.approx(0.5 * (0.8 + 0.1) * grown - 0.02 + 0.01)
    lost = (0.4 * 0.5 + 0.6 * 0.3 + 0.1) * grown / math.sqrt(1 + 60 * 0.05)
    regained = 0.5 * (0.1 + 0.1) * (1 - (1 + 30 * 0.5 * (0.05 + 0.2 * 0.95)) ** -0.25)
    assert forgetting(law, seen) == pytest.approx(lost - regained + 0.02 - 0.01)


def test_an_unseen_domain_and_a_first_shift_have_coefficients_of_their_own() -> None:
    """What is not known yet is guessed by other numbers than what is."""
    law = Law(runs=3, error=None, new={"share": 1.0, "unseen": 0.5}, old={"share": 0.1, "first": 1.0})
    assert gain(law, traits(new={"unseen": True})) == pytest.approx(gain(law, traits()) / 2)
    assert forgetting(law, traits(old={"first": True})) > forgetting(law, traits())


def test_without_old_domains_nothing_is_forgotten() -> None:
    """A run whose domains all came again has nothing to forget."""
    seen = replace(traits(), old=())
    assert (forgetting(UNFITTED, seen), seen.shift) == (0.0, 0.0)


def test_a_law_without_a_coefficient_is_read_with_what_is_known_before() -> None:
    """A law that was stored before a coefficient existed still speaks."""
    whole = Law(runs=3, error=None, new=dict(NEW), old=dict(OLD))
    assert gain(UNFITTED, traits()) == gain(whole, traits())
    assert forgetting(UNFITTED, traits()) == forgetting(whole, traits())
