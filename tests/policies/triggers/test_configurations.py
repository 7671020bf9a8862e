"""What stands in a file: recognised by its one key, or refused with a sentence."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from daemon.config import load
from daemon.core.errors import ConfigurationError

Make = Any
Json = dict[str, object]


@pytest.mark.parametrize(
    "fields",
    [
        {"tokens": 5},
        {"documents": 5, "domain": "code"},
        {"arrivals": 1},
        {"age": "P7D"},
        {"age": 60, "of": "base"},
        {"silence": "PT1H"},
        {"increments": 3},
        {"forgotten": 0.1, "domain": "prose"},
        {"regret": 0.5},
        {"signal": "evaluation.accuracy", "below": 0.9, "for": 3},
        {"signal": "gain", "below": 0.01, "since": "base"},
        {"signal": "drift.ks", "quantile": 0.9, "window": 20, "least": 10, "side": "below"},
        {"signal": "shift", "deviation": 3, "for": 80},
        {"any": [{"all": [{"none": [{"majority": [{"at_least": 1, "of": [{"tokens": 1}]}]}]}]}]},
    ],
)
def test_a_trigger_survives_its_json(make: Make, fields: Json) -> None:
    """What the journal keeps of it makes an equal one of the same kind, which asks for the same signals."""
    made = make.trigger(fields)
    again = make.again(make.json(made))
    assert again == made
    assert type(again) is type(made)
    assert make.json(again) == make.json(made)
    assert all(1 <= length <= 100 for length in again.signals.values())
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, next(iter(type(made).model_fields)), 1)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{tokns: 5}", "exactly one of these keys: tokens, documents"),
        ("{tokens: 5, age: P7D}", "several conditions are a list below `any` or `all`"),
        ("tokens", "a trigger is keys and values"),
        ("[{tokens: 5}]", "a trigger is keys and values"),
        ("{any: []}", "at least 1 item"),
        ("{any: {tokens: 5}}", "must be a list"),
        ("{any: [{tokens: 0}]}", "any.any.0.tokens.tokens: Input should be greater than or equal to 1"),
        ("{tokens: 5, domian: x}", "Did you mean 'domain'? Known keys: domain, tokens"),
        ("{all: [{signal: shift, abov: 5}]}", "Did you mean 'above'?"),
        ("{signal: loss, above: 1}", "there is no signal 'loss'; known signals: shift"),
        ("{signal: drift., above: 1}", "there is no signal"),
        ("{signal: detected.psi}", "exactly one of `above`, `below`"),
        ("{signal: detected.psi, above: 1, below: 2}", "exactly one of `above`, `below`"),
        ("{signal: detected.psi, above: 1, window: 9}", "`side` and `window` are of a bound that moves"),
        ("{signal: detected.psi, deviation: 1, window: 60, for: 41}", "together reach over 100 values"),
        ("{signal: detected.psi, deviation: 1, window: 3, least: 4}", "`least` must not lie above `window`"),
        ("{signal: gain, below: 1, since: settled}", "it counts `since: base`"),
        ("{at_least: 3, of: [{tokens: 1}]}", "is more than the 1 triggers of `of`"),
        ("{regret: 0}", "greater than 0"),
        ("{age: PT0S}", "greater than 0"),
        ("{signal: shift, above: 0.1}", "say in `look` when one shall, as in `look: {tokens: 200000}`"),
        ("{tokens: 1}, look: {signal: drift.ks, above: 1}", "looking is what measures it"),
        ("{tokens: 1}, look: {regret: 1}", "it belongs into `when`"),
        ("{tokens: 1}, after_tokens: 5", "`when` takes the place of `after_tokens` and `max_age`"),
        ("{tokens: 1}, max_age: P1D", "`when: {any: [{tokens: 2000000}, {age: P7D}]}`"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, when: str, message: str) -> None:
    """The error names the place, what is wrong, and what there is; nobody needs to know Python."""
    file = tmp_path / "rewarm.yaml"
    file.write_text(f"pipelines: {{p: {{policies: [{{kind: rewarm_replay, when: {when}}}]}}}}")
    with pytest.raises(ConfigurationError) as error:
        load(file)
    assert "pipelines.p.policies.0.rewarm_replay" in str(error.value)
    assert message in str(error.value)
    assert "function" not in str(error.value)


def test_a_pipeline_keeps_the_signals_that_its_triggers_look_at(tmp_path: Path) -> None:
    """Each as long as whoever needs most of it; the fold keeps no others."""
    file = tmp_path / "rewarm.yaml"
    file.write_text(
        "pipelines: {p: {policies: [{kind: rewarm_replay, when: {any: [{signal: shift, above: 1, for: 4},"
        " {signal: shift, deviation: 2}, {signal: label.f1, below: 1}]}, look: {signal: detected.psi, above: 1}}]}}"
    )
    assert load(file).changed().pipelines["p"].signals == {"detected.psi": 1, "label.f1": 1, "shift": 31}
