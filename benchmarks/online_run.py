"""One run of stable-baselines3's `learn`: records, learning curve, best model, checkpoints.

Nothing in a run's folder is ever unpickled: a run goes on as a fresh model that is given what the checkpoint has learned.
"""

from __future__ import annotations

import io
import json
import math
import operator
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from stable_baselines3.common.base_class import BaseAlgorithm
from typing_extensions import TypedDict

from dfplan.agents.online.policy_from_zip import acting_model
from dfplan.agents.online.stable_baselines import StableBaselinesAgent
from dfplan.benchmarks.model_state import put
from dfplan.benchmarks.protocol import TUNING_SEEDS, evaluate
from dfplan.benchmarks.replay_file import load_replay, save_replay
from dfplan.config_json import checked
from dfplan.envs.reference import normalized_score
from dfplan.fields import NotNegative, Whole
from dfplan.training.checkpoint import CheckpointError
from dfplan.training.interrupt import TrainingInterrupted
from dfplan.training.log import RunLog
from dfplan.training.model_zip import parse_model_zip, read_model_zip
from dfplan.training.run_folder import STATE, another_run, differences
from dfplan.whole_files import write_whole

if TYPE_CHECKING:
    from dfplan.benchmarks.online_recipe import OnlineRecipe

CHECKPOINT_SECONDS = 60.0
RECORDS = 100
"""Records of a run in its log."""
CURVE_SEEDS = TUNING_SEEDS[500:520]
"""Reset seeds of the learning curve, by which the best weights are chosen; others than those of the card's score."""
PASSING = (
    *("_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer"),
    *("action_noise", "replay_buffer_class", "replay_buffer_kwargs"),
)
"""What of a model is not for its weights file: the episodes under way, and what only learning needs."""
MODEL, BEST, REPLAY = "model.zip", "best.zip", "replay.safetensors"
"""Files of a checkpoint."""


class State(TypedDict):
    """What run.json says."""

    checkpoint: Annotated[str, Field(pattern=r"^checkpoint-\d+$")]
    """Name of the folder with the model."""
    step: Whole
    seconds: NotNegative
    curve: list[dict[str, float]]
    recipe: dict[str, Any]
    seed: int


class OnlineRun:
    """The state of a run: the model, its curve, the best model so far; and how it comes back after a kill.

    Continues what ``run_dir`` holds. Raises ValueError if that is another run, CheckpointError if it cannot be read.
    """

    def __init__(self, recipe: OnlineRecipe, seed: int, run_dir: Path, fresh: BaseAlgorithm) -> None:
        """fresh: a model with its environments, as the recipe builds it."""
        self.recipe, self.seed, self.run_dir, self.model = recipe, seed, run_dir, fresh
        self.identity: dict[str, Any] = json.loads(json.dumps({"recipe": asdict(recipe), "seed": seed}))
        self.seconds, self.curve, self.best = 0.0, list[dict[str, float]](), b""
        self.file = run_dir / STATE
        if self.file.is_file():
            state = read_state(self.file)
            self.require_same_run(state)
            self.restore(state)

    @property
    def step(self) -> int:
        """Decisions made so far, over all copies of the environment."""
        return int(self.model.num_timesteps)

    def learn(self, log: RunLog, stop: list[int]) -> None:
        """Train up to the recipe's steps, or until a signal is in ``stop``: TrainingInterrupted then."""
        if self.step >= self.recipe.steps:
            return
        clock = Clock(self, log, stop)
        left = self.recipe.steps - self.step
        self.model.learn(left, callback=clock.tick, log_interval=sys.maxsize, reset_num_timesteps=self.step == 0)
        clock.close()
        if self.step < self.recipe.steps:
            print(
                f"\ninterrupted after step {self.step} of {self.recipe.steps}; {self.file} is written: "
                "run the same command to continue",
                file=sys.stderr,
            )
            raise TrainingInterrupted(128 + stop[0])

    def measure(self) -> None:
        """A point of the learning curve; the model is kept if it is the best so far."""
        played = evaluate(StableBaselinesAgent(self.model), self.recipe.env_id, CURVE_SEEDS, batch=len(CURVE_SEEDS))
        normalized = float(normalized_score(self.recipe.env_id, np.array(played.returns)).mean())
        if not self.best or normalized > max(point["normalized"] for point in self.curve):
            self.best = _written(self.model.save)
        self.curve.append({"step": self.step, "normalized": normalized})

    def best_agent(self) -> StableBaselinesAgent:
        """The agent of the best point, without the moments of its optimizers, which acting does not need."""
        model, last = self.model, _written(self.model.save)
        put(model, parse_model_zip(self.best, f"{self.run_dir}/{BEST}"))
        for name in model.get_parameters():
            if name.endswith("optimizer"):
                operator.attrgetter(name)(model).state.clear()
        path = self.run_dir / "weights.zip"
        file = _written(lambda file: model.save(file, exclude=PASSING))
        put(model, parse_model_zip(last, f"{self.run_dir}/{MODEL}"))
        return StableBaselinesAgent(acting_model(parse_model_zip(file, str(path))), file=file)

    def save(self) -> None:
        """Write a checkpoint into a folder of its own, name it in run.json, and only then remove the one before."""
        folder = self.run_dir / f"checkpoint-{self.step}"
        write_whole(folder / MODEL, _written(self.model.save))
        if self.best:
            write_whole(folder / BEST, self.best)
        if self.replays(self.step):
            model: Any = self.model
            save_replay(model.replay_buffer, folder / REPLAY)
        state = {"checkpoint": folder.name, "step": self.step, "seconds": self.seconds, "curve": self.curve}
        write_whole(self.file, json.dumps(state | self.identity, indent=1))
        remove_checkpoints(self.run_dir, keep=folder.name)

    def require_same_run(self, state: State) -> None:
        """The number of steps may grow, for learning rates here are constant, while there is what to learn from."""
        there = {"seed": state["seed"], **state["recipe"]}
        asked = {"seed": self.seed, **self.identity["recipe"]}
        differing, reason = differences(there, asked), ""
        if list(differing) == ["steps"]:
            over = not isinstance(there["steps"], int) or state["step"] >= there["steps"]
            unlearned = over and hasattr(self.model, "save_replay_buffer")
            if not unlearned and self.recipe.steps >= state["step"]:
                return
            reason = " (a finished run keeps no replay buffer)" if unlearned else f" ({state['step']} are done)"
        if differing:
            raise another_run(self.run_dir, differing, reason)

    def restore(self, state: State) -> None:
        """Go on from the checkpoint, with other random numbers than an undisturbed run would have."""
        folder, model = self.run_dir / state["checkpoint"], self.model
        put(model, read_model_zip(folder / MODEL))
        if self.step != state["step"]:
            raise CheckpointError(f"{folder / MODEL} is at step {self.step}, and {self.file} at step {state['step']}")
        if self.replays(self.step):
            if not (folder / REPLAY).exists() and (folder / "replay.pkl").exists():
                raise CheckpointError(
                    f"the checkpoint in {folder} is of an earlier version, whose replay buffer is a pickle: it is not opened; "
                    "remove the run to start anew"
                )
            replaying: Any = model
            load_replay(replaying.replay_buffer, folder / REPLAY)
        if (folder / BEST).is_file():
            self.best = read_model_zip(folder / BEST).content
        model.set_random_seed(int(np.random.SeedSequence((self.seed, self.step)).generate_state(1)[0] >> 1))
        self.seconds, self.curve = state["seconds"], state["curve"]

    def replays(self, step: int) -> bool:
        """Whether a checkpoint of that step has a replay buffer: a finished run needs none."""
        return hasattr(self.model, "save_replay_buffer") and step < self.recipe.steps


def read_state(file: Path) -> State:
    """What run.json says. CheckpointError if it cannot be read, or is not that of a run."""
    try:
        state: State = checked(State, json.loads(file.read_bytes()), "run")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not the state of a run ({error})") from error
    return state


def remove_checkpoints(run_dir: Path, keep: str) -> None:
    """Remove a run's own checkpoints but one; a folder that holds anything else is somebody's, and stays whole."""
    for folder in run_dir.glob("checkpoint-*"):
        if folder.name == keep or folder.is_symlink() or not re.fullmatch(r"checkpoint-\d+", folder.name):
            continue
        files = list(folder.iterdir())
        if all(_is_own(file) for file in files):
            for file in files:
                file.unlink()
            folder.rmdir()


def _is_own(file: Path) -> bool:
    """Whether a file in a checkpoint is of those that a run writes, or of their unfinished forms."""
    name = re.sub(r"^\.(.+)\.[0-9a-f]+\.partial$", r"\1", file.name)
    return not file.is_dir() and name in (MODEL, BEST, REPLAY, "replay.pkl")


class Clock:
    """What happens now and then while stable-baselines3 learns: records, points of the curve, checkpoints."""

    def __init__(self, run: OnlineRun, log: RunLog, stop: list[int]) -> None:
        self.run, self.log, self.stop = run, log, stop
        self.began = time.perf_counter() - run.seconds
        self.saved = self.marked = time.perf_counter()
        self.marked_step = run.step
        self.record_every = math.ceil(run.recipe.steps / RECORDS)
        self.score_every = math.ceil(run.recipe.steps / run.recipe.evaluations)
        self.next_record, self.next_score = self._next(self.record_every), self._next(self.score_every)

    def tick(self, *_: Any) -> bool:
        """Called by stable-baselines3 after each step of the environments; False ends `learn`."""
        step, last = self.run.step, self.run.recipe.steps
        self.log.advance(step)
        if self.next_score <= step < last:
            self.next_score = self._next(self.score_every)
            self.aside(self.run.measure)
        if self.next_record <= step < last:
            self.next_record = self._next(self.record_every)
            self.record()
        if time.perf_counter() - self.saved > CHECKPOINT_SECONDS:
            self.save()
        return not self.stop

    def close(self) -> None:
        """After the last step and what was learned from it, or the last step before a signal."""
        if self.run.step >= self.run.recipe.steps:
            self.aside(self.run.measure)
            self.record()
        self.save()

    def record(self) -> None:
        """One line of the log: stable-baselines3's own numbers, and the last point of the curve."""
        now, step = time.perf_counter(), self.run.step
        values = {name: float(value) for name, value in self.run.model.logger.name_to_value.items()}
        loss = values.get("train/loss", values.get("train/critic_loss", 0.0))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is not finite at step {step} (try a lower learning rate)")
        rate = (step - self.marked_step) / max(now - self.marked, 1e-9)
        self.marked, self.marked_step = now, step
        score = {"normalized": self.run.curve[-1]["normalized"]} if self.run.curve else {}
        record = {"step": step, "time": time.time(), "seconds": now - self.began, "steps_per_second": rate, "loss": loss}
        self.log.write(record | score | values)

    def save(self) -> None:
        self.run.seconds = time.perf_counter() - self.began
        self.aside(self.run.save)
        self.saved = time.perf_counter()

    def aside(self, work: Callable[[], None]) -> None:
        """Do what is not training; its time does not count."""
        paused = time.perf_counter()
        work()
        seconds = time.perf_counter() - paused
        self.began += seconds
        self.marked += seconds

    def _next(self, every: int) -> int:
        return every * (self.run.step // every + 1)


def _written(save: Callable[[io.BytesIO], None]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()
