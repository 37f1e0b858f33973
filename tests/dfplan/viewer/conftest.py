"""A scene with a small untrained agent, which plans within milliseconds."""

import pytest
from every_agent import trajectory_model

from dfplan.envs.registry import MAZES
from dfplan.viewer.scene import Scene


@pytest.fixture(scope="session")
def scene():
    return Scene(
        MAZES["maze2d-umaze-v1"], trajectory_model(horizons=1, replan_every=20, goal="known", scale=0.0, futures=0)
    )
