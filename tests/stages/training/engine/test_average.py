"""The moving average of the weights."""

import torch

from stages.training.engine.average import Average


def test_the_average_follows_its_formula_and_is_shown_without_a_trace() -> None:
    """Decay (1 + t) / (10 + t) at first, then the plan's; shown, it takes the weights' place for a while."""
    model = torch.nn.Linear(1, 1, bias=False)
    expected = model.weight.item()
    average = Average(model, 0.5)
    for step in range(1, 30):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step

    with average.shown():
        assert abs(model.weight.item() - expected) < 1e-5
    assert model.weight.item() == 29.0
    assert abs(average.dump()["weight"].item() - expected) < 1e-5


def test_a_loaded_average_goes_on_alike() -> None:
    """What is dumped is all there is."""
    model = torch.nn.Linear(4, 4)
    first = Average(model, 0.9)
    first.update(1)
    with torch.no_grad():
        model.weight.mul_(2)
    second = Average(model, 0.9)
    second.load({name: mean.clone() for name, mean in first.dump().items()})
    first.update(2)
    second.update(2)

    assert all(torch.equal(first.dump()[name], second.dump()[name]) for name in ("weight", "bias"))
