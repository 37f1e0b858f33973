"""OGBench's point mazes: the package's own, but for the seed; data by the published recipe."""

import gymnasium
import numpy as np
import pytest

from dfplan.envs.collect import own_recipe
from dfplan.envs.registry import POINT_MAZES, find
from dfplan.envs.shards import episodes, make_shards, read_shard

pytest.importorskip("ogbench", reason="OGBench is not installed: pip install -e '.[robots]'")
ENTRANCE = np.array([20.0, 12.0])
EXITS = np.array([[24.0, 0.0], [0.0, 20.0], [36.0, 20.0]])


@pytest.fixture(scope="module")
def teleports():
    return find("pointmaze-teleport-navigate").make()


def test_the_environments_are_the_packages_own():
    find("pointmaze-large-stitch").make().close()  # it loads the package
    for env_id, maze in POINT_MAZES.items():
        ours, theirs = gymnasium.spec(env_id), gymnasium.spec(f"pointmaze-{maze}-v0")
        for name in ("entry_point", "max_episode_steps", "kwargs"):
            assert getattr(ours, name) == getattr(theirs, name)


def played(env, seed, steps=40):
    """An episode below an entrance, upwards: what is observed, the goal, and where the point is in the end."""
    observation, info = env.reset(seed=seed, options={"task_id": 3})
    seen = [observation, info["goal"]]
    for _ in range(steps):
        observation, *_ = env.step(np.array([0.2 * (20 - observation[0]), -1.0]))
        seen.append(observation)
    return np.array(seen)


def test_an_episode_with_a_teleport_is_a_function_of_its_seed_and_numpys_generator_is_left_alone(teleports):
    before = np.random.get_state()[1].tolist()
    first, again = played(teleports, 5), played(teleports, 5)
    assert np.array_equal(first, again) and np.random.get_state()[1].tolist() == before
    jumps = np.linalg.norm(np.diff(first[2:], axis=0), axis=1) > 2
    assert jumps.sum() == 1
    ends = {tuple(played(teleports, seed)[-1].round(-1)) for seed in range(12)}
    assert len(ends) == 3, "each exit is drawn now and then"
    starts = {tuple(teleports.reset(seed=seed, options={"task_id": 3})[1]["goal"]) for seed in range(4)}
    assert len(starts) == 4


def test_what_is_observed_on_the_step_of_a_teleport_is_before_it(teleports):
    places = played(teleports, 0)[2:]
    step = int(np.argmax(np.linalg.norm(np.diff(places, axis=0), axis=1)))
    assert np.linalg.norm(places[step] - ENTRANCE) <= 1.5
    assert np.linalg.norm(EXITS - places[step + 1], axis=1).min() < 0.5


def test_the_data_are_a_function_of_their_seed_and_whole_episodes(tmp_path):
    recipe = own_recipe(find("pointmaze-teleport-stitch")).changed(2 * 201, seed=3)
    assert recipe.SHARD_STEPS % 201 == 0 and recipe.steps < own_recipe(find("pointmaze-teleport-stitch")).steps
    make_shards(recipe, tmp_path, workers=1, title="mazes", quiet=True)
    arrays = read_shard(tmp_path, 0)
    again, other = recipe.collect(0, tmp_path), recipe.changed(2 * 201, seed=4).collect(0, tmp_path)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert not np.array_equal(arrays["observations"], other["observations"])
    found = list(episodes(arrays))
    assert [len(one["actions"]) for one in found] == [201, 201]
    for one in found:
        places, actions = one["observations"], one["actions"]
        assert places.shape == (202, 2) and np.abs(actions).max() <= 1 and not one["rewards"].any()
        moved = np.diff(places, axis=0)
        free = np.isclose(moved, 0.2 * actions, atol=1e-4).all(axis=1)
        assert free.mean() > 0.5, "where nothing is in the way a step is a fifth of the action"


@pytest.mark.slow
def test_the_guide_reaches_one_goal_after_another(tmp_path):
    recipe = own_recipe(find("pointmaze-medium-navigate")).changed(1001)
    (one,) = episodes(recipe.collect(0, tmp_path))
    cells = {tuple(cell) for cell in np.floor((one["observations"] + 6) / 4).astype(int)}
    assert len(cells) >= 12


def test_the_guide_knows_hallways_and_what_is_four_cells_away():
    from dfplan.envs.ogbench_mazes import Guide, new_env

    env = new_env("pointmaze-large-stitch-v0").unwrapped
    guide = Guide(env)
    assert (2, 4) in guide.cells and (2, 4) not in guide.corners and {(1, 1), (3, 4)} <= set(guide.corners)
    assert set(guide.nearby((1, 1))) == {(2, 4), (3, 3), (5, 1)}
    env.set_xy(env.ij_to_xy((1, 1)))
    action = np.mean([guide.action((1, 4)) for _ in range(200)], axis=0)
    assert action[0] > 0.7 and abs(action[1]) < 0.2, "to the right, and sometimes less than the most"
