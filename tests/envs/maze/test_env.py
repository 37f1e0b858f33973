import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as stable_baselines3_check

from dfplan.envs.maze.env import Maze2dEnv
from dfplan.envs.registry import CUSTOM_ID, MAZES

LAYOUT = "######\n#OOOG#\n######"


@pytest.mark.parametrize("env_id", [*MAZES, CUSTOM_ID])
@pytest.mark.parametrize("goal_conditioned", [False, True])
def test_gymnasiums_checker_accepts_every_id(env_id, goal_conditioned):
    options = {"layout": LAYOUT} if env_id == CUSTOM_ID else {}
    env = gym.make(env_id, render_mode="rgb_array", goal_conditioned=goal_conditioned, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*Box observation space .* value is -?infinity")  # D4RL's space
        check_env(env.unwrapped)


@pytest.mark.parametrize("env_id", [*MAZES, CUSTOM_ID])
@pytest.mark.parametrize("goal_conditioned", [False, True])
def test_stable_baselines3s_checker_accepts_every_id(env_id, goal_conditioned):
    options = {"layout": LAYOUT} if env_id == CUSTOM_ID else {}
    stable_baselines3_check(gym.make(env_id, goal_conditioned=goal_conditioned, **options).unwrapped)


@pytest.mark.parametrize(
    ("env_id", "steps"),
    [("maze2d-umaze-v1", 300), ("maze2d-medium-v1", 600), ("maze2d-large-v1", 800), ("maze2d-eval-large-dense-v1", 800),
     ("maze2d-open-v0", 150), ("multi2d-medium-v1", 600)],
)  # fmt: skip
def test_an_episode_is_truncated_at_d4rls_length_and_never_terminates(env_id, steps):
    env = gym.make(env_id)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(steps)]
    assert ends == [(False, False)] * (steps - 1) + [(False, True)]


def test_the_observation_is_position_and_velocity_in_float64():
    env = gym.make("maze2d-large-v1")
    state = [1.0, 1.0, 0.5, -0.25]
    observation, info = env.reset(options={"state": state})
    assert observation.dtype == np.float64
    assert observation.tolist() == state
    assert info["goal"].tolist() == [7.0, 9.0]
    assert info["success"] is False


@pytest.mark.parametrize("reward", ["", "-dense"])
def test_the_reward_is_that_of_the_distance_after_the_step(reward):
    env = gym.make(f"maze2d-open{reward}-v0")
    goal = env.reset(options={"state": [2.0, 2.35, 0.0, 1.0]})[1]["goal"]
    rewards, distances, successes = [], [], []
    for _ in range(60):
        observation, value, _, _, info = env.step(np.array([0.0, 0.2]))
        rewards.append(value)
        distances.append(np.hypot(*(observation[:2] - goal)))
        successes.append(info["success"])
    inside = np.array(distances) <= 0.5
    assert 0 < inside.sum() < 60  # crosses the border of the goal
    assert successes == inside.tolist()
    expected = np.exp(-np.array(distances)) if reward else inside.astype(float)
    np.testing.assert_allclose(rewards, expected, rtol=1e-12)


def test_the_distribution_of_starts_is_d4rls():
    env = gym.make("maze2d-umaze-v1").unwrapped
    starts = np.array([env.reset(seed=0 if i == 0 else None)[0] for i in range(4000)])
    offsets = starts[:, :2] - np.round(starts[:, :2])
    assert np.abs(offsets).max() <= 0.1
    np.testing.assert_allclose(offsets.std(axis=0), 0.2 / np.sqrt(12), rtol=0.05)
    np.testing.assert_allclose(starts[:, 2:].std(axis=0), 0.1, rtol=0.05)
    cells, counts = np.unique(np.round(starts[:, :2]).astype(int), axis=0, return_counts=True)
    assert sorted(map(tuple, cells)) == sorted(map(tuple, env.layout.free_cells))  # the goal's cell among them
    assert np.abs(counts - 4000 / 7).max() < 5 * np.sqrt(4000 / 7)


def test_a_fixed_goal_stays_and_a_random_one_moves():
    fixed, moving = gym.make("maze2d-medium-v1"), gym.make("multi2d-medium-v1")
    assert len({tuple(fixed.reset(seed=seed)[1]["goal"]) for seed in range(5)}) == 1
    goals = np.array([moving.reset(seed=seed)[1]["goal"] for seed in range(200)])
    assert len(np.unique(goals, axis=0)) == 200
    cells = np.round(goals).astype(int)
    assert not moving.unwrapped.layout.walls[tuple(cells.T)].any()
    assert np.abs(goals - cells).max() <= 0.1
    assert moving.step(np.zeros(2))[4]["goal"].tolist() == goals[-1].tolist()


@pytest.mark.parametrize("env_id", ["maze2d-large-v1", "multi2d-large-v1"])
def test_the_same_seed_gives_the_same_episode(env_id):
    def episode(seed):
        env = gym.make(env_id)
        observation, info = env.reset(seed=seed)
        env.action_space.seed(seed)
        steps = [env.step(env.action_space.sample())[0] for _ in range(100)]
        return np.concatenate([observation, info["goal"], np.concatenate(steps)])

    assert np.array_equal(episode(3), episode(3))
    assert not np.array_equal(episode(3), episode(4))


def test_the_goal_conditioned_observation_serves_hindsight():
    env = gym.make("multi2d-large-v1", goal_conditioned=True)
    observation, info = env.reset(seed=0)
    assert {key: value.shape for key, value in observation.items()} == {
        "observation": (4,),
        "achieved_goal": (2,),
        "desired_goal": (2,),
    }
    assert observation["desired_goal"].tolist() == info["goal"].tolist()
    achieved, rewards = [], []
    for _ in range(50):
        observation, reward, _, _, info = env.step(np.array([1.0, 0.3], np.float32))
        achieved.append(observation["achieved_goal"])
        rewards.append(reward)
    goals = np.tile(info["goal"], (50, 1))
    assert env.unwrapped.compute_reward(np.array(achieved), goals, [{}] * 50).tolist() == rewards
    relabeled = env.unwrapped.compute_reward(np.array(achieved), np.tile(achieved[-1], (50, 1)), [{}] * 50)
    assert relabeled[-1] == 1.0
    assert env.unwrapped.compute_reward(achieved[0], achieved[0]).shape == ()


def test_only_a_goal_conditioned_environment_relabels():
    with pytest.raises(AttributeError, match="goal_conditioned=True"):
        _ = gym.make("maze2d-large-v1").unwrapped.compute_reward


@pytest.mark.parametrize("env_id", ["maze2d-open-dense-v0", "multi2d-umaze-v1"])
def test_relabeling_gives_the_very_reward_of_the_step(env_id):
    env = gym.make(env_id, goal_conditioned=True).unwrapped
    observation, _ = env.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, size=(200, 2)):
        observation, reward, *_ = env.step(action)
        assert reward == env.compute_reward(observation["achieved_goal"], observation["desired_goal"], {})


@pytest.mark.parametrize(
    ("achieved", "desired"),
    [
        (np.ones(4), np.ones(4)),
        (np.ones((3, 2)), np.ones((2, 2))),
        (np.array([np.nan, 1.0]), np.ones(2)),
        (np.ones(2), np.ones(2) * 1j),
        (["1", "2"], np.ones(2)),
    ],
)
def test_bad_goals_are_not_relabeled(achieved, desired):
    with pytest.raises(ValueError, match="goal"):
        gym.make("multi2d-umaze-v1", goal_conditioned=True).unwrapped.compute_reward(achieved, desired)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_environments_agree_with_single_ones(mode):
    vector = gym.make_vec("multi2d-umaze-v1", num_envs=2, vectorization_mode=mode)
    try:
        observations, infos = vector.reset(seed=[5, 6])
        actions = np.array([[0.5, -0.5], [1.0, 0.25]], np.float32)
        stepped = [vector.step(actions)[0] for _ in range(20)]
    finally:
        vector.close()
    for row, seed in enumerate((5, 6)):
        env = gym.make("multi2d-umaze-v1")
        observation, info = env.reset(seed=seed)
        assert np.array_equal(observations[row], observation)
        assert np.array_equal(infos["goal"][row], info["goal"])
        for batch in stepped:
            assert np.array_equal(batch[row], env.step(actions[row])[0])


def test_a_copied_or_pickled_environment_goes_on_bit_for_bit():
    env = gym.make("multi2d-large-v1").unwrapped
    env.reset(seed=0)
    for _ in range(40):
        env.step(np.array([1.0, 0.5]))  # leans on a wall
    others = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    rng = np.random.default_rng(0)
    for action in rng.uniform(-1, 1, size=(50, 2)):
        expected = env.step(action)[0]
        assert all(np.array_equal(other.step(action)[0], expected) for other in others)
    expected = env.reset()[0]
    assert all(np.array_equal(other.reset()[0], expected) for other in others)


def test_the_picture_shows_walls_goal_and_particle():
    env = gym.make(CUSTOM_ID, layout=LAYOUT, render_mode="rgb_array")
    env.reset(options={"state": [1, 1, 0, 0]})
    left = env.render()
    env.reset(options={"state": [1, 3, 0, 0]})
    right = env.render()
    assert left.dtype == np.uint8
    assert left.shape == (3 * 40, 6 * 40, 3)
    assert len({tuple(left[20, 20]), tuple(left[1 * 40 + 28, 4 * 40 + 28]), tuple(left[68, 3 * 40])}) == 3
    rows, columns = np.nonzero((left != right).any(axis=-1))
    assert rows.min() >= 40 and rows.max() < 80  # only the corridor differs, around the two places of the particle
    assert abs(columns.min() - (1 * 40 + 28 - 4)) <= 1 and abs(columns.max() - (3 * 40 + 28 + 3)) <= 1
    shades = {tuple(pixel) for pixel in left[60:76, 60:76].reshape(-1, 3)}
    assert len(shades) > 3  # antialiased


def test_actions_beyond_the_range_are_clipped():
    env = gym.make("maze2d-open-v0").unwrapped
    env.reset(options={"state": [2, 2, 0, 0]})
    far = env.step(np.array([5.0, -3.0]))[0]
    env.reset(options={"state": [2, 2, 0, 0]})
    expected = env.step(np.array([1.0, -1.0]))[0]
    assert np.array_equal(far, expected)
    env.reset(options={"state": [2, 2, 0, 0]})
    assert np.array_equal(env.step(np.array([1e300, -1e12]))[0], expected)  # MuJoCo itself would push with nothing


@pytest.mark.parametrize("action", [(1, -1), [np.float32(1), -1.0], np.array([1, -1]), np.array([1, -1], np.float16)])
def test_every_pair_of_numbers_is_an_action(action):
    env = gym.make("maze2d-open-v0").unwrapped
    env.reset(options={"state": [2, 2, 0, 0]})
    found = env.step(action)[0]
    env.reset(options={"state": [2, 2, 0, 0]})
    assert np.array_equal(found, env.step(np.array([1.0, -1.0], np.float32))[0])


@pytest.mark.parametrize(
    "action",
    [
        np.array([np.nan, 0]),
        np.array([0, np.inf]),
        np.zeros(3),
        np.zeros((1, 2)),
        np.zeros((2, 1)),
        [np.zeros(1), np.zeros(1)],
        np.zeros(2) * 1j,
        np.zeros(2, bool),
        np.ma.masked_array([0.5, 0.5], [True, False]),
        np.array(["1", "0"]),
        [None, 0.5],
        [[0.5], 0.5],
        {0.5: 0.25, 0.75: 0.5},
        b"ab",
        "ab",
        0.5,
        None,
    ],
)
def test_a_bad_action_is_refused(action):
    env = gym.make("maze2d-umaze-v1").unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="an action is two finite numbers") as error:
        env.step(action)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stat": [1, 1, 0, 0]}, "unknown reset option 'stat'"),
        ({"state": [1, 1]}, "'state' is 4 finite numbers"),
        ({"state": [0, 0, 0, 0]}, "outside the free cells"),
        ({"goal": [np.nan, 1]}, "'goal' is 2 finite numbers"),
        ({"goal": [50, 1]}, "outside the free cells"),
        ({"goal": [1e300, 1]}, "outside the free cells"),
        ({"goal": ["1", "1"]}, "'goal' is 2 finite numbers"),
        ({"goal": np.array([1 + 5j, 1])}, "'goal' is 2 finite numbers"),
        ({"goal": [[1, 1]]}, "'goal' is 2 finite numbers"),
        ({"state": "1111"}, "'state' is 4 finite numbers"),
        ({"state": None}, "'state' is 4 finite numbers"),
        ({"state": [True, True, False, False]}, "'state' is 4 finite numbers"),
        ({3: [1, 1], "stat": 1}, "unknown reset option 3"),
        ("state", "reset options are a dictionary"),
        ([1, 1], "reset options are a dictionary"),
    ],
)
def test_bad_reset_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gym.make("maze2d-umaze-v1").unwrapped.reset(options=options)


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        (CUSTOM_ID, {}, "a maze is needed"),
        (CUSTOM_ID, {"layout": "###|#O|###"}, "ragged"),
        ("maze2d-large-v1", {"layout": LAYOUT}, "not both"),
        ("maze2d-large-v1", {"reward": "shaped"}, "unknown reward 'shaped'"),
        ("maze2d-large-v1", {"goal_conditioned": "False"}, "goal_conditioned is True or False, not 'False'"),
        ("maze2d-large-v1", {"random_goal": 2}, "random_goal is True or False, not 2"),
        (CUSTOM_ID, {"layout": "#" * 200_000}, "at most 100 rows"),
    ],
)
def test_bad_options_are_refused(env_id, options, message):
    with pytest.raises(ValueError, match=message):
        gym.make(env_id, **options)


def test_an_impossible_render_mode_is_refused():
    with pytest.raises(ValueError, match="unknown render_mode 'human'; expected None or 'rgb_array'"):
        Maze2dEnv(maze="large", render_mode="human")
