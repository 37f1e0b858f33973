"""The loop around a model that learns in its environments: log, learning curve, the best model so far, and checkpoints.

What `dfplan.training.loop` is for data. The model is stable-baselines3's, which is not imported here. After an interruption a
run goes on, but not bit for bit: stable-baselines3 keeps neither the state of its random generators nor the episodes under
way. Nothing in a run's folder is ever unpickled: a fresh model is given what the checkpoint has learned.
"""

from __future__ import annotations

import io
import json
import math
import operator
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfplan.training.checkpoint import CheckpointError
from dfplan.training.interrupt import interrupted
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
from dfplan.training.run_folder import STATE, another_run, differences
from dfplan.training.stopwatch import Stopwatch
from dfplan.whole_files import write_whole

Measure = Callable[[Any], Mapping[str, float]]
"""`measure(model)`: a point of the learning curve; the best model is the one whose first number is largest."""
CHECKPOINT_SECONDS, RECORDS = 60.0, 100
"""Time between checkpoints; records of a run in its log."""
PASSING = (
    *("_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer"),
    *("action_noise", "replay_buffer_class", "replay_buffer_kwargs"),
)
"""What of a model is not for its weights file: the episodes under way, and what only learning needs."""


class OnlineRun:
    """The state of a run: the model, its curve, the best model so far; and how it comes back after a kill.

    Continues what `run_dir` holds. Raises ValueError if that is another run, CheckpointError if it cannot be read.
    """

    def __init__(self, model: Any, recipe: Mapping[str, Any], seed: int, run_dir: Path, measure: Measure) -> None:
        """`model`: fresh, with its environments. `recipe`: what it was made from, with the `steps` of the whole run and the
        number of its `evaluations`."""
        self.model, self.seed, self.run_dir, self.measure = model, seed, run_dir, measure
        self.recipe: dict[str, Any] = json.loads(json.dumps(dict(recipe)))
        self.steps: int = recipe["steps"]
        self.seconds, self.curve, self.best = 0.0, list[dict[str, float]](), b""
        self.file = run_dir / STATE
        if self.file.is_file():
            self._restore()

    @property
    def step(self) -> int:
        """Decisions made so far, over all copies of the environment."""
        return int(self.model.num_timesteps)

    def learn(self, log: RunLog, stop: list[int]) -> None:
        """Train up to the recipe's steps, or until a signal is in `stop`: TrainingInterrupted then."""
        left = self.steps - self.step
        if left <= 0:
            return
        watch, saved, before = Stopwatch(self.seconds, self.step), time.monotonic(), self.step

        def passed(parts: int) -> bool:
            """Whether the last step led past one of the equal parts of the run."""
            every = math.ceil(self.steps / parts)
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
            if self.step < self.steps:
                if passed(self.recipe["evaluations"]):
                    self._add_point(watch)
                if passed(RECORDS):
                    log.write(self._record(watch))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
            before = self.step
            return not stop

        self.model.learn(left, callback=tick, log_interval=sys.maxsize, reset_num_timesteps=self.step == 0)
        if self.step >= self.steps:
            self._add_point(watch)
            log.write(self._record(watch))
        save()
        if self.step < self.steps:
            raise interrupted(stop, self.step, self.steps, self.file)

    def best_file(self) -> bytes:
        """The file of the best model, without the moments of its optimizers, which acting does not need."""
        model, last = self.model, _written(self.model)
        put(model, parse_model_zip(self.best, f"{self.run_dir}/{BEST}"))
        for name in model.get_parameters():
            if name.endswith("optimizer"):
                operator.attrgetter(name)(model).state.clear()
        file = _written(model, exclude=PASSING)
        put(model, parse_model_zip(last, f"{self.run_dir}/{MODEL}"))
        return file

    def save(self) -> None:
        """Write a checkpoint into a folder of its own, then name it in run.json, then remove the one before."""
        folder = self.run_dir / f"checkpoint-{self.step}"
        write_whole(folder / MODEL, _written(self.model))
        if self.best:
            write_whole(folder / BEST, self.best)
        if self._replays():
            save_replay(self.model.replay_buffer, folder / REPLAY)
        state = {"checkpoint": folder.name, "step": self.step, "seconds": self.seconds, "curve": self.curve}
        write_whole(self.file, json.dumps(state | {"recipe": self.recipe, "seed": self.seed}, indent=1))
        remove_checkpoints(self.run_dir, keep=folder.name)

    def _record(self, watch: Stopwatch) -> dict[str, Any]:
        """One line of the log: stable-baselines3's own numbers, and the last point of the curve."""
        values = {name: float(value) for name, value in self.model.logger.name_to_value.items()}
        loss = values.get("train/loss", values.get("train/critic_loss", 0.0))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is not finite at step {self.step} (try a lower learning rate)")
        rates = {"seconds": watch.seconds, "steps_per_second": watch.rate(self.step)}
        point = self.curve[-1] if self.curve else {}
        return {**point, "step": self.step, "time": time.time(), **rates, "loss": loss, **values}

    def _add_point(self, watch: Stopwatch) -> None:
        """A point of the learning curve; the model is kept if it is the best so far."""
        with watch.paused():
            point = {"step": self.step, **self.measure(self.model)}
        name = list(point)[1]
        if not self.best or point[name] > max(earlier[name] for earlier in self.curve):
            self.best = _written(self.model)
        self.curve.append(point)

    def _restore(self) -> None:
        """Go on from the checkpoint, with other random numbers than an undisturbed run would have."""
        state, model = read_state(self.file), self.model
        self._require_same_run(state)
        folder = self.run_dir / state["checkpoint"]
        put(model, read_model_zip(folder / MODEL))
        if self.step != state["step"]:
            raise CheckpointError(f"{folder / MODEL} is at step {self.step}, and {self.file} at step {state['step']}")
        if self._replays():
            if not (folder / REPLAY).exists() and (folder / "replay.pkl").exists():
                pickled = f"the checkpoint in {folder} is of an earlier version, whose replay buffer is a pickle"
                raise CheckpointError(f"{pickled}: it is not opened; remove the run to start anew")
            load_replay(model.replay_buffer, folder / REPLAY)
        if (folder / BEST).is_file():
            self.best = read_model_zip(folder / BEST).content
        model.set_random_seed(int(np.random.SeedSequence((self.seed, self.step)).generate_state(1)[0] >> 1))
        self.seconds, self.curve = state["seconds"], state["curve"]

    def _require_same_run(self, state: State) -> None:
        """The number of steps may grow, for learning rates here are constant, while there is what to learn from."""
        there = {"seed": state["seed"], **state["recipe"]}
        differing, reason = differences(there, {"seed": self.seed, **self.recipe}), ""
        if list(differing) == ["steps"]:
            over = not isinstance(there["steps"], int) or state["step"] >= there["steps"]
            unlearned = over and hasattr(self.model, "save_replay_buffer")
            if not unlearned and self.steps >= state["step"]:
                return
            reason = " (a finished run keeps no replay buffer)" if unlearned else f" ({state['step']} are done)"
        if differing:
            raise another_run(self.run_dir, differing, reason)

    def _replays(self) -> bool:
        """Whether the checkpoint of this step has a replay buffer: a finished run needs none."""
        return hasattr(self.model, "save_replay_buffer") and self.step < self.steps


def _written(model: Any, exclude: tuple[str, ...] = ()) -> bytes:
    file = io.BytesIO()
    model.save(file, exclude=exclude)
    return file.getvalue()
