import csv

import pytest
from PIL import Image

from dfplan.benchmarks.protocol import evaluate, evaluation_seeds
from dfplan.benchmarks.results import read_result
from dfplan.envs.expert import WaypointExpert
from dfplan.envs.tasks import task

FILES = {"result.json", "table.md", "table.csv", "paths.png", "denoising.gif"}


def test_a_quick_run_writes_everything(command, tmp_path):
    arguments = ("--env", "maze2d-umaze", "--quick", "--episodes", 6, "--output", "out", "--agents")
    done = command("run.py", *arguments, "stand_in_planner:make", "expert", "random")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == FILES and [path.name for path in tmp_path.iterdir()] == ["out"]

    result = read_result(out / "result.json")
    assert result.seeds == list(evaluation_seeds(6)) and result.quick and result.peak_memory_mib > 50
    alone = evaluate(WaypointExpert(task("maze2d-umaze-v1").layout), "maze2d-umaze-v1", evaluation_seeds(6))
    agents = {agent.agent: agent for agent in result.agents}
    assert agents["expert"].returns == list(alone.returns)
    assert agents["expert"].first_reach == list(alone.first_reach)
    assert agents["stand_in_planner:make"].decision["plan"] > 0 and agents["random"].decision["plan"] is None
    for text in ("normalized", "reported", "waypoints and a PD controller", "wrote"):
        assert text in done.stdout
    with open(out / "table.csv") as file:
        assert {"expert", "random"} <= {row["agent"] for row in csv.DictReader(file)}
    with Image.open(out / "paths.png") as picture, Image.open(out / "denoising.gif") as animation:
        assert picture.width > 500 and animation.n_frames == 24
    assert (out / "denoising.gif").stat().st_size < 2_000_000

    again = command("run.py", *arguments, "expert")
    assert again.returncode == 0, again.stderr
    assert {path.name for path in out.iterdir()} == FILES - {"denoising.gif"}  # nobody planned, nothing stale is left
    assert read_result(out / "result.json").agents[0].returns == list(alone.returns)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--env", "maze2d-lrge"), "did you mean maze2d-large"),
        (("--agents", "exprt"), "unknown agent 'exprt'"),
        (("--agents", "expert", "expert"), "different agents"),
        (("--agents", "expert", "--episodes", "0"), "number of episodes"),
        (("--agents", "expert", "--seed", "-1"), "seed must lie in"),
        (("--agents", "expert", "--threads", "0"), "threads must be at least 1"),
        (("--agents", "expert", "--device", "abacus"), "the device 'abacus'"),
        (("--agents", "expert", "--output", "/dev/null"), "is a file"),
        (("--agents", "no_such_module:make"), "cannot import the agent"),
        (("--env", "maze2d-eval-large", "--agents", "diffusion-forcing"), "'eval-large'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_users_mistake_is_one_sentence_and_writes_nothing(command, tmp_path, arguments, sentence):
    done = command("run.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and sentence in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_multi2d_runs_and_counts_its_own_goals(command, tmp_path):
    done = command("run.py", "--env", "multi2d-umaze", "--agents", "expert", "--episodes", 3, "--quick", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "results" / "multi2d-umaze" / "result.json").agents[0].success == [True] * 3


def test_plans_are_timed(command):
    done = command("plan_speed.py", "--env", "maze2d-umaze", "--agents", "stand_in_planner:make", "--plans", 2)
    assert done.returncode == 0, done.stderr
    assert "stand_in_planner:make" in done.stdout and "MiB" in done.stdout
    refused = command("plan_speed.py", "--agents", "expert")
    assert refused.returncode == 2 and "does not plan" in refused.stderr
