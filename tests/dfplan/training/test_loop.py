"""What a training leaves: weights, average, log, curve; what the module is given; what ends it."""

import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import regression
import torch
from regression import CONFIG, PowerFailureError, Regression, assert_same_run, batch, batch_until, fail, records, run
from torch import nn

from dfplan.training.checkpoint import load_checkpoint
from dfplan.training.config import TrainConfig
from dfplan.training.interrupt import TrainingInterrupted
from dfplan.training.loop import train


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_toy_regression_learns(tmp_path, precision):
    config = TrainConfig(
        steps=600, batch_size=64, learning_rate=1e-2, warmup_steps=20, ema_decay=0.98, precision=precision
    )
    result = run(tmp_path, config)
    x = np.random.default_rng(99).uniform(-1, 1, (2000, 3)).astype(np.float32)
    y = regression.self_product(x)
    module = Regression()
    module.load_state_dict(result.ema_state)
    with torch.no_grad():
        error = (module.net(torch.from_numpy(x)) - torch.from_numpy(y)).square().mean().item()
    assert error < 0.05 * y.var()
    assert (result.steps, result.rank) == (600, 0)
    assert result.seconds > 0
    assert result.metrics["loss"] == records(tmp_path)[-1]["loss"]
    assert result.metrics["absolute"] < math.sqrt(result.metrics["loss"])
    assert {tensor.dtype for tensor in load_checkpoint(tmp_path / "last.safetensors")[0].values()} == {torch.float32}


def test_average_and_buffers_are_in_the_result(tmp_path):
    module = Regression()
    result = run(tmp_path, module=module)
    assert result.ema_state.keys() == module.state_dict().keys()
    assert result.ema_state["scale"] == 2.0
    assert not torch.equal(result.ema_state["net.0.weight"], module.net[0].weight)
    tensors, _ = load_checkpoint(tmp_path / "last.safetensors")
    assert torch.equal(tensors["weights/net.0.weight"], module.net[0].weight)
    assert torch.equal(tensors["ema/net.0.weight"], result.ema_state["net.0.weight"])


def test_same_seed_same_weights_and_other_seed_others(tmp_path, reference):
    run(tmp_path / "same")
    assert_same_run(tmp_path / "same", reference)
    other = run(tmp_path / "other", replace(CONFIG, seed=1))
    same, _ = load_checkpoint(reference / "last.safetensors")
    assert not torch.equal(other.ema_state["net.0.weight"], same["ema/net.0.weight"])


def test_frozen_and_tied_parameters(tmp_path):
    class Tied(Regression):
        def __init__(self):
            super().__init__()
            self.again = self.net[2]
            self.net[0].requires_grad_(False)

    module = Tied()
    frozen = module.net[0].weight.clone()
    run(tmp_path, replace(CONFIG, steps=12), module=module)
    assert torch.equal(module.net[0].weight, frozen)
    result = run(tmp_path, replace(CONFIG, steps=12), module=Tied())
    assert torch.equal(result.ema_state["again.weight"], result.ema_state["net.2.weight"])


def test_a_learning_rate_factor_scales_the_steps_of_its_parameters(tmp_path):
    """Adam's first step is the learning rate along the sign of the gradient, for each parameter."""

    class Slow(Regression):
        def learning_rate_factor(self, name):
            return {"net.0.weight": 0.5, "net.2.bias": 0.0}.get(name, 1.0)

    module, before = Slow(), Slow().state_dict()
    config = replace(CONFIG, steps=1, learning_rate=1e-2, warmup_steps=0, weight_decay=0.0, gradient_clip=1e9)
    train(module, batch, config, tmp_path, accelerator="cpu", quiet=True)
    moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in module.named_parameters()}
    assert moved["net.0.weight"] == pytest.approx(0.5e-2, rel=1e-3)
    assert moved["net.2.bias"] == 0.0
    assert all(moved[name] == pytest.approx(1e-2, rel=1e-3) for name in moved.keys() - {"net.0.weight", "net.2.bias"})


def test_log_and_tensorboard_agree(tmp_path, reference):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(PowerFailureError):
        run(tmp_path, source=batch_until(33, fail))
    assert records(tmp_path)[-1]["step"] == 30  # the checkpoint is of step 28, so this record must go
    run(tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    written = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in written] == [record["step"] for record in records(reference)] == list(range(5, 61, 5))
    assert [loss for _, loss in written] == pytest.approx([record["loss"] for record in records(reference)])


class Watching(nn.Module):
    """Notes the batch that it is given; the first column of the numbers is normalized, and then meets a weight."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen = []

    def forward(self, batch, generator):
        self.seen.append(tuple(part.clone() for part in batch))
        hidden = self.net((batch[0][:, :1] - 31.0) / 0.5)
        self.product = hidden.dtype
        return {"loss": hidden.float().square().mean()}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_module_sees_the_numbers_of_the_data_whatever_the_precision(tmp_path, precision):
    numbers, whole = np.array([[31.37, -1.5711, 100_003.28125]]), np.array([2**24 + 1])
    module = Watching()
    config = replace(CONFIG, steps=1, precision=precision)
    source = {np.float64: numbers, np.float32: numbers.astype(np.float32)}
    for dtype, values in source.items():
        train(module, lambda rng, size, v=values: (v, whole), config, tmp_path / dtype.__name__, quiet=True)
        seen = module.seen[-1]
        assert seen[0].dtype == torch.float32 and seen[0].tolist() == numbers.astype(np.float32).tolist()
        assert seen[1].dtype == torch.int64 and seen[1].item() == 2**24 + 1, "a label is no number to be rounded"
    assert module.product == (torch.bfloat16 if precision == "bf16-mixed" else torch.float32)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_mixed_precision_resumes_bit_for_bit_too(tmp_path, precision):
    config = replace(CONFIG, steps=20, precision=precision)
    run(tmp_path / "whole", config)
    with pytest.raises(PowerFailureError):
        run(tmp_path / "cut", config, source=batch_until(12, fail))
    run(tmp_path / "cut", config)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_probe_sees_the_averaged_weights_and_leaves_training_as_it_was(tmp_path):
    module, seen = Regression(), []

    def probe():
        seen.append({name: value.detach().clone() for name, value in module.named_parameters()})
        return {"first": module.net[0].weight[0, 0].item()}

    result = train(module, batch, CONFIG, tmp_path, quiet=True, probe=probe, probe_every=25)
    assert [point["step"] for point in result.curve] == [25, 50, 60]
    assert all(torch.equal(value, result.ema_state[name]) for name, value in seen[-1].items())
    assert not torch.equal(seen[0]["net.0.weight"], seen[1]["net.0.weight"])
    undisturbed = train(Regression(), batch, CONFIG, tmp_path / "plain", quiet=True)
    assert all(torch.equal(value, undisturbed.ema_state[name]) for name, value in result.ema_state.items())


def test_a_curve_survives_an_interruption(tmp_path):
    def run(folder, stop_at=None):
        module = Regression()
        source = batch if stop_at is None else batch_until(stop_at, lambda: os.kill(os.getpid(), signal.SIGINT))
        return train(module, source, CONFIG, folder, quiet=True, probe_every=10,
                     probe=lambda: {"first": module.net[0].weight[0, 0].item()})  # fmt: skip

    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "cut", stop_at=33)
    assert run(tmp_path / "cut").curve == run(tmp_path / "whole").curve


@pytest.mark.parametrize(
    "options",
    [
        {"accelerator": "cuda"},
        {"accelerator": "tpu"},
        {"accelerator": "abacus"},
        {"devices": -1},
        {"devices": 0},
        {"devices": "two"},
        {"strategy": "hope"},
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices_that_are_not_there_are_one_sentence(tmp_path, options):
    with pytest.raises(ValueError, match="no training with accelerator") as caught:
        train(Regression(), batch, CONFIG, tmp_path / "run", **{"accelerator": "cpu", "quiet": True} | options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_checkpoint(tmp_path, poison):
    count = iter(range(1000))

    def source(rng, size):
        x, y = batch(rng, size)
        return x, y * (poison if next(count) == 17 else 1)

    with pytest.raises(FloatingPointError, match="not finite at step 17; the checkpoint of step 14"):
        run(tmp_path, source=source)
    tensors, header = load_checkpoint(tmp_path / "last.safetensors")
    assert header["step"] == 14
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert [record["step"] for record in records(tmp_path)] == [5, 10, 15]


def test_a_module_without_loss_is_refused(tmp_path):
    class Wrong(Regression):
        def forward(self, batch, generator):
            return {"error": super().forward(batch, generator)["loss"]}

    with pytest.raises(ValueError, match="Wrong must return a dictionary with the key 'loss'"):
        run(tmp_path, module=Wrong())
