import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dfplan.locks import InUseError
from dfplan.training.average import MovingAverage, ema_decay
from dfplan.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dfplan.training.loop import TrainConfig, TrainingInterrupted, learning_rate, require_trainable, train

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


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    run(folder)
    return folder


# The parts


def test_learning_rate_rises_linearly_then_falls_along_half_a_cosine():
    config = TrainConfig(steps=110, learning_rate=0.5, warmup_steps=10, schedule="cosine")
    rates = [learning_rate(step, config) for step in range(110)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert rates[10] == 0.5
    assert rates[60] == pytest.approx(0.25)
    assert 0 < rates[-1] < 0.5 * 1e-3
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_constant_learning_rate():
    config = TrainConfig(steps=100, learning_rate=0.5, warmup_steps=4, schedule="constant")
    assert [learning_rate(step, config) for step in (0, 3, 4, 50, 99)] == [0.125, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("steps", True),
        ("batch_size", -1),
        ("learning_rate", math.nan),
        ("learning_rate", "high"),
        ("gradient_clip", 0.0),
        ("weight_decay", math.inf),
        ("ema_decay", 1.0),
        ("precision", "16-mixed"),
        ("schedule", "linear"),
        ("seed", -1),
        ("warmup_steps", -1),
    ],
)
def test_config_names_the_bad_field(field, value):
    with pytest.raises(ValueError, match=field):
        replace(CONFIG, **{field: value})


def test_moving_average_has_its_closed_form():
    module = nn.Linear(1, 1, bias=False)
    values = [3.0, -1.0, 4.0, 1.0, 5.0]
    nn.init.constant_(module.weight, 2.0)
    average = MovingAverage(module)
    for value in values:
        nn.init.constant_(module.weight, value)
        average.update(0.9)
    expected = 0.9**5 * 2.0 + sum(0.1 * 0.9 ** (4 - i) * value for i, value in enumerate(values))
    assert average.state["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_moving_average_forgets_the_first_weights():
    assert ema_decay(0, 0.999) == 0.1
    assert ema_decay(10, 0.999) == 11 / 20
    assert ema_decay(10**6, 0.999) == 0.999


def test_tied_weights_have_one_average_under_both_names():
    module = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    module["b"].weight = module["a"].weight
    average = MovingAverage(module)
    assert average.state.keys() == {"a.weight", "b.weight"}
    assert average.state["a.weight"] is average.state["b.weight"]


# The loop


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_toy_regression_learns(tmp_path, precision):
    config = TrainConfig(
        steps=600, batch_size=64, learning_rate=1e-2, warmup_steps=20, ema_decay=0.98, precision=precision
    )
    result = run(tmp_path, config)
    x = np.random.default_rng(99).uniform(-1, 1, (2000, 3)).astype(np.float32)
    y = self_product(x)
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


# Numbers of the data


class Watching(nn.Module):
    """Notes the batch that it is given; the first column of the numbers is normalised, and then meets a weight."""

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


# Interruption


@pytest.mark.parametrize("calls", [1, 8, 30, 60])
def test_a_failure_at_any_step_costs_nothing(tmp_path, reference, calls):
    with pytest.raises(PowerFailureError):
        run(tmp_path, source=batch_until(calls, fail))
    run(tmp_path, module=Regression(seed=5))  # other first weights must not matter
    assert_same_run(tmp_path, reference)


def test_a_half_written_log_line_is_dropped(tmp_path, reference):
    with pytest.raises(PowerFailureError):
        run(tmp_path, source=batch_until(23, fail))
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 25, "los')
    run(tmp_path)
    assert_same_run(tmp_path, reference)


def test_a_finished_run_returns_at_once(reference):
    before = (reference / "last.safetensors").read_bytes()
    result = run(reference, source=batch_until(1, fail))
    tensors, header = load_checkpoint(reference / "last.safetensors")
    assert result.steps == 60
    assert result.seconds == header["seconds"]
    assert result.metrics["loss"] == records(reference)[-1]["loss"]
    assert torch.equal(result.ema_state["net.0.weight"], tensors["ema/net.0.weight"])
    assert (reference / "last.safetensors").read_bytes() == before


def test_seconds_add_up_over_resumptions(tmp_path):
    with pytest.raises(PowerFailureError):
        run(tmp_path, source=batch_until(40, fail))
    _, header = load_checkpoint(tmp_path / "last.safetensors")
    assert header["step"] == 35
    assert run(tmp_path).seconds > header["seconds"] > 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_and_continues_later(tmp_path, reference, capsys, number, status):
    handler = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted) as caught:
        run(tmp_path, source=batch_until(24, lambda: os.kill(os.getpid(), number)))
    assert caught.value.code == status
    assert load_checkpoint(tmp_path / "last.safetensors")[1]["step"] == 24
    message = capsys.readouterr().err
    assert "interrupted after step 24 of 60" in message
    assert "run the same command to continue" in message
    assert signal.getsignal(number) is handler
    run(tmp_path)
    assert_same_run(tmp_path, reference)


def test_a_second_ctrl_c_is_obeyed_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, source=batch_until(10, twice))
    assert load_checkpoint(tmp_path / "last.safetensors")[1]["step"] == 7


def test_trains_outside_the_main_thread(tmp_path, reference):
    thread = threading.Thread(target=run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert_same_run(tmp_path, reference)


# Refusals


def test_another_config_is_refused_with_the_differing_fields(reference):
    before = (reference / "last.safetensors").read_bytes()
    with pytest.raises(ValueError, match="holds another run") as caught:
        run(reference, replace(CONFIG, steps=61, learning_rate=0.5))
    sentence = str(caught.value)
    assert "config.steps is 60 there and 61 here" in sentence
    assert "config.learning_rate is 0.003 there and 0.5 here" in sentence
    assert "batch_size" not in sentence
    assert "choose another folder" in sentence
    with pytest.raises(ValueError, match=r"header\.data is None there and 'abc' here"):
        run(reference, header={"data": "abc"})
    assert (reference / "last.safetensors").read_bytes() == before


def test_a_run_with_a_constant_learning_rate_can_be_lengthened(tmp_path):
    """The longer run is what it would have been from the start."""
    config = replace(CONFIG, steps=30, schedule="constant")
    run(tmp_path / "whole", replace(config, steps=45))
    run(tmp_path / "longer", config)
    assert run(tmp_path / "longer", replace(config, steps=45)).steps == 45
    assert_same_run(tmp_path / "longer", tmp_path / "whole")
    with pytest.raises(ValueError, match=r"config.steps is 45 there and 44 here \(45 are done\)"):
        run(tmp_path / "longer", replace(config, steps=44))


def test_a_run_along_a_cosine_cannot_be_lengthened_and_says_so_before_any_data(reference):
    before = (reference / "last.safetensors").read_bytes()
    longer = replace(CONFIG, steps=120)
    sentence = (
        r"config.steps is 60 there and 120 here \(a cosine learning rate ends at a step that is set at the start\)"
    )
    with pytest.raises(ValueError, match=sentence):
        require_trainable(reference, longer, {})
    with pytest.raises(ValueError, match=sentence):
        run(reference, longer)
    assert (reference / "last.safetensors").read_bytes() == before


def test_what_is_known_before_the_data_is_compared_before_the_data(tmp_path):
    run(tmp_path, replace(CONFIG, steps=5), header={"model": {"width": 3}, "data": "abc"})
    listing = sorted(tmp_path.iterdir())
    require_trainable(tmp_path, replace(CONFIG, steps=5), {"model": {"width": 3}})
    with pytest.raises(ValueError, match=r"header\.model\.width is 3 there and 4 here"):
        require_trainable(tmp_path, replace(CONFIG, steps=5), {"model": {"width": 4}})
    with pytest.raises(ValueError, match="devices is 1 there and 2 here"):
        require_trainable(tmp_path, replace(CONFIG, steps=5), {}, devices=2)
    require_trainable(tmp_path / "new", CONFIG, {})
    assert sorted(tmp_path.iterdir()) == listing


def test_many_differences_make_one_short_sentence(reference):
    other = replace(CONFIG, steps=61, batch_size=3, seed=9, weight_decay=0.5, warmup_steps=3, ema_decay=0.2)
    with pytest.raises(ValueError, match=r"and 5 more; choose") as caught:
        run(reference, other, header={"note": "x" * 1000})
    assert len(str(caught.value)) - len(str(reference)) < 250


def test_how_often_to_write_may_change(tmp_path, reference):
    with pytest.raises(PowerFailureError):
        run(tmp_path, source=batch_until(30, fail))
    run(tmp_path, replace(CONFIG, checkpoint_every=20, log_every=20))
    one, other = (load_checkpoint(folder / "last.safetensors")[0] for folder in (tmp_path, reference))
    assert all(torch.equal(one[name], other[name]) for name in one)


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


def test_a_module_of_another_shape_is_refused(reference):
    module = Regression()
    module.net[0] = nn.Linear(3, 8)
    with pytest.raises(CheckpointError, match=r"do not fit Regression: .*net\.0\.weight"):
        run(reference, module=module)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    save_checkpoint(tmp_path / "last.safetensors", {"weight": torch.zeros(1)}, {"kind": "agent"})
    with pytest.raises(CheckpointError, match="is not the checkpoint of a training run"):
        run(tmp_path)


def damaged(folder, reference, change):
    """A copy of the reference run, its checkpoint's tensors and header changed."""
    shutil.copytree(reference, folder)
    tensors, header = load_checkpoint(folder / "last.safetensors")
    change(tensors, header)
    save_checkpoint(folder / "last.safetensors", tensors, header)
    return folder


MOMENT = "optimizer/net.0.weight/exp_avg"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (MOMENT, torch.zeros(1)),  # a shape that crashed the fused optimizer
        (MOMENT, torch.zeros(0)),
        (MOMENT, torch.zeros(3, 32)),
        (MOMENT, torch.zeros(32, 3, dtype=torch.int32)),
        (MOMENT, torch.zeros(32, 3, dtype=torch.float64)),
        (MOMENT, None),
        ("optimizer/net.0.weight/step", torch.zeros(1)),
        ("optimizer/net.9.weight/exp_avg", torch.zeros(1)),
        ("weights/net.0.bias", torch.zeros(32, dtype=torch.int32)),
        ("weights/net.0.bias", None),
        ("ema/net.0.bias", torch.zeros(1)),
        ("ema/net.0.bias", torch.zeros(32, dtype=torch.float16)),
        ("record/loss", torch.zeros(2)),
        ("elsewhere/net.0.bias", torch.zeros(1)),
        ("noslash", torch.zeros(1)),
    ],
)
def test_every_tensor_of_a_checkpoint_is_checked(tmp_path, reference, name, value):
    def change(tensors, header):
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value

    folder = damaged(tmp_path / "run", reference, change)
    before = (folder / "last.safetensors").read_bytes()
    module = Regression(seed=3)
    weights = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"the tensors of .*last.safetensors do not fit Regression: .*{name}"):
        run(folder, replace(CONFIG, log_every=7), module=module)
    assert (folder / "last.safetensors").read_bytes() == before
    assert all(torch.equal(module.state_dict()[key], tensor) for key, tensor in weights.items())


def test_a_checkpoint_without_its_optimizer_is_refused(tmp_path, reference):
    def change(tensors, header):
        for name in [name for name in tensors if name.startswith("optimizer/")]:
            del tensors[name]

    with pytest.raises(CheckpointError, match=r"18 missing \(optimizer/net.0.weight/step"):
        run(damaged(tmp_path / "run", reference, change))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", "x"),
        ("step", None),
        ("step", -1),
        ("step", 2.5),
        ("step", True),
        ("seconds", "long"),
        ("seconds", -1.0),
        ("metrics", [1]),
        ("metrics", {"loss": "small"}),
        ("curve", {"step": 1}),
        ("curve", [3]),
    ],
)
def test_every_part_of_a_checkpoints_header_is_checked(tmp_path, reference, field, value):
    folder = damaged(tmp_path / "run", reference, lambda tensors, header: header.update({field: value}))
    for call in (lambda: run(folder), lambda: require_trainable(folder, CONFIG, {})):
        with pytest.raises(
            CheckpointError, match=rf"the header of .*last.safetensors is damaged: Progress: {field}"
        ) as caught:
            call()
        assert "\n" not in str(caught.value) and len(str(caught.value)) - len(str(folder)) < 200


@pytest.mark.parametrize("field", ["step", "seconds", "metrics"])
def test_a_part_of_a_header_that_is_not_there_is_named(tmp_path, reference, field):
    folder = damaged(tmp_path / "run", reference, lambda tensors, header: header.pop(field))
    with pytest.raises(CheckpointError, match=rf"the header of .* is damaged: .*'{field}'"):
        run(folder)


@pytest.mark.parametrize("part", ["config", "devices", "header"])
@pytest.mark.parametrize("value", [None, "x", [1, 2], {"steps": {"deep": 1}}])
def test_a_header_that_describes_no_run_is_another_run(tmp_path, reference, part, value):
    folder = damaged(tmp_path / "run", reference, lambda tensors, header: header.update({part: value}))
    with pytest.raises(ValueError, match="holds another run"):
        run(folder, header={"data": "abc"})


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


# Folders


def test_files_of_others_are_left_alone(tmp_path):
    """Names that a run would use, in a folder that is not a run's."""
    for name in ("log.jsonl", "weights.safetensors", "tensorboard/events.out.tfevents.1.host.2.0", "notes.txt"):
        folder = tmp_path / name.replace("/", "-")
        mine = folder / name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        for call in (lambda f=folder: run(f), lambda f=folder: require_trainable(f, CONFIG, {})):
            with pytest.raises(ValueError, match="holds files, but no run of dfplan: choose another folder"):
                call()
        assert mine.read_text() == "mine" and [p for p in folder.rglob("*") if p.is_file()] == [mine]
    with pytest.raises(OSError, match="notes"):
        run(tmp_path / "notes.txt" / "notes.txt")


def test_what_others_add_to_a_run_stays(tmp_path):
    run(tmp_path, replace(CONFIG, steps=5))
    mine = [tmp_path / "notes.txt", tmp_path / "tensorboard" / "events.out.tfevents.1.host.2.0"]
    for path in mine:
        path.write_text("mine")
    run(tmp_path, replace(CONFIG, steps=5))
    assert [path.read_text() for path in mine] == ["mine", "mine"]


def test_a_run_of_an_earlier_version_has_no_marker_and_goes_on(tmp_path, reference):
    with pytest.raises(PowerFailureError):
        run(tmp_path, source=batch_until(30, fail))
    (tmp_path / ".dfplan-run").unlink()
    run(tmp_path)
    assert_same_run(tmp_path, reference)


def test_an_online_run_is_no_place_for_another(tmp_path):
    (tmp_path / "run.json").write_text('{"checkpoint": "checkpoint-64", "recipe": {}, "seed": 0}')
    with pytest.raises(ValueError, match="holds another run, an online one, and this is an offline one"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


# Real processes

SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from test_loop import CONFIG, Regression, batch, train
from dataclasses import replace
from dfplan.training.checkpoint import save_checkpoint

def slow_batch(rng, size):
    time.sleep({delay})
    return batch(rng, size)

torch.set_num_threads(1)
devices, steps = int(sys.argv[2]), int(sys.argv[3])
module = Regression()
result = train(module, slow_batch, replace(CONFIG, steps=steps), sys.argv[1], accelerator="cpu", devices=devices,
               strategy="ddp" if devices > 1 else "auto")
save_checkpoint(Path(sys.argv[1]) / f"rank{{result.rank}}.safetensors", module.state_dict(), {{}})
"""


def start(tmp_path, run_dir, steps=CONFIG.steps, delay=0.0, devices=1):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), delay=delay))
    return subprocess.Popen(
        [sys.executable, str(script), str(run_dir), str(devices), str(steps)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def wait_for_record(process, run_dir, step):
    while process.poll() is None:
        log = run_dir / "log.jsonl"
        if log.exists() and any(record["step"] >= step for record in records(run_dir, names=("step",))):
            return
        time.sleep(0.01)
    pytest.fail(f"the training ended early: {process.communicate()}")


def test_kill_nine_at_a_random_moment_costs_nothing(tmp_path):
    """SIGKILL hits wherever it hits, the middle of a checkpoint included; the same command then ends the same."""
    config = replace(CONFIG, steps=400)
    run(tmp_path / "reference", config)
    process = start(tmp_path, tmp_path / "killed", config.steps, delay=0.005)
    wait_for_record(process, tmp_path / "killed", 10)
    time.sleep(random.uniform(0, 1))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 7 <= load_checkpoint(tmp_path / "killed" / "last.safetensors")[1]["step"] < config.steps
    again = start(tmp_path, tmp_path / "killed", config.steps)
    output, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert f"step {config.steps}/{config.steps}" in output  # plain lines, for this is no terminal
    assert "continuing" in output
    assert_same_run(tmp_path / "killed", tmp_path / "reference")


def test_ctrl_c_exits_with_130_and_can_be_continued(tmp_path, reference):
    process = start(tmp_path, tmp_path / "run", delay=0.02)
    wait_for_record(process, tmp_path / "run", 10)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to continue" in errors
    assert "Traceback" not in errors
    run(tmp_path / "run")
    assert_same_run(tmp_path / "run", reference)


def test_of_two_trainings_in_one_folder_the_second_is_told_who_holds_it(tmp_path):
    config = replace(CONFIG, steps=100_000)
    first = start(tmp_path, tmp_path / "run", config.steps, delay=0.02)
    wait_for_record(first, tmp_path / "run", 5)
    second = start(tmp_path, tmp_path / "run", config.steps)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert re.search(rf"InUseError: .* is locked by process {first.pid} on .*, training since 20\d\d-", errors)
    with pytest.raises(InUseError, match=f"process {first.pid}"):
        require_trainable(tmp_path / "run", config, {})
    assert first.poll() is None
    first.kill()
    first.communicate()
    require_trainable(tmp_path / "run", config, {})  # the lock of the dead is free


@pytest.mark.slow
def test_many_kills(tmp_path):
    config = replace(CONFIG, steps=400)
    run(tmp_path / "reference", config)
    folder = tmp_path / "killed"
    kills = 0
    while True:
        process = start(tmp_path, folder, config.steps, delay=0.002)
        try:
            process.communicate(timeout=random.uniform(2, 6))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:
            break
    assert process.returncode == 0
    assert kills > 0
    assert_same_run(folder, tmp_path / "reference")


@pytest.mark.slow
def test_two_devices_average_their_gradients(tmp_path):
    """Two processes with a batch each walk the same way as one process with both batches."""
    process = start(tmp_path, tmp_path / "two", steps=30, devices=2)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    ranks = [load_checkpoint(tmp_path / "two" / f"rank{rank}.safetensors")[0] for rank in (0, 1)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])

    steps = iter(range(30))

    class BothNoises(Regression):
        """The noise of both ranks, for the noise is drawn from a generator each."""

        def forward(self, batch, generator):
            step, x, y = int(batch[0]), batch[1], batch[2]
            noises = []
            for rank in (0, 1):
                seed = int(np.random.default_rng((CONFIG.seed, step, rank)).integers(2**63))
                noises.append(torch.randn((16, 3), generator=torch.Generator().manual_seed(seed)))
            error = self.net(x + 0.01 * torch.cat(noises)) - y
            return {"loss": error.square().mean(), "absolute": error.detach().abs().mean()}

    def both(rng, size):
        step = next(steps)
        halves = []
        for rank in (0, 1):
            rank_rng = np.random.default_rng((CONFIG.seed, step, rank))
            rank_rng.integers(2**63)
            halves.append(batch(rank_rng, size))
        return np.int64(step), *(np.concatenate(pair) for pair in zip(*halves, strict=True))

    module = BothNoises()
    run(tmp_path / "one", replace(CONFIG, steps=30), source=both, module=module)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(ranks[0][name], tensor, rtol=1e-4, atol=1e-5)
    for one, two in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-3)
