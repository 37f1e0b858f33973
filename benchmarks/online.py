"""Online reinforcement learning by stable-baselines3: recipes, and a trainer around its `learn`.

An agent that learns online meets no data: it acts in the environment, sees the reward, and its actions make what it
learns from. `fit_online` adds to stable-baselines3's own loop what every training here has: an estimate of the time
left, a learning curve on tuning seeds, a card, and checkpoints. After an interruption the same command goes on, but not
bit for bit: stable-baselines3 keeps neither the state of its random generators nor the episodes under way, so that a
continued run meets other episodes than an undisturbed one. Checkpoints are read without unpickling.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

import dfplan.envs  # noqa: F401 (registers the environments)
from dfplan.benchmarks.online_recipe import OnlineRecipe
from dfplan.benchmarks.protocol import TUNING_SEEDS, evaluate
from dfplan.benchmarks.provenance import hardware, versions
from dfplan.envs.reference import normalized_score

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from dfplan.agents.online.stable_baselines import StableBaselinesAgent

SCORE_SEEDS = TUNING_SEEDS[:20]
"""Reset seeds of the score on a card."""


# Fused, because a small network's time goes into the calls; it is the same Adam.
NETS = {"net_arch": [64, 64], "optimizer_kwargs": {"fused": True}}
SHARED = {"gamma": 0.99, "learning_rate": 1e-3, "policy_kwargs": NETS}
ON_POLICY = SHARED | {"n_steps": 128, "batch_size": 1024, "n_epochs": 4, "ent_coef": 0.01}
OFF_POLICY = SHARED | {"batch_size": 256, "buffer_size": 300_000, "learning_starts": 5_000}
"""A step of the optimizer for each step of the copies, stable-baselines3's default."""


def _recipes(maze: str, ppo: int, sac: int, td3: int) -> dict[tuple[str, str], OnlineRecipe]:
    goal, goals, several = f"maze2d-{maze}-v1", f"multi2d-{maze}-v1", OFF_POLICY | {"n_steps": 3}
    return {
        (maze, "ppo"): OnlineRecipe(f"maze2d-{maze}-ppo", goal, "PPO", ppo, copies=32, settings=ON_POLICY),
        (maze, "sac"): OnlineRecipe(f"maze2d-{maze}-sac", goal, "SAC", sac, settings=several),
        (maze, "td3"): OnlineRecipe(f"maze2d-{maze}-td3", goal, "TD3", td3, settings=several, noise=0.5),
        (maze, "her"): OnlineRecipe(f"maze2d-{maze}-her", goals, "SAC", sac, settings=OFF_POLICY, hindsight=4),
    }


RECIPES: dict[tuple[str, str], OnlineRecipe] = (
    _recipes("umaze", 204_800, 60_000, 90_000)
    | _recipes("medium", 409_600, 90_000, 150_000)
    | _recipes("large", 819_200, 120_000, 200_000)
)
"""By maze and name. 'sac', 'td3' and 'ppo' learn the maze's fixed goal, 'her' to reach any goal (SAC with hindsight)."""


def online_recipe(maze: str, name: str) -> OnlineRecipe:
    """The recipe of a maze ('umaze', 'medium', 'large'). Raises ValueError for a maze or a name that has none."""
    if (maze, name) not in RECIPES:
        mazes, names = ({key[i] for key in RECIPES} for i in (0, 1))
        raise ValueError(
            f"there is no online recipe {name!r} for the maze {maze!r}: "
            f"expected one of {', '.join(sorted(names))} for {', '.join(sorted(mazes))}"
        )
    return RECIPES[maze, name]


def fit_online(
    recipe: OnlineRecipe,
    run_dir: str | Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    command: str = "",
    device: str = "cpu",
    quiet: bool = False,
) -> Path:
    """Train a recipe, or continue or return the run that ``run_dir`` holds; the path of the weights, weights.zip.

    The weights are those of the best point of the learning curve, and ``weights.json`` beside them is their card.
    ``steps`` replaces the recipe's own number. ``command`` is what the card names as the command that trains them.

    Raises ValueError if ``run_dir`` holds another run or somebody's files, for a recipe that stable-baselines3 refuses,
    and where it is not installed; CheckpointError for a checkpoint that cannot be read; `dfplan.locks.InUseError` while
    another process trains there; FloatingPointError if a loss stops being finite; `dfplan.training.loop.TrainingInterrupted`
    after Ctrl-C or SIGTERM, when the checkpoint is written.
    """
    recipe = replace(recipe, steps=recipe.steps if steps is None else steps)
    if type(recipe.steps) is not int or recipe.steps < 1:
        raise ValueError(f"the number of steps must be a whole number, at least 1, not {recipe.steps}")
    library()
    from dfplan.training.run_folder import claimed, require_own

    run_dir = Path(run_dir)
    require_own(run_dir, "online")
    model = built(recipe, seed, device)  # refuses a recipe before anything is written
    with claimed(run_dir, "online"):
        return _train(recipe, run_dir, model, seed=seed, command=command, device=device, quiet=quiet)


def _train(
    recipe: OnlineRecipe, run_dir: Path, model: BaseAlgorithm, *, seed: int, command: str, device: str, quiet: bool
) -> Path:
    """Train from the start, or on from the checkpoint, in a folder that is this process's; returns weights.zip."""
    import torch

    from dfplan.benchmarks.online_run import OnlineRun
    from dfplan.training.interrupt import stop_signals
    from dfplan.training.log import RunLog

    path = run_dir / "weights.zip"
    run = OnlineRun(recipe, seed, run_dir, model)
    if path.is_file() and run.step >= recipe.steps:
        return path
    with stop_signals() as stop, RunLog(run_dir, run.step, recipe.steps, quiet) as log:
        if run.step:
            log.say(f"continuing {run_dir} at step {run.step} of {recipe.steps}")
        run.learn(log, stop)
    agent = run.best_agent()
    agent.card = {
        "name": recipe.weights + (f"-seed{seed}" if seed else ""),
        "command": command,
        "seed": seed,
        "steps": run.step,
        "best_step": agent.config.steps,
        "environment_steps": run.step * recipe.repeat,
        "training_seconds": round(run.seconds, 1),
        "hardware": hardware() | {"accelerator": device, "threads": torch.get_num_threads()},
        "versions": versions() | {"stable-baselines3": library().__version__},
        "recipe": run.identity["recipe"],
        "curve": [{"step": point["step"], "normalized": round(point["normalized"], 1)} for point in run.curve],
        "score": score(agent, recipe.env_id),
    }
    agent.save(path)
    return path


def score(agent: StableBaselinesAgent, env_id: str) -> dict[str, Any]:
    """What an agent scores on the first tuning seeds, for its card."""
    played = evaluate(agent, env_id, SCORE_SEEDS)
    return {
        "normalized": round(float(normalized_score(env_id, np.array(played.returns)).mean()), 1),
        "returns": list(played.returns),
        "success": sum(played.success) / len(played.success),
        "seeds": [int(seed) for seed in played.seeds],
        "env": env_id,
    }


def built(recipe: OnlineRecipe, seed: int, device: str = "cpu") -> BaseAlgorithm:
    """A fresh model with its environments. ValueError for an algorithm or a setting that stable-baselines3 lacks."""
    algorithm: Any = getattr(library(), recipe.algorithm, None)
    if not hasattr(algorithm, "learn"):
        raise ValueError(f"stable-baselines3 has no algorithm {recipe.algorithm!r}")
    from stable_baselines3 import HerReplayBuffer
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = DummyVecEnv([lambda: environment(recipe)] * recipe.copies)
    settings = json.loads(json.dumps(dict(recipe.settings)))  # a copy: stable-baselines3 writes into it
    if recipe.noise:
        actions: Any = env.action_space
        settings["action_noise"] = NormalActionNoise(np.zeros(actions.shape), np.full(actions.shape, recipe.noise))
    if recipe.hindsight:
        settings["replay_buffer_class"] = HerReplayBuffer
        settings["replay_buffer_kwargs"] = {"n_sampled_goal": recipe.hindsight}
    policy = "MultiInputPolicy" if recipe.hindsight else "MlpPolicy"
    try:
        return algorithm(policy, env, seed=seed, device=device, **settings)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"stable-baselines3's {recipe.algorithm} refuses the recipe {recipe.weights}: {error}") from error


def environment(recipe: OnlineRecipe) -> gymnasium.Env[Any, Any]:
    """One copy of the environment that a recipe learns in."""
    options = {"goal_conditioned": True} if recipe.hindsight else {}
    env = gymnasium.make(recipe.env_id, disable_env_checker=True, **options)
    return ActionRepeat(env, recipe.repeat) if recipe.repeat > 1 else env


class ActionRepeat(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Each action lasts several steps; the last of them, at which the episode may end early, is what is seen and paid.

    So a goal in hindsight, whose reward is computed from what is seen, is paid alike.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], repeat: int):
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        for _ in range(self.repeat):
            result = self.env.step(action)
            if result[2] or result[3]:
                break
        return result


def library() -> Any:
    """stable-baselines3, imported when it is needed. ValueError where it is not installed."""
    try:
        import stable_baselines3
    except ImportError as error:
        raise ValueError("stable-baselines3 is not installed: pip install stable-baselines3") from error
    return stable_baselines3
