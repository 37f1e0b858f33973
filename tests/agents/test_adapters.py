"""Agents inside other libraries' loops."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import dfplan.envs  # noqa: F401
from dfplan.agents.adapters import Policy
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.envs.maze.expert import WaypointExpert
from dfplan.envs.registry import find

LENGTHS = (40, 55, 40)
"""Steps of an episode in each of three environments."""
GOAL = np.array([1.0, 1.0])


class Remembering:
    """Acts by the first observation of its episode and by the steps since: wrong from the first step where one is missed."""

    def reset(self, goal=None, seed=None):
        self.goal, self.start = goal, None

    def act(self, observation):
        one, observation = observation.ndim == 1, np.atleast_2d(observation)
        if self.start is None:
            self.start, self.steps = observation.copy(), np.zeros(len(observation))
        new = np.isnan(self.start).any(axis=1)
        self.start[new], self.steps[new] = observation[new], 0
        self.steps += 1
        sway = np.sin(self.steps[:, None] / 5 + 40 * self.start[:, :2])
        action = np.clip(self.goal - observation[:, :2] - observation[:, 2:] + sway, -1, 1).astype(np.float32)
        return action[0] if one else action

    def forget(self, rows, goal=None):
        self.start[rows] = np.nan
        if goal is not None:
            self.goal[rows] = goal


def short(length):
    return gymnasium.make("maze2d-umaze-dense-v1", max_episode_steps=length)


def alone(episodes):
    """Returns of each environment's episodes, played one after another in a plain loop (environments, episodes)."""
    agent, returns = Remembering(), []
    for i, length in enumerate(LENGTHS):
        env = short(length)
        returns.append([])
        for episode in range(episodes):
            observation, _ = env.reset(seed=i if episode == 0 else None)
            agent.reset(goal=GOAL)
            total, truncated = 0.0, False
            while not truncated:
                observation, reward, _, truncated, _ = env.step(agent.act(observation))
                total += reward
            returns[-1].append(total)
    return returns


def together(mode, episodes, **options):
    """The same in a vector environment with resets of its own."""
    envs = SyncVectorEnv([lambda length=length: short(length) for length in LENGTHS], autoreset_mode=mode)
    policy = Policy(Remembering(), GOAL, **options)
    observation, _ = envs.reset(seed=0)
    returns, total, ended = [[] for _ in LENGTHS], np.zeros(3), np.ones(3, dtype=bool)
    while min(map(len, returns)) < episodes:
        begun = ended & (mode is AutoresetMode.NEXT_STEP) & (total != 0)
        action, _ = policy.predict(observation, episode_start=ended)
        observation, reward, terminated, truncated, _ = envs.step(action)
        total = np.where(begun, 0.0, total + reward)  # the step of a reset pays nothing
        ended = terminated | truncated
        for row in np.flatnonzero(ended):
            returns[row].append(float(total[row]))
            if mode is AutoresetMode.SAME_STEP:
                total[row] = 0.0
    return [row[:episodes] for row in returns]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_successive_episodes_are_played_as_alone_in_either_mode(mode):
    """Equal returns from equal reset states, in episodes that end together and apart."""
    expected = alone(episodes=4)
    assert together(mode, 4, autoreset=mode) == expected
    assert len({total for row in expected for total in row}) == 12


def test_a_mode_may_be_named_as_gymnasium_names_it():
    assert together(AutoresetMode.NEXT_STEP, 2, autoreset="NextStep") == alone(2)
    with pytest.raises(ValueError, match=r"autoreset must be one of .* NextStep, SameStep, Disabled, got 'next'"):
        Policy(Remembering(), autoreset="next")


def test_a_new_goal_of_a_row_that_does_not_begin_is_refused():
    policy = Policy(Remembering())
    observation = {
        key: np.zeros((2, width)) for key, width in (("observation", 4), ("achieved_goal", 2), ("desired_goal", 2))
    }
    policy.predict(observation, episode_start=[True, True])
    policy.predict(observation, episode_start=[False, False])
    observation["desired_goal"] = np.array([[0.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match=r'goal of row 1 has changed, .* autoreset=envs.metadata\["autoreset_mode"\]'):
        policy.predict(observation, episode_start=[True, False])
    policy.predict(observation, episode_start=[False, True])


def test_environments_that_were_reset_by_hand():
    policy = Policy(Remembering(), GOAL, autoreset="NextStep")
    observation = np.array([[3.0, 1.0, 0.0, 0.0], [1.0, 3.0, 0.0, 0.0]])
    first, _ = policy.predict(observation)
    policy.predict(observation + 0.01)
    policy.reset()
    again, _ = policy.predict(observation)
    assert (again == first).all()


def test_an_episode_start_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"one entry for each row, \(2,\), got \(3,\)"):
        Policy(Remembering(), GOAL).predict(np.zeros((2, 4)), episode_start=[True, False, True])


@pytest.mark.slow
def test_successive_episodes_of_a_planner_are_equally_good(agent):
    """By their mean over eight environments; a plan from an old episode's end costs a third."""
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        envs = gymnasium.make_vec(
            "maze2d-umaze-v1", 8, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}
        )
        policy = Policy(agent, GOAL, autoreset=mode)
        observation, _ = envs.reset(seed=0)
        means, total, ended = [], np.zeros(8), np.ones(8, dtype=bool)
        while len(means) < 3:
            action, _ = policy.predict(observation, episode_start=ended)
            observation, reward, terminated, truncated, _ = envs.step(action)
            total, ended = total + reward, terminated | truncated
            if ended.all():
                means.append(total.mean())
                total[:] = 0
        assert min(means) > 200, (mode, means)


@pytest.fixture(scope="module")
def agent():
    return DiffusionForcingAgent.from_pretrained("maze2d-umaze")


def test_stable_baselines3_evaluates_it_as_its_own_loop_does(agent):
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    env = gymnasium.make("maze2d-umaze-v1")
    env.reset(seed=7)
    goal = env.unwrapped.goal
    returns, lengths = evaluation.evaluate_policy(
        Policy(agent, goal), env, n_eval_episodes=2, return_episode_rewards=True, warn=False
    )
    assert lengths == [300, 300]
    assert min(returns) > 100  # a random walk gets about 36


def test_rows_that_begin_anew_are_planned_anew(agent):
    envs = gymnasium.make_vec("multi2d-umaze-v1", 2, vectorization_mode="sync", goal_conditioned=True)
    observation, _ = envs.reset(seed=3)
    policy = Policy(agent)
    action, _ = policy.predict(observation, episode_start=np.array([True, True]))
    assert action.shape == (2, 2)
    before = agent._following.path[1].clone()
    observation["desired_goal"][0] = observation["desired_goal"][1]
    policy.predict(observation, episode_start=np.array([True, False]))
    assert agent._following.clock.tolist() == [1.0, 2.0]
    assert bool((agent._following.path[1] == before).all())


def test_one_observation_gives_one_action(agent):
    action, state = Policy(agent, goal=[1.0, 1.0]).predict(np.array([3.0, 1.0, 0.0, 0.0]), state="kept")
    assert action.shape == (2,) and state == "kept"


def test_an_agent_that_cannot_forget_rows_says_so():
    policy = Policy(WaypointExpert(find("maze2d-umaze").layout), goal=np.array([[1.0, 1.0], [1.0, 1.0]]))
    observation = np.array([[3.0, 1.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]])
    policy.predict(observation, episode_start=np.array([True, True]))
    with pytest.raises(TypeError, match="has no `forget`"):
        policy.predict(observation, episode_start=np.array([True, False]))


def test_a_dictionary_without_a_goal_is_refused(agent):
    with pytest.raises(ValueError, match="desired_goal"):
        Policy(agent).predict({"observation": np.zeros((1, 4))})
