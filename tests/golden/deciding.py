"""Histories of looks, guards and plateaus."""

from datetime import timedelta

from tests.golden.tape import Tape

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
HEAL = "{kind: stage_recovery}"
JUDGE = "{kind: promotion}"
LOSES, GAINS = {"prose": (0.01, 0.0, 0.02)}, {"prose": (-0.1, -0.15, -0.05)}


def one(*policies: str) -> str:
    """Return a configuration of one pipeline `p`."""
    return f"pipelines: {{p: {{policies: [{', '.join(policies)}]}}}}\n"


def looks() -> Tape:
    """Looks that find too little, or a shift; a person who does not wait; a look whose policy is gone when it ends."""
    grow = (
        "{kind: rewarm_replay, when: {any: [{tokens: 400}, {signal: shift, above: 0.5}, {age: P2D}]}, "
        "look: {tokens: 100}}"
    )
    tape = Tape(one(grow, HEAL, JUDGE))
    tape.arrive(420)
    tape.finish()
    for shift in (0.1, 0.2, 0.9):
        tape.arrive(120)
        tape.until("probe")
        tape.succeed(shift=shift)
    tape.finish()
    tape.arrive(30)
    tape.request("train", reason="it cannot wait")
    tape.finish()
    tape.request("train")
    tape.arrive(30)
    tape.wait(3 * DAY)
    tape.finish()
    tape.arrive(120)
    tape.request("train", reason="while a run looks")
    tape.finish()
    tape.arrive(120)
    tape.until("probe")
    tape.start(one(HEAL, JUDGE))
    tape.finish()
    return tape


def guards() -> Tape:
    """A cooldown, quiet hours, a debounce, a key that is taken, an approval, a budget that is used up."""
    cooled = "{kind: rewarm_replay, after_tokens: 100, guards: {cooldown: PT6H}}"
    tape = Tape(one(cooled, HEAL, JUDGE))
    for _ in range(2):
        tape.arrive(120)
        tape.rest()
    tape.wait(7 * HOUR)
    tape.rest()
    quiet = '{kind: rewarm_replay, after_tokens: 100, guards: {quiet: [{from: "08:00", to: "22:00"}], debounce: PT5M}}'
    tape.start(one(quiet, HEAL, JUDGE))
    tape.arrive(120)
    tape.wait(6 * HOUR)
    tape.rest()
    tape.arrive(120)
    tape.wait(HOUR)
    tape.rest()
    asked = '{kind: rewarm_replay, after_tokens: 100, guards: {approval: true, once: {key: "{champion}", within: P7D}}}'
    tape.start(one(asked, HEAL, JUDGE))
    tape.arrive(120)
    standing = tape.of().verdicts["rewarm_replay"].position
    tape.request("approve", decision=standing + 1000)
    tape.request("approve", decision=standing)
    tape.finish(differences={"prose": (0.2, 0.1, 0.3)})
    tape.arrive(120)
    tape.start(one("{kind: rewarm_replay, after_tokens: 100, guards: {budget: {per_day: 0.5}}}", HEAL, JUDGE))
    tape.request("freeze", reason="a holiday")
    tape.request("thaw")
    tape.rest()
    tape.arrive(120)
    tape.until("train")
    tape.begin()
    tape.wait(HOUR)
    return tape


def plateau() -> Tape:
    """Increments that gain nothing any more: a band of the past is trained on from two starts, and the gate picks."""
    grow = "{kind: rewarm_replay, after_tokens: 100}"
    again = (
        "{kind: periodic_retraining, plateau: {min_gain: 0.05, window: 2}, max_forgotten: 5.0, "
        "from: [champion, base], curate: {by: sigma, cuts: [{high: 1.5}]}}"
    )
    tape = Tape(one(grow, again, HEAL, "{kind: promotion, max_forgetting: 1.0, min_gain: -1.0}"))
    tape.arrive(120)
    tape.finish()
    for _ in range(2):
        tape.arrive(120)
        tape.finish(differences=LOSES)
    tape.finish(differences=GAINS)
    tape.finish(differences=LOSES)
    tape.rest()
    return tape
