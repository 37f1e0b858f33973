"""One run of stable-baselines3's `learn`: records, learning curve, best model, checkpoints."""

from __future__ import annotations

import io
import json
import math
import operator
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from dfplan.agents.stable_baselines import StableBaselinesAgent
from dfplan.benchmarks.protocol import TUNING_SEEDS, evaluate
from dfplan.checkpoint import CheckpointError
from dfplan.envs.reference import normalized_score
from dfplan.runlog import RunLog
from dfplan.training import TrainingInterrupted
from dfplan.whole_files import write_whole

if TYPE_CHECKING:
    from dfplan.benchmarks.online import OnlineRecipe

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


class OnlineRun:
    """The state of a run: the model, its curve, the best model so far; and how it comes back after a kill.

    Continues what ``run_dir`` holds. Raises ValueError if that is another run, CheckpointError if it cannot be read.
    """

    def __init__(self, recipe: OnlineRecipe, seed: int, run_dir: Path, fresh: BaseAlgorithm) -> None:
        """fresh: a model with its environments, as the recipe builds it."""
        self.recipe, self.seed, self.run_dir, self.model = recipe, seed, run_dir, fresh
        self.identity: dict[str, Any] = json.loads(json.dumps({"recipe": asdict(recipe), "seed": seed}))
        self.seconds, self.curve, self.best = 0.0, list[dict[str, float]](), b""
        self.file = run_dir / "run.json"
        if self.file.is_file():
            state = json.loads(self.file.read_text(encoding="utf-8"))
            self.require_same_run(state)
            try:
                self.restore(state)
            except Exception as error:  # whatever a torn zip or pickle raises
                raise CheckpointError(f"the checkpoint that {self.file} names cannot be read ({error!r})") from error

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
        model = self.loaded(io.BytesIO(self.best))
        for name in model.get_parameters():
            if name.endswith("optimizer"):
                operator.attrgetter(name)(model).state.clear()
        return StableBaselinesAgent(model, file=_written(lambda file: model.save(file, exclude=PASSING)))

    def save(self) -> None:
        """Write a checkpoint into a folder of its own, name it in run.json, and only then remove the one before."""
        folder = self.run_dir / f"checkpoint-{self.step}"
        write_whole(folder / "model.zip", _written(self.model.save))
        if self.best:
            write_whole(folder / "best.zip", self.best)
        if self.replays(self.step):
            model: Any = self.model
            write_whole(folder / "replay.pkl", _written(model.save_replay_buffer))
        state = {"checkpoint": folder.name, "step": self.step, "seconds": self.seconds, "curve": self.curve}
        write_whole(self.file, json.dumps(state | self.identity, indent=1).encode())
        for old in self.run_dir.glob("checkpoint-*"):
            if old != folder:
                shutil.rmtree(old)

    def require_same_run(self, state: Mapping[str, Any]) -> None:
        there = {"seed": state["seed"], **state["recipe"]}
        asked = {"seed": self.seed, **self.identity["recipe"]}
        if names := [name for name in asked if there.get(name) != asked[name]]:
            fields = ", ".join(f"{name} is {there.get(name)!r} there and {asked[name]!r} here" for name in names)
            raise ValueError(
                f"{self.run_dir} holds another run: {fields}; choose another folder, or remove that one to start anew"
            )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the checkpoint, with other random numbers than an undisturbed run would have."""
        folder = self.run_dir / state["checkpoint"]
        model = self.loaded(folder / "model.zip")
        if self.replays(state["step"]):
            with warnings.catch_warnings(action="ignore"):  # that the episode under way is cut off: it is
                model.load_replay_buffer(folder / "replay.pkl")
            buffer = model.replay_buffer
            if not self.recipe.hindsight and (buffer.pos or buffer.full):
                buffer.timeouts[buffer.pos - 1] = True  # a return of several steps must not reach into another episode
        model.set_random_seed(int(np.random.SeedSequence((self.seed, state["step"])).generate_state(1)[0] >> 1))
        if (folder / "best.zip").is_file():
            self.best = (folder / "best.zip").read_bytes()
        self.model, self.seconds, self.curve = model, state["seconds"], state["curve"]

    def replays(self, step: int) -> bool:
        """Whether a checkpoint of that step has a replay buffer: a finished run needs none."""
        return hasattr(self.model, "save_replay_buffer") and step < self.recipe.steps

    def loaded(self, file: Any) -> Any:
        """A model with this run's environments, from a file of stable-baselines3's."""
        # The class of a buffer for returns of several steps follows from n_steps; hindsight's does not.
        anew = {} if self.recipe.hindsight else {"replay_buffer_class": None}
        return type(self.model).load(file, env=self.model.env, device=self.model.device, custom_objects=anew)


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
