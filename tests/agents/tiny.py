"""Trajectory models that are made in no time, for tests of what is done with them."""

from dfplan.data.tokens import TokenLayout
from dfplan.models import TransformerConfig
from dfplan.planning.model_config import TrajectoryModelConfig


def tiny(observation_dim, action_dim, stride, width=16, levels=8, longest_gap=4):
    """Plans of up to four tokens to goals in the first two columns of an observation."""
    model = TransformerConfig(width=width, depth=1, heads=2)
    layout = TokenLayout(observation_dim, action_dim, stride=stride)
    return TrajectoryModelConfig(layout, (0, 1), tokens=5, levels=levels, model=model, longest_gap=longest_gap)
