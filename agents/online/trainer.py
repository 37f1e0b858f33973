"""Online training by stable-baselines3's `learn`, from a recipe to an agent; `dfplan.training.online_loop` keeps the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

from dfplan.agents.online.policy_from_zip import acting_model
from dfplan.agents.online.recipe import OnlineRecipe
from dfplan.agents.online.stable_baselines import StableBaselinesAgent
from dfplan.training.fit import Score
from dfplan.training.interrupt import stop_signals
from dfplan.training.log import RunLog
from dfplan.training.model_zip import parse_model_zip
from dfplan.training.online_loop import OnlineRun
from dfplan.training.run_folder import claimed, require_own

Env = gymnasium.Env[Any, Any]
WEIGHTS = "weights.zip"
"""The weights of a finished run, in its folder, with their card as weights.json beside them."""


def fit_online(
    recipe: OnlineRecipe,
    run_dir: str | Path,
    make_env: Callable[[], Env],
    *,
    measure: Score,
    score: Score | None = None,
    seed: int = 0,
    device: str = "cpu",
    about: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> StableBaselinesAgent:
    """Train a recipe, or continue or return the run that `run_dir` holds; the agent whose weights are then in it.

    Args:
        recipe: What to train, and for how long.
        run_dir: Folder of the run: `weights.zip`, `weights.json` (its card), `run.json`, checkpoints, log.
        make_env: Makes one copy of the environment, goal-conditioned for a recipe with hindsight.
        measure: Measures the agent in numbers, for the learning curve; the weights that are kept are those of the point
            where the first of these numbers is largest.
        score: Measures these weights, for the card. Both get a list of one agent.
        seed: Of the library's own generators.
        device: cpu or cuda.
        about: Further entries of the card, such as 'name' and 'command'.
        quiet: Show nothing.

    Raises ValueError if `run_dir` holds another run or somebody's files, and for a recipe that stable-baselines3 refuses;
    CheckpointError for a checkpoint that cannot be read; `dfplan.locks.InUseError` while another process trains there;
    FloatingPointError if a loss stops being finite; `dfplan.training.interrupt.TrainingInterrupted` after Ctrl-C or
    SIGTERM, when the checkpoint is written.
    """
    run_dir = Path(run_dir)
    require_own(run_dir, "online")
    model = new_model(recipe, make_env, seed, device)  # refuses a recipe before anything is written
    with claimed(run_dir, "online"):
        run = OnlineRun(model, asdict(recipe), seed, run_dir, lambda model: measure([StableBaselinesAgent(model)]))
        path = run_dir / WEIGHTS
        if path.is_file() and run.step >= recipe.steps:
            return StableBaselinesAgent.load(path)
        with stop_signals() as stop, RunLog(run_dir, run.step, recipe.steps, quiet) as log:
            if run.step:
                log.say(f"continuing {run_dir} at step {run.step} of {recipe.steps}")
            run.learn(log, stop)
        file = run.best_file()
        agent = StableBaselinesAgent(acting_model(parse_model_zip(file, str(path))), about, file)
        agent.card |= {
            "seed": seed,
            "steps": run.step,
            "best_step": agent.steps,
            "environment_steps": run.step * recipe.repeat,
            "training_seconds": round(run.seconds, 1),
            "recipe": run.recipe,
            "curve": run.curve,
        }
        if score is not None:
            agent.card["score"] = dict(score([agent]))
        agent.save(path)
        return agent


def new_model(recipe: OnlineRecipe, make_env: Callable[[], Env], seed: int, device: str = "cpu") -> BaseAlgorithm:
    """A fresh model with its environments. ValueError for an algorithm or a setting that stable-baselines3 lacks."""
    algorithm: Any = getattr(stable_baselines3, recipe.algorithm, None)
    if not hasattr(algorithm, "learn"):
        raise ValueError(f"stable-baselines3 has no algorithm {recipe.algorithm!r}")
    env = DummyVecEnv([lambda: ActionRepeat(make_env(), recipe.repeat)] * recipe.copies)
    settings = json.loads(json.dumps(dict(recipe.settings)))  # a copy: stable-baselines3 writes into it
    if recipe.noise:
        actions: Any = env.action_space
        settings["action_noise"] = NormalActionNoise(np.zeros(actions.shape), np.full(actions.shape, recipe.noise))
    if recipe.hindsight:
        settings["replay_buffer_class"] = stable_baselines3.HerReplayBuffer
        settings["replay_buffer_kwargs"] = {"n_sampled_goal": recipe.hindsight}
    policy = "MultiInputPolicy" if isinstance(env.observation_space, gymnasium.spaces.Dict) else "MlpPolicy"
    try:
        model = algorithm(policy, env, seed=seed, device=device, **settings)
    except (TypeError, AssertionError) as error:
        raise ValueError(
            f"stable-baselines3's {recipe.algorithm} refuses the recipe {recipe.weights}: {error}"
        ) from error
    model.set_logger(Logger(None, []))  # keeps numbers, for the run's log; the library's own makes a folder as well
    return model


class ActionRepeat(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Each action lasts several steps; the last of them, at which the episode may end early, is what is seen and paid.

    So a goal in hindsight, whose reward is computed from what is seen, is paid alike.
    """

    def __init__(self, env: Env, repeat: int):
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """The last of up to `repeat` steps with the same action."""
        for _ in range(self.repeat):
            result = self.env.step(action)
            if result[2] or result[3]:
                break
        return result
