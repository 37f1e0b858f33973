"""From recorded pictures to the numbers that all learners take: an encoder is trained, and then used once on each."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dfplan.config_json import config_to_json
from dfplan.data import readers
from dfplan.data.pictures import Pictured
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import Batch
from dfplan.models.keypoints import PictureConfig, PictureEncoder
from dfplan.training.config import TrainConfig
from dfplan.training.loop import train

TRAINING = TrainConfig(steps=2_000, batch_size=32, learning_rate=3e-3, warmup_steps=50, ema_decay=0.99)
"""How an encoder is trained."""
USUAL = 0.999
"""Share of the recorded pictures whose errors lie below the usual one."""
SAMPLE = 256
"""How many pictures the first background is the mean of."""


def encoded(
    data: Pictured,
    run_dir: str | Path,
    *,
    training: TrainConfig | None = None,
    accelerator: str = "auto",
    quiet: bool = False,
) -> tuple[Trajectories, PictureEncoder]:
    """Train an encoder of the pictures in recorded data, by `training`, or else `TRAINING`. Returns the data with numbers in
    place of pictures, and the encoder.

    The same call goes on after an interruption, and a finished run in this folder is not trained again. Raises ValueError for
    data that no learner can take, before anything is trained, and what `dfplan.training.loop.train` raises.
    """
    shapes, training = data.shapes, training or TRAINING
    config = PictureConfig(tuple(shapes), tuple(shapes.values()))
    readers.encoded(data, lambda key, pictures: np.zeros((len(pictures), 2 * config.points), np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        encoder = PictureEncoder(config)
    pictures = {key: data.pictures(key) for key in config.keys}
    for number, key in enumerate(config.keys):
        encoder.begin(number, pictures[key][:: -(-len(data) // SAMPLE)])

    def batches(rng: np.random.Generator, size: int) -> Batch:
        rows = rng.integers(len(data), size=size)
        return tuple(pictures[key][rows] for key in config.keys)

    header = {"pictures": config_to_json(config), "data": _fingerprint(pictures)}
    result = train(encoder, batches, training, run_dir, header=header, accelerator=accelerator, quiet=quiet)
    encoder.load_state_dict(result.ema_state)
    encoder.cpu().eval().finish()

    def numbers(key: str, recorded: NDArray[np.uint8]) -> NDArray[np.float32]:
        number = config.keys.index(key)
        found, errors = encoder.encode(number, recorded)
        if len(recorded) == len(data):
            encoder.usual[number] = float(np.quantile(errors, USUAL))
        return found

    return readers.encoded(data, numbers), encoder


def _fingerprint(pictures: dict[str, NDArray[np.uint8]]) -> str:
    """sha256 hex over each picture's key, shape and bytes."""
    digest = hashlib.sha256()
    for key, array in pictures.items():
        digest.update(f"{key} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
