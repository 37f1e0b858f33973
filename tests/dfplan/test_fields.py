"""Configs: every field of every acting config is of its type, in its range and finite, or the config is not made."""

import dataclasses
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest

from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.decision_diffuser import DecisionDiffuserAgentConfig
from dfplan.agents.diffuser import DiffuserAgentConfig
from dfplan.agents.diffusion_veteran import VeteranConfig
from dfplan.agents.full_sequence import SequenceAgentConfig
from dfplan.agents.mppi import MPPIConfig
from dfplan.agents.offline.base import ActingConfig
from dfplan.planning.plan_config import PlanConfig

CONFIGS = (
    PlanConfig,
    AgentConfig,
    SequenceAgentConfig,
    DiffuserAgentConfig,
    DecisionDiffuserAgentConfig,
    VeteranConfig,
    MPPIConfig,
    ActingConfig,
)
WRONG = {
    int: (2.5, 2.0, "2", True, None, np.nan, [2], -1),
    float: ("2", True, None, np.nan, -np.inf, 1j, [2.0]),
    str: ("nothing of the kind", 1, None),
}
FIELDS = [(config, field.name) for config in CONFIGS for field in dataclasses.fields(config)]


def kind(config, name):
    """int, float, str or another type, whatever its range."""
    hint = get_type_hints(config)[name]
    return type(get_args(hint)[0]) if str(get_origin(hint)) == "typing.Literal" else hint


NEEDED = {MPPIConfig: {"action_dim": 2}}
"""Fields without a default."""


@pytest.mark.parametrize("config, name", FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_field_of_another_type_or_without_sense_is_refused_with_its_name(config, name):
    hint = kind(config, name)
    nothing = (None,) * (type(None) not in get_args(hint))
    for value in WRONG.get(hint, ("text", 1.5, *nothing)):
        with pytest.raises(ValueError, match=f"^{config.__name__}: {name}.* must .*, got ") as caught:
            config(**NEEDED.get(config, {}) | {name: value})
        assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config, name, value",
    [
        (PlanConfig, "steps", 0),
        (PlanConfig, "eta", 1.5),
        (PlanConfig, "scale", -1.0),
        (PlanConfig, "futures", -1),
        (PlanConfig, "future_steps", 0),
        (PlanConfig, "scale", np.inf),
        (AgentConfig, "speed", 0.0),
        (AgentConfig, "arrival", -0.1),
        (SequenceAgentConfig, "eta", -0.1),
        (DiffuserAgentConfig, "velocity_columns", (2, -3)),
        (DecisionDiffuserAgentConfig, "omega", np.nan),
        (DecisionDiffuserAgentConfig, "target", np.inf),
        (VeteranConfig, "candidates", 0),
        (VeteranConfig, "temperature", np.inf),
        (MPPIConfig, "temperature", 0.0),
        (MPPIConfig, "limit", np.nan),
    ],
)
def test_a_field_out_of_its_range_is_refused(config, name, value):
    with pytest.raises(ValueError, match=f"^{config.__name__}: {name}.* must be "):
        config(**NEEDED.get(config, {}) | {name: value})


def test_what_means_the_same_is_taken():
    config = PlanConfig(steps=np.int64(3), scale=np.float32(0.5), eta=1)
    assert (config.steps, config.scale, config.eta) == (3, 0.5, 1)
    assert type(config.steps) is int and type(config.scale) is float, "NumPy's scalars are no JSON"
    assert DiffuserAgentConfig(velocity_columns=[1, 2]).velocity_columns == (1, 2)
    assert MPPIConfig(2, limit=np.inf).limit == np.inf
    assert AgentConfig(plan=PlanConfig(steps=3)).plan.steps == 3


def test_a_long_value_is_not_shown_whole():
    with pytest.raises(ValueError, match="PlanConfig: steps must be a valid integer, got 'x") as caught:
        PlanConfig(steps="x" * 10_000)
    assert len(str(caught.value)) < 120
