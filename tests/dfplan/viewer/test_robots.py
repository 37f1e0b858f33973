"""A robot's page: pictures with the places of a plan in them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from dfplan.agents.loading import from_pretrained
from dfplan.benchmarks.suites import ogbench  # noqa: F401  # registers the features that weights name
from dfplan.envs.registry import find
from dfplan.viewer.questions import Question
from dfplan.viewer.robots import SIDE, RobotScene

pytest.importorskip("ogbench", reason="the robots are not installed: pip install -e '.[robots]'")
ASKED = {"options": {"steps": 3}, "task": 2, "seed": 1}


@pytest.fixture(scope="module")
def robot():
    return RobotScene(find("cube-single"), from_pretrained("cube-single"))


def shown(part):
    kind, _, content = part["picture"].partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_robots_page_has_its_tasks_and_what_moves(robot):
    scene = robot.to_json()
    assert scene["tasks"] == 5 and list(scene["things"]) == ["effector", "cube 1"] and scene["streaming"] is None
    assert [slider["option"] for slider in scene["sliders"]] == ["uncertainty", "steps", "temperature"]


@pytest.mark.slow
def test_a_plan_and_an_episode_are_places_in_pictures(robot):
    question = Question.read(ASKED)
    try:
        plan = robot.plan(question)
    except ValueError as error:
        assert "OpenGL" in str(error)
        pytest.skip(str(error))
    levels, tracks = np.array(plan["levels"]), np.array(plan["tracks"])
    assert shown(plan).size == (SIDE, SIDE) and levels[0].tolist() == [0, 1, 1, 1] and not levels[-1].any()
    assert len(levels) == 4 and tracks.shape == (2, 4, 4, 2) and plan["steps"] == 15
    assert (np.abs(tracks[:, -1] - 0.5) < 0.6).all(), "a plan lies in its picture, or hardly outside"
    first, second = (part for part, _ in zip(robot.drive(question), range(2), strict=False))
    assert (first["step"], second["step"], first["reached"]) == (0, 2, None) and shown(second).size == (SIDE, SIDE)
    np.testing.assert_allclose(np.array(first["plan"])[:, 0], tracks[:, -1, 0], atol=0.01)


def test_what_a_robot_cannot_be_asked_is_one_sentence(robot):
    with pytest.raises(ValueError, match="has 5 tasks, there is no 6"):
        robot.plan(Question.read(ASKED | {"task": 6}))
    with pytest.raises(ValueError, match="hopper-mixed-own-v0 have no places to be shown"):
        RobotScene(find("hopper-mixed-own"), robot.agent)
    with pytest.raises(ValueError, match="not a BehaviorCloningAgent"):
        RobotScene(find("cube-single"), from_pretrained("cube-single-bc"))
