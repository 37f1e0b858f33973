import subprocess
import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import registry

from dfplan.envs import TASKS, make
from dfplan.envs.packages import Package
from dfplan.envs.registry import LEVELS, MAZES, find


def test_every_task_leads_to_data_and_has_a_name_of_its_own():
    for task in TASKS.values():
        assert find(task.data_id).data_id == task.data_id
        assert find(task.env_id).env_id == task.env_id
    families = {"maze2d", "ogbench", "pointmaze", "memory", "locomotion", "fetch", "kitchen", "adroit"}
    assert {task.suite for task in TASKS.values()} == families
    assert {task.suite for task in MAZES.values()} == {"maze2d"}


@pytest.mark.parametrize(
    ("name", "env_id"),
    [("cube-single", "cube-single-v0"), ("fetchreach", "FetchReach-v4"), ("hopper-mixed-own", "hopper-mixed-own-v0")],
)
def test_a_task_is_found_without_its_version_and_in_any_case(name, env_id):
    assert find(name).env_id == env_id


@pytest.mark.parametrize("env_id", [name for name, task in TASKS.items() if task.suite in ("ogbench", "fetch")])
def test_the_limits_of_robots_are_those_of_their_packages(env_id):
    task = TASKS[env_id]
    pytest.importorskip(task.package.module)
    task.package.load("a test")
    assert gymnasium.spec(env_id).max_episode_steps == task.max_episode_steps


@pytest.mark.parametrize(("body", "width"), [("hopper", 11), ("walker2d", 17), ("halfcheetah", 17)])
def test_locomotion_is_gymnasiums_own(body, width):
    names = {"hopper": "Hopper-v5", "walker2d": "Walker2d-v5", "halfcheetah": "HalfCheetah-v5"}
    standard = gymnasium.spec(names[body])
    for level in LEVELS:
        spec = registry[f"{body}-{level}-own-v0"]
        assert (spec.entry_point.split(":")[1], spec.max_episode_steps, spec.kwargs) == (
            standard.entry_point.split(":")[1],
            standard.max_episode_steps,
            {},
        )
    assert make(f"{body}-medium-own-v0").reset(seed=0)[0].shape == (width,)


def test_a_missing_package_is_one_sentence(monkeypatch):
    missing = replace(TASKS["cube-single-v0"], package=Package("no_such_package", "no-such-package>=3"))
    monkeypatch.setitem(TASKS, "cube-single-v0", missing)
    sentence = (
        "the environment cube-single-v0 needs the package no_such_package, which is not installed: "
        "pip install 'no-such-package>=3'"
    )
    with pytest.raises(ModuleNotFoundError) as raised:
        missing.make()
    assert str(raised.value) == sentence


def test_no_optional_package_is_loaded_for_the_names():
    program = "import sys, dfplan.envs; print({'ogbench', 'gymnasium_robotics', 'mujoco'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


def test_an_id_that_is_not_ours_is_gymnasiums():
    assert make("CartPole-v1").spec.id == "CartPole-v1"


def test_an_ogbench_episode_is_a_function_of_its_seed():
    pytest.importorskip("ogbench")
    env = find("cube-single").make()
    first, again, other = (env.reset(seed=seed, options={"task_id": 2}) for seed in (5, 5, 6))
    for one, two in ((first[0], again[0]), (first[1]["goal"], again[1]["goal"])):
        assert np.array_equal(one, two)
    assert not np.array_equal(first[1]["goal"], other[1]["goal"])
    assert np.allclose(first[1]["goal"][19:22], other[1]["goal"][19:22], atol=0.01)  # the task's place for the cube
    observation, _, terminated, _, info = env.step(env.action_space.sample())
    assert observation.shape == (28,) and not terminated and not info["success"]
    assert not np.array_equal(env.reset()[1]["goal"], env.reset()[1]["goal"])
    drawn = [env.reset(seed=seed) and env.unwrapped.cur_task_id for seed in (*range(12), *range(12))]
    assert drawn[:12] == drawn[12:] and len(set(drawn)) > 2
