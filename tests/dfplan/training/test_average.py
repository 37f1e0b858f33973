import pytest
from torch import nn

from dfplan.training.average import MovingAverage, ema_decay


def test_moving_average_has_its_closed_form():
    module = nn.Linear(1, 1, bias=False)
    values = [3.0, -1.0, 4.0, 1.0, 5.0]
    nn.init.constant_(module.weight, 2.0)
    average = MovingAverage(module)
    for value in values:
        nn.init.constant_(module.weight, value)
        average.update(0.9)
    expected = 0.9**5 * 2.0 + sum(0.1 * 0.9 ** (4 - i) * value for i, value in enumerate(values))
    assert average.state["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_moving_average_forgets_the_first_weights():
    assert ema_decay(0, 0.999) == 0.1
    assert ema_decay(10, 0.999) == 11 / 20
    assert ema_decay(10**6, 0.999) == 0.999


def test_tied_weights_have_one_average_under_both_names():
    module = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    module["b"].weight = module["a"].weight
    average = MovingAverage(module)
    assert average.state.keys() == {"a.weight", "b.weight"}
    assert average.state["a.weight"] is average.state["b.weight"]
