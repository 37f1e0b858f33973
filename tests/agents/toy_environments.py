"""Small environments of each kind, for tests of anything that plays, and an agent that solves them.

A point moves in the plane by an action (vx, vy) in [-1, 1], a tenth of it in a step. An observation is (x, y, vx, vy),
the velocities those of the last step. Numbers are float64, as Gymnasium's robots have them.
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

STEPS = 20
"""After which every episode is truncated."""


def box(size):
    return Box(-np.inf, np.inf, (size,), np.float64)


class Plain(gymnasium.Env):
    """Neither goal nor reward nor success; ends after `STEPS`."""

    observation_space, action_space = box(4), Box(-1, 1, (2,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps = np.append(self.np_random.uniform(-0.5, 0.5, 2), [0, 0]), 0
        self.goal = self.np_random.uniform(-0.5, 0.5, 2) if options is None else 0.3 * np.eye(2)[options["task_id"] - 1]
        return self.observe(), self.info(begins=True)

    def step(self, action):
        self.state = np.append(self.state[:2] + 0.1 * action, action).astype(np.float64)
        self.steps += 1
        return self.observe(), self.reward(), self.terminated(), self.steps == STEPS, self.info()

    @property
    def there(self):
        return bool(np.linalg.norm(self.state[:2] - self.goal) < 0.15)

    def observe(self):
        return self.state.copy()

    def reward(self):
        return 0.0

    def terminated(self):
        return False

    def info(self, begins=False):
        return {}


class Falls(Plain):
    """Box, no goal: a reward of 1 + x in each step, until the point falls off at |y| > 0.8."""

    def reward(self):
        return 1.0 + float(self.state[0])

    def terminated(self):
        return bool(abs(self.state[1]) > 0.8)


class DictGoal(Plain):
    """A dictionary observation with its goal; success in `step` as 0.0 or 1.0, which does not end the episode."""

    observation_space = Dict({"observation": box(4), "achieved_goal": box(2), "desired_goal": box(2)})

    def observe(self):
        return {
            "observation": self.state.copy(),
            "achieved_goal": self.state[:2].copy(),
            "desired_goal": self.goal.copy(),
        }

    def reward(self):
        return float(self.there) - 1.0

    def info(self, begins=False):
        return {} if begins else {"is_success": float(self.there)}


class WholeGoal(Plain):
    """A goal that is a whole observation, in the reset's info; two tasks; success, in `step` only, ends an episode.

    `reset(options={"task_id": 1})`, or 2, has the goal (0.3, 0), or (0, 0.3).
    """

    def reward(self):
        return float(self.there) - 1.0

    def terminated(self):
        return self.there

    def info(self, begins=False):
        return {"goal": np.append(self.goal, [0, 0])} if begins else {"success": self.there}


class ToGoal:
    """Goes straight to the first two numbers of its goal, to (0, 0) without one: any observation, any batch."""

    def reset(self, goal=None, seed=None):
        self.goal = np.zeros(2) if goal is None else np.asarray(goal)[..., :2]

    def act(self, observation):
        where = (observation["observation"] if isinstance(observation, dict) else observation)[..., :2]
        return np.clip(10 * (self.goal - where), -1, 1).astype(np.float32)


def recorded(make, episodes=30, seed=0, noise=0.5):
    """What a noisy `ToGoal` does in such an environment, as the arrays of `Trajectories` by name.

    observations and next_observations are (N, 4) or dictionaries of arrays, actions (N, 2), and (N,) rewards, terminations and
    truncations.
    """
    rng, env, agent = np.random.default_rng(seed), make(), ToGoal()
    steps = {
        name: [] for name in ("observations", "actions", "rewards", "terminations", "truncations", "next_observations")
    }
    for episode in range(episodes):
        observation, info = env.reset(seed=1_000_000 * seed + episode)
        agent.reset(observation.get("desired_goal") if isinstance(observation, dict) else info.get("goal"))
        ended = False
        while not ended:
            action = np.clip(agent.act(observation) + noise * rng.normal(size=2), -1, 1).astype(np.float32)
            following, reward, terminated, truncated, _ = env.step(action)
            values = (observation, action, reward, terminated, truncated, following)
            for column, value in zip(steps.values(), values, strict=True):
                column.append(value)
            observation, ended = following, terminated or truncated
    return {name: stack(column) for name, column in steps.items()}


def stack(column):
    if isinstance(column[0], dict):
        return {name: np.stack([one[name] for one in column]) for name in column[0]}
    return np.array(column)
