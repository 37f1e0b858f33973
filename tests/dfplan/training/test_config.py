"""The learning rate of a step, and what a configuration refuses."""

import itertools
import math
from dataclasses import replace

import pytest
from regression import CONFIG

from dfplan.training.config import TrainConfig, learning_rate


def test_learning_rate_rises_linearly_then_falls_along_half_a_cosine():
    config = TrainConfig(steps=110, learning_rate=0.5, warmup_steps=10, schedule="cosine")
    rates = [learning_rate(step, config) for step in range(110)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert rates[10] == 0.5
    assert rates[60] == pytest.approx(0.25)
    assert 0 < rates[-1] < 0.5 * 1e-3
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_constant_learning_rate():
    config = TrainConfig(steps=100, learning_rate=0.5, warmup_steps=4, schedule="constant")
    assert [learning_rate(step, config) for step in (0, 3, 4, 50, 99)] == [0.125, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("steps", True),
        ("batch_size", -1),
        ("learning_rate", math.nan),
        ("learning_rate", "high"),
        ("gradient_clip", 0.0),
        ("weight_decay", math.inf),
        ("ema_decay", 1.0),
        ("precision", "16-mixed"),
        ("schedule", "linear"),
        ("seed", -1),
        ("warmup_steps", -1),
    ],
)
def test_config_names_the_bad_field(field, value):
    with pytest.raises(ValueError, match=field):
        replace(CONFIG, **{field: value})
