"""A module that learns in a moment, its data, and runs of it that can be compared bit for bit."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dfplan.training.checkpoint import load_checkpoint
from dfplan.training.config import TrainConfig
from dfplan.training.loop import train

CONFIG = TrainConfig(
    steps=60, batch_size=16, learning_rate=3e-3, warmup_steps=10, checkpoint_every=7, log_every=5, precision="32-true"
)


class Regression(nn.Module):
    """Learns the product of three numbers that it sees with noise."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, batch, generator):
        x, y = batch
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        error = self.net(x + 0.01 * noise) - y
        return {"loss": error.square().mean(), "absolute": error.detach().abs().mean()}


def batch(rng, size):
    x = rng.uniform(-1, 1, (size, 3)).astype(np.float32)
    return x, self_product(x)


def self_product(x):
    return x.prod(axis=1, keepdims=True)


def batch_until(calls, action):
    """A batch source that does something before it answers for the ``calls``-th time."""
    count = iter(range(1, 1 << 30))

    def source(rng, size):
        if next(count) == calls:
            action()
        return batch(rng, size)

    return source


class PowerFailureError(Exception):
    pass


def fail():
    raise PowerFailureError


def run(run_dir, config=CONFIG, source=batch, module=None, **options):
    torch.set_num_threads(1)
    return train(module or Regression(), source, config, run_dir, accelerator="cpu", quiet=True, **options)


def records(run_dir, names=("step", "loss", "absolute", "gradient_norm", "learning_rate")):
    lines = (Path(run_dir) / "log.jsonl").read_text().splitlines()
    return [{name: json.loads(line)[name] for name in names} for line in lines]


def assert_same_run(run_dir, reference_dir):
    """Weights, averages, optimizer state and log are equal bit for bit."""
    one, one_header = load_checkpoint(run_dir / "last.safetensors")
    other, other_header = load_checkpoint(reference_dir / "last.safetensors")
    assert one_header["step"] == other_header["step"]
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert records(run_dir) == records(reference_dir)
