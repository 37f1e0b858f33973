"""fork-v0: its closed form against enumeration and play, and what makes it hard: the mean future is the straight way."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dfplan.envs  # noqa: F401  registers
from dfplan.envs import fork


def play(hazard, rudder, episodes, seed=0):
    """Positions (episodes, STEPS + 1, 2), returns (episodes,) and courses of whole episodes of the registered environment."""
    env = gym.make(fork.ENV_ID, hazard=hazard)
    positions, returns, courses = [], [], []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        positions.append([observation[:2]])
        returns.append(0.0)
        truncated = False
        while not truncated:
            observation, reward, terminated, truncated, info = env.step(np.array([rudder], np.float32))
            assert not terminated and observation[2] == np.float32(hazard)
            positions[-1].append(observation[:2])
            returns[-1] += reward
        courses.append(info["course"])
    return np.array(positions), np.array(returns), courses


def test_gymnasium_accepts_it():
    check_env(gym.make(fork.ENV_ID).unwrapped)
    check_env(gym.make(fork.ENV_ID, hazard=0.3).unwrapped)


def test_the_closed_form_is_the_sum_over_all_outcomes():
    """Enumerated: every course has one return in play, and the probabilities of the courses are those of the hazard."""
    p = 0.4
    found = dict(zip(*reversed(play(p, -1.0, 60)[1:]), strict=True))
    assert set(found) == {"short", "left", "right"}
    enumerated = (1 - p) * found["short"] + p / 2 * found["left"] + p / 2 * found["right"]
    assert fork.expected_return("short", p) == pytest.approx(enumerated)
    _, returns, courses = play(p, 1.0, 3)
    assert set(courses) == {"long"} and returns == pytest.approx(fork.expected_return("long", p))


def test_the_mean_return_of_play_is_the_closed_form():
    _, returns, courses = play(0.4, -1.0, 2000)
    assert abs(returns.mean() - fork.expected_return("short", 0.4)) < 4 * returns.std() / np.sqrt(len(returns))
    swept = np.array([courses.count(side) for side in ("left", "right")]) / len(courses)
    assert np.abs(swept - 0.2).max() < 4 * np.sqrt(0.2 * 0.8 / len(courses))


def test_the_best_arm_changes_once():
    assert 0.3 < fork.SWITCH < 0.32
    assert fork.expected_return("short", fork.SWITCH) == pytest.approx(fork.expected_return("long", fork.SWITCH))
    for hazard in np.linspace(0, 1, 21):
        best = max(fork.ARMS, key=lambda arm: fork.expected_return(arm, hazard))
        assert best == ("short" if hazard < fork.SWITCH else "long")
        assert fork.best_return(hazard) == fork.expected_return(best, hazard)


@pytest.mark.parametrize("hazard", [0.2, 0.9])
def test_the_mean_future_of_the_short_arm_is_the_straight_way_whatever_the_hazard(hazard):
    """So the reward of the mean future is that of a boat that is never swept off."""
    weights = {"short": 1 - hazard, "left": hazard / 2, "right": hazard / 2}
    mean = sum(weight * fork.PATHS[course] for course, weight in weights.items())
    np.testing.assert_allclose(mean, fork.PATHS["short"], atol=1e-12)


def test_the_record_takes_both_arms_and_all_hazards():
    data = fork.record(400, seed=0)
    again = fork.record(400, seed=0)
    assert all(np.array_equal(data[key], again[key]) for key in data)
    first = data["observations"][data["episode_starts"] + 1]
    assert 0.4 < (first[:, 1] > 0).mean() < 0.6, "half of the boats go into the long arm"
    assert np.array_equal(first[:, 1] > 0, data["actions"][data["episode_starts"], 0] > 0)
    assert np.histogram(first[:, 2], bins=4, range=(0, 1))[0].min() > 60
    assert len(data["observations"]) == len(data["rewards"]) == 400 * fork.STEPS
    ends = {tuple(end) for end in data["last_observations"][:, :2].round(3)}
    assert ends == {(8, 0), (8, 8), (8, -8)}


@pytest.mark.parametrize("hazard", [-0.1, 1.1, float("nan")])
def test_a_hazard_is_a_probability(hazard):
    with pytest.raises(ValueError, match="the hazard is a probability"):
        fork.ForkEnv(hazard=hazard)
