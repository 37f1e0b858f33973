"""Failures, signals and kills at any moment: the same call goes on and ends with the same bits."""

import os
import random
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
from regression import CONFIG, PowerFailureError, Regression, assert_same_run, batch, batch_until, fail, records, run

from dfplan.locks import InUseError
from dfplan.training.checkpoint import load_checkpoint
from dfplan.training.interrupt import TrainingInterrupted
from dfplan.training.loop import require_trainable


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


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from regression import CONFIG, Regression, batch, train
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
    config = replace(CONFIG, steps=200)
    run(tmp_path / "reference", config)
    process = start(tmp_path, tmp_path / "killed", config.steps, delay=0.005)
    wait_for_record(process, tmp_path / "killed", 10)
    time.sleep(random.uniform(0, 0.5))
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
    with pytest.raises(InUseError, match=rf"is locked by process {first.pid} on .*, training since 20\d\d-"):
        run(tmp_path / "run", config)
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
