"""What is special to each family of tasks is in its suite, and every task has one."""

from pkgutil import resolve_name

import numpy as np
import pytest

from dfplan.benchmarks.suites import ogbench, suite
from dfplan.data.features import Features
from dfplan.data.spec import Spec
from dfplan.data.trajectories import Trajectories
from dfplan.envs.registry import TASKS, find, short_name


@pytest.mark.parametrize("name", dict.fromkeys(task.suite for task in TASKS.values()))
def test_every_suite_names_tasks_of_its_own_and_their_data(name):
    found = suite.named(name)
    assert {find(one).suite for one in found.tasks} == {name} and set(found.trained) <= set(found.tasks)
    assert {short_name(find(one).data_id) for one in found.tasks} == set(found.trained)
    assert suite.called(name) is found


def test_all_stands_for_the_mazes_and_other_names_for_no_suite():
    assert suite.called("all") is suite.named("maze2d") and suite.called("cube-single") is None
    with pytest.raises(ValueError, match="there is no suite 'nowhere'"):
        suite.named("nowhere")


@pytest.mark.parametrize("count", [1, 2])
def test_cubes_are_seen_from_the_effector_and_look_the_same_after_a_quarter_turn(count):
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(5, 19 + 9 * count))

    def turned(yaw, cube):
        found = observation.copy()
        found[:, 19 + 9 * cube + 7], found[:, 19 + 9 * cube + 8] = np.cos(yaw), np.sin(yaw)
        return ogbench.cubes(found)

    first = ogbench.cubes(observation)
    assert first.shape == (5, 7 + 10 * count) and np.array_equal(ogbench.cubes(observation[0]), first[0])
    for cube in range(count):
        place = observation[:, 19 + 9 * cube :][:, :3]
        assert np.array_equal(first[:, 7 + 3 * cube :][:, :3], place)
        own = slice(7 + 3 * count + 7 * cube, 7 + 3 * count + 7 * (cube + 1))
        assert np.allclose(first[:, own][:, 2:5], place - observation[:, 12:15])
        assert np.allclose(turned(0.3, cube)[:, own][:, 5:], turned(0.3 + np.pi / 2, cube)[:, own][:, 5:])
        assert not np.allclose(turned(0.3, cube)[:, own][:, 5:], turned(0.8, cube)[:, own][:, 5:])


def test_the_goal_of_cubes_is_their_place_in_a_whole_observation():
    observation = np.arange(28.0)
    features = Features(function="ogbench-cubes", goal_columns=(7, 8, 9))
    assert features.goal(observation).tolist() == [19.0, 20.0, 21.0]


def test_a_scene_shows_what_can_be_asked_for_and_its_handles_from_the_effector():
    observation = np.zeros(40)
    observation[[12, 13, 19, 20, 21, 28, 33, 36, 38]] = 1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 1.0, 1.8, 3.0
    seen = ogbench.scene(observation)
    assert seen.shape == (25,) and np.allclose(seen, ogbench.scene(np.stack([observation] * 2))[1])
    goal = Features(function="ogbench-scene", goal_columns=ogbench.THINGS["scene"].goal).goal(observation)
    assert goal.tolist() == [3.0, 4.0, 5.0, 1.8, 3.0, 0.0, 1.0], "the cube, drawer and window, the second button is on"
    assert np.allclose(seen[-2:], [-2.4 - 1.8 / 1.8 - 2.0, -1.39 + 3.0 / 1.5 - 1.0])


def test_a_puzzle_is_asked_for_by_its_buttons():
    observation = np.zeros(19 + 4 * 9)
    observation[19 + 4 * 3 + 1] = 1.0
    things = ogbench.THINGS["puzzle-3x3"]
    assert Features(function="ogbench-buttons", goal_columns=things.goal).goal(observation).tolist() == 3 * [0] + [
        1
    ] + 5 * [0]


def _walk(goals):
    observations = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32).repeat(4, axis=0)  # with rests
    features = Features(goal_columns=tuple(range(7, 7 + goals)))
    return Trajectories(
        observations, observations[:, :5], observations[:, 0] * 0, np.array([0]), "walk", features=features
    )


@pytest.mark.parametrize("name", ogbench.THINGS)
def test_ogbenchs_default_recipe_learns_each_thing_and_asks_for_one_at_a_time(name):
    task, things = find(name), ogbench.THINGS[name]
    spec = Spec(40, 5, things.goal, longest=1001, mixing=300)
    recipe = resolve_name(suite.of(task).recipes["default"])(spec, suite.of(task).budget(task))
    several = len(things.groups) > 1
    assert recipe.model.goal_groups == (things.groups if several else ()) and recipe.model.condition == ("goal",)
    assert recipe.model.goal_within == things.goal_within
    assert recipe.batches(_walk(len(things.goal))).__self__.goal_within == things.goal_within
    assert recipe.acting.in_turn == (things.within if several else ()) and recipe.train.steps == things.steps
    assert recipe.acting.plan.temperature == things.temperature and recipe.acting.plan.steps == 8
    assert recipe.model.kinds == things.kinds and bool(things.kinds) == (name in ("scene", "puzzle-3x3"))
    assert recipe.model.alike == things.alike and bool(recipe.acting.clearance) == bool(things.alike)


def test_cubes_are_alike_in_all_that_is_seen_of_them():
    observation = np.random.default_rng(0).normal(size=19 + 9 * 2)
    other = np.concatenate([observation[:19], observation[28:], observation[19:28]])
    seen, things = ogbench.cubes(observation), ogbench.THINGS["cube-double"]
    order = np.arange(27)
    order[[*things.alike[0], *things.alike[1]]] = [*things.alike[1], *things.alike[0]]
    assert np.array_equal(seen[order], ogbench.cubes(other))


@pytest.mark.slow
def test_ogbenchs_columns_are_where_the_suite_takes_them_from():
    pytest.importorskip("ogbench")
    env = find("cube-single").make()
    env.reset(seed=0, options={"task_id": 1})
    seen, state = env.unwrapped.compute_observation(), env.unwrapped.compute_ob_info()
    scaled = 10 * (np.asarray(state["proprio/effector_pos"]) - [0.425, 0.0, 0.0])
    assert np.allclose(seen[ogbench.JOINTS : ogbench.JOINTS + 3], scaled, atol=1e-4)
    yaw = np.arctan2(seen[27], seen[26])
    assert np.allclose(np.cos(yaw - state["privileged/block_0_yaw"]), 1, atol=1e-4)
    env.close()


@pytest.mark.slow
def test_handles_of_a_scene_are_where_the_suite_takes_them_to_be():
    pytest.importorskip("ogbench")
    env = find("scene").make()
    for number in (1, 2):  # drawer and window closed, and open
        env.reset(seed=0, options={"task_id": number})
        state = env.unwrapped.compute_ob_info()
        apart = ogbench.scene(env.unwrapped.compute_observation())[-2:]
        effector, handles = state["proprio/effector_pos"], ("drawer", "window")
        found = [state[f"privileged/{one}_handle_pos"] - effector for one in handles]
        assert np.allclose(apart, [10 * found[0][1], 10 * found[1][0]], atol=0.02)
        assert np.allclose(ogbench.scene(env.unwrapped.compute_observation())[12:14], state["button_states"])
    env.close()


def test_plans_in_point_mazes_are_as_long_as_ways_in_the_data():
    from dfplan.benchmarks.recipes.budget import budget_of
    from dfplan.benchmarks.suites import pointmaze

    for longest, mixing, stride, tokens in ((1001, 249, 25, 40), (201, 130, 5, 41), (2001, 400, 40, 41)):
        spec = Spec(2, 2, (0, 1), longest=longest, mixing=mixing)
        recipe = pointmaze.default(spec, budget_of(spec))
        assert (recipe.model.layout.stride, recipe.model.tokens) == (stride, tokens)
        assert recipe.model.goal_columns == (0, 1) and recipe.acting.speed > 1
