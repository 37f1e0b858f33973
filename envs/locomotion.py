"""Gymnasium's MuJoCo locomotion: hopper, walker2d and halfcheetah, with data of our own.

Soft actor-critic (stable-baselines3) learns in the environment and leaves a snapshot of its actor every `SEGMENT` steps. The
data are episodes that snapshots play, with the actor's own noise: 'expert' those of the best snapshot, 'medium' those of the
first that has a third of its return, 'mixed' those of a snapshot drawn anew for each episode, from the first falls to the
best. They are not D4RL's sets, and no score on them is to be compared with one on those.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from dfplan.envs.registry import Task, make
from dfplan.envs.shards import Arrays, Recipe, record
from dfplan.locks import hold
from dfplan.whole_files import remove_partial_files, write_whole

SEGMENT = 10_000
"""Steps between two snapshots; a training that is interrupted goes on from the last."""
TRAINING_STEPS = {"hopper": 300_000, "walker2d": 300_000, "halfcheetah": 100_000}
QUICK_TRAINING_STEPS = 60_000
"""Of the actor; halfcheetah cannot fall, and runs after a third of the steps."""
SETTINGS: dict[str, Any] = {"batch_size": 256, "learning_starts": 2_000, "policy_kwargs": {"net_arch": [128, 128]}}
"""Of stable-baselines3's SAC, where they are not its own defaults."""
MEDIUM = 1 / 3
"""Of the best snapshot's return: what a 'medium' one has at least."""
_KEPT = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")  # of the replay buffer


@dataclass(frozen=True)
class Rollouts(Recipe):
    """Episodes of snapshots of one training."""

    SHARD_STEPS: ClassVar[int] = 10_000
    BYTES_PER_STEP: ClassVar[int] = 250
    PACKAGES: ClassVar[tuple[str, ...]] = (*Recipe.PACKAGES, "gymnasium", "stable-baselines3", "torch")

    body: str
    """'hopper', 'walker2d' or 'halfcheetah'."""
    level: str
    """'medium', 'expert' or 'mixed'."""
    training_steps: int
    """Steps that the actor learns for."""
    steps: int
    """Number of steps to collect."""
    seed: int
    """Of training and episodes."""

    @classmethod
    def own(cls, task: Task, quick: bool) -> Self:
        """The recipe of a task's own data."""
        body, level, *_ = task.env_id.split("-")
        return cls(body, level, QUICK_TRAINING_STEPS if quick else TRAINING_STEPS[body], 1_000_000, seed=0)

    def prepare(self, folder: Path, quiet: bool) -> None:
        """Train, in a hidden folder beside that of the shards, which the levels of one body share."""
        super().prepare(folder, quiet)
        place = self.training_folder(folder)
        place.mkdir(exist_ok=True)
        with hold(place / ".lock", f"which trains for {self.body}", wait=True):
            train(place, self._env_id, self.training_steps, self.seed, quiet)

    def training_folder(self, folder: Path) -> Path:
        """Where the training's snapshots lie."""
        parts = [self.body, self.training_steps, self.seed, SEGMENT, SETTINGS, self.versions]
        return folder.parent / f".training-{self.body}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"

    def collect(self, index: int, folder: Path) -> Arrays:
        """One shard: whole episodes, but for the last."""
        seed = self.shard_seed(index)
        rng, actors = np.random.default_rng(seed), chosen(snapshots(self.training_folder(folder)), self.level)

        def actor() -> Callable[[Any], Any]:
            return partial(actors[rng.integers(len(actors))], rng=rng)

        return record(make(self._env_id), self.shard_steps(index), seed, actor)

    ALGORITHM: ClassVar[str] = "stable-baselines3 SAC"
    SOURCE: ClassVar[str] = "https://github.com/DLR-RM/stable-baselines3"

    def description(self, env_id: str) -> str:
        """Who acted, and what the rewards are."""
        return (
            f"Data of {self.body} at the level '{self.level}', by snapshots of SAC that learned here for "
            f"{self.training_steps:,} steps. They are not D4RL's data."
        )

    @property
    def _env_id(self) -> str:
        return f"{self.body}-{self.level}-own-v0"


class Actor:
    """SAC's actor: `actor(observation (D,), rng) -> (A,)` float32 in [-1, 1], drawn from its distribution."""

    def __init__(self, path: Path):
        from safetensors import safe_open
        from safetensors.numpy import load_file

        arrays = load_file(path)
        with safe_open(path, "numpy") as file:
            self.mean_return = float(file.metadata()["return"])
        depth = sum(name.startswith("latent_pi") and name.endswith("weight") for name in arrays)
        names = [*(f"latent_pi.{2 * layer}" for layer in range(depth)), "mu", "log_std"]
        *self._hidden, self._mean, self._log_std = ((arrays[f"{n}.weight"], arrays[f"{n}.bias"]) for n in names)

    def __call__(self, observation: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
        """An action."""
        x = observation.astype(np.float32)
        for weight, bias in self._hidden:
            x = np.maximum(weight @ x + bias, 0.0)
        mean, log_std = (weight @ x + bias for weight, bias in (self._mean, self._log_std))
        drawn = mean + np.exp(np.clip(log_std, -20.0, 2.0)) * rng.standard_normal(len(mean), dtype=np.float32)
        return np.tanh(drawn).astype(np.float32)


def snapshots(place: Path) -> list[Actor]:
    """All snapshots of a training, in their order."""
    return [Actor(path) for path in sorted(place.glob("actor-*.safetensors"))]


def chosen(actors: list[Actor], level: str) -> list[Actor]:
    """Those that play a level's episodes."""
    best = max(actors, key=lambda actor: actor.mean_return)
    if level == "expert":
        return [best]
    if level == "medium":
        return [next(actor for actor in actors if actor.mean_return >= MEDIUM * best.mean_return)]
    return actors


def train(place: Path, env_id: str, steps: int, seed: int, quiet: bool) -> None:
    """Train SAC in segments, each a function of the one before it, and keep the actor after each of them.

    A training that was interrupted goes on from the last whole segment and ends with the same actors on the same machine.
    """
    segments = max(1, steps // SEGMENT)
    done = max((int(path.stem[-4:]) for path in place.glob("state-*.safetensors")), default=0)
    with Progress(console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task(f"{env_id}: SAC learns for {steps:,} steps", total=segments, completed=done)
        for segment in range(done + 1, segments + 1):
            _train_segment(place, env_id, segment, segments * SEGMENT + 1, seed)  # the buffer never wraps
            progress.advance(bar)


def _train_segment(place: Path, env_id: str, segment: int, buffer_size: int, seed: int) -> None:
    """Learn for one segment from the state that the last one left, and write the next."""
    from safetensors.torch import load_file, save
    from stable_baselines3 import SAC

    own_seed = int(np.random.SeedSequence([seed, segment]).generate_state(1)[0])
    settings = deepcopy(SETTINGS)  # stable-baselines3 writes into it
    model = SAC("MlpPolicy", make(env_id), seed=own_seed, device="cpu", buffer_size=buffer_size, **settings)
    before = place / f"state-{segment - 1:04d}.safetensors"
    if segment > 1:
        _set_state(model, load_file(before), (segment - 1) * SEGMENT)
    model.learn(SEGMENT, reset_num_timesteps=False)
    episodes = model.ep_info_buffer or [{"r": 0.0}]
    about = {"return": repr(float(np.mean([episode["r"] for episode in episodes])))}
    actor = {name: tensor.contiguous() for name, tensor in model.actor.state_dict().items()}
    for name, file in (("actor", save(actor, about)), ("state", save(_state(model)))):
        path = place / f"{name}-{segment:04d}.safetensors"
        remove_partial_files(path)
        write_whole(path, file)
    before.unlink(missing_ok=True)


def _state(model: Any) -> dict[str, Any]:
    """All that a training goes on from, as tensors: networks, optimizers, replay buffer."""
    state: dict[str, Any] = {}
    for part, values in model.get_parameters().items():
        if part.endswith("optimizer"):
            for number, moments in values["state"].items():
                state |= {f"{part}/{number}/{name}": tensor for name, tensor in moments.items()}
        else:
            state |= {f"{part}/{name}": tensor for name, tensor in values.items()}
    state["log_ent_coef"] = model.log_ent_coef.detach()
    new = state["log_ent_coef"].new_tensor
    for name in _KEPT:
        state[f"replay/{name}"] = new(getattr(model.replay_buffer, name)[: model.replay_buffer.pos])
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def _set_state(model: Any, state: dict[str, Any], steps: int) -> None:
    """Give a fresh model what `_state` kept of another."""
    parameters = model.get_parameters()
    for part, values in parameters.items():
        kept = {name.removeprefix(f"{part}/"): tensor for name, tensor in state.items() if name.startswith(f"{part}/")}
        if part.endswith("optimizer"):
            for name, tensor in kept.items():
                number, _, moment = name.partition("/")
                values["state"].setdefault(int(number), {})[moment] = tensor
        else:
            values.update(kept)
    model.set_parameters(parameters)
    model.log_ent_coef.data.copy_(state["log_ent_coef"])
    for name in _KEPT:
        getattr(model.replay_buffer, name)[:steps] = state[f"replay/{name}"].numpy()
    model.replay_buffer.pos = model.num_timesteps = steps
