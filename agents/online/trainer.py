"""A trainer around stable-baselines3's `learn`: log, learning curve, the best weights, their card, and checkpoints.

An agent that learns online meets no data: it acts in the environment, sees the reward, and its actions make what it
learns from. After an interruption the same call goes on, but not bit for bit: stable-baselines3 keeps neither the state of
its random generators nor the episodes under way, so that a continued run meets other episodes than an undisturbed one.
Nothing in a run's folder is ever unpickled: a run goes on as a fresh model that is given what the checkpoint has learned.
"""

from __future__ import annotations

import io
import json
import math
import operator
import sys
import time
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
from dfplan.training.checkpoint import CheckpointError
from dfplan.training.fit import Score
from dfplan.training.interrupt import interrupted, stop_signals
from dfplan.training.log import RunLog
from dfplan.training.model_zip import parse_model_zip, read_model_zip
from dfplan.training.online_checkpoint import (
    BEST,
    MODEL,
    REPLAY,
    State,
    load_replay,
    put,
    read_state,
    remove_checkpoints,
    save_replay,
)
from dfplan.training.run_folder import STATE, another_run, claimed, differences, require_own
from dfplan.training.stopwatch import Stopwatch
from dfplan.whole_files import write_whole

Env = gymnasium.Env[Any, Any]
WEIGHTS = "weights.zip"
"""The weights of a finished run, in its folder, with their card as weights.json beside them."""
CHECKPOINT_SECONDS, RECORDS = 60.0, 100
"""Time between checkpoints; records of a run in its log."""
PASSING = (
    *("_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer"),
    *("action_noise", "replay_buffer_class", "replay_buffer_kwargs"),
)
"""What of a model is not for its weights file: the episodes under way, and what only learning needs."""


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
        run, path = OnlineRun(recipe, seed, run_dir, model, measure), run_dir / WEIGHTS
        if path.is_file() and run.step >= recipe.steps:
            return StableBaselinesAgent.load(path)
        with stop_signals() as stop, RunLog(run_dir, run.step, recipe.steps, quiet) as log:
            if run.step:
                log.say(f"continuing {run_dir} at step {run.step} of {recipe.steps}")
            run.learn(log, stop)
        agent = run.best_agent()
        agent.card = dict(about or {}) | {
            "seed": seed,
            "steps": run.step,
            "best_step": agent.config.steps,
            "environment_steps": run.step * recipe.repeat,
            "training_seconds": round(run.seconds, 1),
            "recipe": run.identity["recipe"],
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
    try:
        model = algorithm("MultiInputPolicy" if recipe.hindsight else "MlpPolicy", env, seed=seed, device=device, **settings)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"stable-baselines3's {recipe.algorithm} refuses the recipe {recipe.weights}: {error}") from error
    model.set_logger(Logger(None, []))  # keeps numbers, for `OnlineRun.record`; the library's own makes a folder as well
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


class OnlineRun:
    """The state of a run: the model, its curve, the best model so far; and how it comes back after a kill.

    Continues what `run_dir` holds. Raises ValueError if that is another run, CheckpointError if it cannot be read.
    """

    def __init__(self, recipe: OnlineRecipe, seed: int, run_dir: Path, fresh: BaseAlgorithm, measure: Score) -> None:
        """`fresh`: a model with its environments, as `new_model` makes it."""
        self.recipe, self.seed, self.run_dir, self.model, self.measure = recipe, seed, run_dir, fresh, measure
        self.identity: dict[str, Any] = json.loads(json.dumps({"recipe": asdict(recipe), "seed": seed}))
        self.seconds, self.curve, self.best = 0.0, list[dict[str, float]](), b""
        self.file = run_dir / STATE
        if self.file.is_file():
            self.restore()

    @property
    def step(self) -> int:
        """Decisions made so far, over all copies of the environment."""
        return int(self.model.num_timesteps)

    def learn(self, log: RunLog, stop: list[int]) -> None:
        """Train up to the recipe's steps, or until a signal is in `stop`: TrainingInterrupted then."""
        left = self.recipe.steps - self.step
        if left <= 0:
            return
        watch, saved, before = Stopwatch(self.seconds, self.step), time.monotonic(), self.step

        def passed(parts: int) -> bool:
            """Whether the last step led past one of the equal parts of the run."""
            every = math.ceil(self.recipe.steps / parts)
            return self.step // every > before // every

        def save() -> None:
            nonlocal saved
            self.seconds = watch.seconds
            with watch.paused():
                self.save()
            saved = time.monotonic()

        def tick(*_: Any) -> bool:
            """Called by stable-baselines3 after each step of the environments; False ends `learn`."""
            nonlocal before
            log.advance(self.step)
            if self.step < self.recipe.steps:
                if passed(self.recipe.evaluations):
                    self.add_point(watch)
                if passed(RECORDS):
                    log.write(self.record(watch))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
            before = self.step
            return not stop

        self.model.learn(left, callback=tick, log_interval=sys.maxsize, reset_num_timesteps=self.step == 0)
        if self.step >= self.recipe.steps:
            self.add_point(watch)
            log.write(self.record(watch))
        save()
        if self.step < self.recipe.steps:
            raise interrupted(stop, self.step, self.recipe.steps, self.file)

    def record(self, watch: Stopwatch) -> dict[str, Any]:
        """One line of the log: stable-baselines3's own numbers, and the last point of the curve."""
        values = {name: float(value) for name, value in self.model.logger.name_to_value.items()}
        loss = values.get("train/loss", values.get("train/critic_loss", 0.0))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is not finite at step {self.step} (try a lower learning rate)")
        rates = {"seconds": watch.seconds, "steps_per_second": watch.rate(self.step)}
        point = self.curve[-1] if self.curve else {}
        return {**point, "step": self.step, "time": time.time(), **rates, "loss": loss, **values}

    def add_point(self, watch: Stopwatch) -> None:
        """A point of the learning curve; the model is kept if it is the best so far."""
        with watch.paused():
            point = {"step": self.step, **self.measure([StableBaselinesAgent(self.model)])}
        name = list(point)[1]
        if not self.best or point[name] > max(earlier[name] for earlier in self.curve):
            self.best = _written(self.model)
        self.curve.append(point)

    def best_agent(self) -> StableBaselinesAgent:
        """The agent of the best point, without the moments of its optimizers, which acting does not need."""
        model, last = self.model, _written(self.model)
        put(model, parse_model_zip(self.best, f"{self.run_dir}/{BEST}"))
        for name in model.get_parameters():
            if name.endswith("optimizer"):
                operator.attrgetter(name)(model).state.clear()
        file = _written(model, exclude=PASSING)
        put(model, parse_model_zip(last, f"{self.run_dir}/{MODEL}"))
        return StableBaselinesAgent(acting_model(parse_model_zip(file, str(self.run_dir / WEIGHTS))), file=file)

    def save(self) -> None:
        """Write a checkpoint into a folder of its own, then name it in run.json, then remove the one before."""
        folder = self.run_dir / f"checkpoint-{self.step}"
        write_whole(folder / MODEL, _written(self.model))
        if self.best:
            write_whole(folder / BEST, self.best)
        if self.replays(self.step):
            save_replay(self.model.replay_buffer, folder / REPLAY)  # type: ignore[attr-defined]
        state = {"checkpoint": folder.name, "step": self.step, "seconds": self.seconds, "curve": self.curve}
        write_whole(self.file, json.dumps(state | self.identity, indent=1))
        remove_checkpoints(self.run_dir, keep=folder.name)

    def restore(self) -> None:
        """Go on from the checkpoint, with other random numbers than an undisturbed run would have."""
        state, model = read_state(self.file), self.model
        self.require_same_run(state)
        folder = self.run_dir / state["checkpoint"]
        put(model, read_model_zip(folder / MODEL))
        if self.step != state["step"]:
            raise CheckpointError(f"{folder / MODEL} is at step {self.step}, and {self.file} at step {state['step']}")
        if self.replays(self.step):
            if not (folder / REPLAY).exists() and (folder / "replay.pkl").exists():
                pickled = f"the checkpoint in {folder} is of an earlier version, whose replay buffer is a pickle"
                raise CheckpointError(f"{pickled}: it is not opened; remove the run to start anew")
            load_replay(model.replay_buffer, folder / REPLAY)  # type: ignore[attr-defined]
        if (folder / BEST).is_file():
            self.best = read_model_zip(folder / BEST).content
        model.set_random_seed(int(np.random.SeedSequence((self.seed, self.step)).generate_state(1)[0] >> 1))
        self.seconds, self.curve = state["seconds"], state["curve"]

    def require_same_run(self, state: State) -> None:
        """The number of steps may grow, for learning rates here are constant, while there is what to learn from."""
        there = {"seed": state["seed"], **state["recipe"]}
        differing, reason = differences(there, {"seed": self.seed, **self.identity["recipe"]}), ""
        if list(differing) == ["steps"]:
            over = not isinstance(there["steps"], int) or state["step"] >= there["steps"]
            unlearned = over and hasattr(self.model, "save_replay_buffer")
            if not unlearned and self.recipe.steps >= state["step"]:
                return
            reason = " (a finished run keeps no replay buffer)" if unlearned else f" ({state['step']} are done)"
        if differing:
            raise another_run(self.run_dir, differing, reason)

    def replays(self, step: int) -> bool:
        """Whether a checkpoint of that step has a replay buffer: a finished run needs none."""
        return hasattr(self.model, "save_replay_buffer") and step < self.recipe.steps


def _written(model: BaseAlgorithm, exclude: tuple[str, ...] = ()) -> bytes:
    file = io.BytesIO()
    model.save(file, exclude=exclude)
    return file.getvalue()
