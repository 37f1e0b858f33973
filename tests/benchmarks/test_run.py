import csv
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image

from dfplan.benchmarks import registry, run
from dfplan.benchmarks.cells import cells_in, read_cell, timings_in
from dfplan.benchmarks.protocol import evaluate, evaluation_seeds
from dfplan.envs.expert import WaypointExpert
from dfplan.envs.tasks import task

FAULTY = "stand_in_faults:Faulty"
UMAZE = ("--env", "maze2d-umaze", "--threads", 1)
PLANNER = "stand_in_planner:make"


@pytest.fixture
def within(tmp_path, monkeypatch, capsys):
    """Run the benchmark in an empty folder, within this process, to its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "path", [*sys.path])  # what a run appends to it is gone with the test

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        status = run.main()
        return status, *capsys.readouterr()

    return call


def stamps(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in Path(folder).rglob("*.json")}


def test_a_run_writes_everything_and_the_next_one_uses_it_again(within, tmp_path):
    arguments = (*UMAZE, "--quick", "--episodes", 6, "--output", "out", "--agents")
    status, shown, errors = within(*arguments, PLANNER, "expert", "random")
    assert status == 0, errors
    out = tmp_path / "out" / "maze2d-umaze"
    files = {"table.md", "table.csv", "paths.png", "denoising.gif"}
    folders = {"stand_in_planner_make", "expert", "random"}
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == files | folders
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    cells = {cell.agent: cell for cell in cells_in(tmp_path / "out")}
    alone = evaluate(WaypointExpert(task("maze2d-umaze-v1").layout), "maze2d-umaze-v1", evaluation_seeds(6))
    assert cells["expert"].returns == list(alone.returns) and cells["expert"].first_reach == list(alone.first_reach)
    assert cells[PLANNER].seeds == list(evaluation_seeds(6)) and cells[PLANNER].card["seed"] == 0
    timings = {timing.agent: timing for timing in timings_in(tmp_path / "out")}
    assert timings[PLANNER].plan > 0 and timings["random"].plan is None and timings["random"].decisions == 100
    for text in ("expert", "waypoints and a PD controller", "printed by others", "results are in out"):
        assert text in shown
    with open(out / "table.csv") as file:
        assert {"expert", "random"} <= {row["agent"] for row in csv.DictReader(file)}
    with Image.open(out / "paths.png") as picture, Image.open(out / "denoising.gif") as animation:
        assert picture.width > 500 and animation.n_frames == 24
    assert (out / "denoising.gif").stat().st_size < 2_000_000

    before, drawn = stamps(out), (out / "paths.png").stat().st_mtime_ns
    status, shown, _ = within(*arguments, PLANNER, "expert", "random")
    assert status == 0 and "3 of 3 results are there and used again" in shown
    assert stamps(out) == before and (out / "paths.png").stat().st_mtime_ns == drawn
    assert within(*arguments, "expert", "--retime")[0] == 0
    changed = {path for path, stamp in stamps(out).items() if before[path] != stamp}
    assert changed == {Path("expert/timing.json")}
    assert not (out / "denoising.gif").exists()  # nobody planned, nothing stale is left


def test_what_was_played_by_other_code_is_played_again(within, tmp_path):
    (tmp_path / "mine.py").write_text("from dfplan.benchmarks.baselines import RandomAgent\nclass Mine(RandomAgent): ...")
    arguments = (*UMAZE, "--episodes", 2, "--quick", "--agents", "mine:Mine", "random")
    assert within(*arguments)[0] == 0
    results = tmp_path / "results" / "maze2d-umaze"
    before = stamps(results)
    path = tmp_path / "mine.py"
    path.write_text(f'"""Words."""\n{path.read_text()}')
    assert within(*arguments)[0] == 0 and stamps(results) == before
    path.write_text(f"{path.read_text()}\nGAIN = 2")
    assert within(*arguments)[0] == 0
    changed = {name for name, stamp in stamps(results).items() if before[name] != stamp}
    assert changed == {Path("mine_Mine/untrained.json"), Path("mine_Mine/timing.json")}


def test_several_environments_and_rows_that_cannot_play_them(within, tmp_path, monkeypatch):
    rows = {"one-goal": registry.Row("dfplan.benchmarks.baselines:RandomAgent", "it is random", tasks="single goal")}
    monkeypatch.setattr(registry, "ROWS", rows | {name: registry.ROWS[name] for name in ("expert", "diffusion-forcing")})
    monkeypatch.setattr(registry, "weights_file", lambda name, seed=0: None)
    arguments = ("--env", "maze2d-umaze", "multi2d-umaze", "--episodes", 3, "--quick", "--threads", 1, "--agents")
    status, _, errors = within(*arguments, "one-goal")
    assert status == 2 and "one-goal cannot play multi2d-umaze-v1" in errors
    monkeypatch.setattr(registry, "ROWS", {name: row for name, row in registry.ROWS.items() if name != "one-goal"})
    status, shown, errors = within(*arguments, "all")
    assert status == 0, errors
    assert shown.count("diffusion-forcing is left out on") == 2 and "benchmarks/train.py --env maze2d-umaze" in shown
    for env in ("maze2d-umaze", "multi2d-umaze"):
        assert read_cell(tmp_path / "results" / env / "expert" / "untrained.json").success == [True] * 3


def begun(folder):
    return sorted(int(seed) for seed in (folder / "begun").read_text().split())


def test_a_run_that_was_ended_goes_on_where_it_stopped(command, within, tmp_path):
    """A batch is begun when the one before has come back, and kept before the next one has: of two, one for sure."""
    arguments = (*UMAZE, "--episodes", 20, "--quick", "--agents", FAULTY)
    (tmp_path / "fault").write_text("driver 100010")
    assert command("run.py", *arguments).returncode == -signal.SIGKILL
    assert list((tmp_path / "results").rglob("batch-0000.json")) and not cells_in(tmp_path / "results")

    (tmp_path / "fault").write_text("interrupt 100015")
    interrupted = command("run.py", *arguments)
    assert interrupted.returncode == 130
    assert interrupted.stderr == "interrupted; what was played is kept, and the same command goes on from there\n"
    assert begun(tmp_path).count(100_000) == 1 and begun(tmp_path).count(100_015) == 1

    status, _, errors = within(*arguments)
    assert status == 0, errors
    assert begun(tmp_path).count(100_000) == 1 + 2  # timing begins there too, with a decision to warm up
    (cell,) = cells_in(tmp_path / "results")
    alone = evaluate(registry.row("random").build(task("maze2d-umaze-v1")), "maze2d-umaze-v1", evaluation_seeds(20))
    assert cell.returns == list(alone.returns) and cell.seeds == list(evaluation_seeds(20))
    assert not [path for path in (tmp_path / "results").rglob(".*") if path.name != ".drawn"]


def test_fresh_plays_everything_again(within, tmp_path):
    arguments = (*UMAZE, "--episodes", 2, "--quick", "--agents", "random")
    assert within(*arguments)[0] == 0
    before = stamps(tmp_path)
    assert within(*arguments, "--fresh")[0] == 0
    after = stamps(tmp_path)
    assert after.keys() == before.keys() and all(after[path] > before[path] for path in before)


def test_other_episodes_have_a_folder_of_their_own(within, tmp_path):
    assert within(*UMAZE, "--episodes", 1, "--quick", "--agents", "random", "--seed", 3)[0] == 0
    (cell,) = cells_in(tmp_path / "results" / "block3")
    assert cell.seeds == [130_000] and cells_in(tmp_path / "results") == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--env", "maze2d-lrge"), "did you mean maze2d-large"),
        (("--env", "maze2d-large", "maze2d-large-v1", "maze2d-lrge"), "did you mean maze2d-large"),
        (("--env", "maze2d-open", "--agents", "diffusion-forcing"), "'open'"),
        (("--agents", "exprt"), "unknown agent 'exprt'"),
        (("--agents", "expert", "expert"), "different agents"),
        (("--agents", "all", "expert"), "'all' stands for every registered agent"),
        (("--agents", "expert", "--episodes", "0"), "number of episodes"),
        (("--agents", "expert", "--seed", "-1"), "seed must lie in"),
        (("--agents", "expert", "--threads", "0"), "threads must be at least 1"),
        (("--agents", "expert", "--training-seeds", "7"), "training seeds are 0, 1, 2, not 7"),
        (("--agents", "expert", "--device", "abacus"), "the device 'abacus'"),
        (("--agents", "expert", "--output", "/dev/null"), "is a file"),
        (("--agents", "no_such_module:make"), "cannot import the agent"),
        (("--agents", "stand_in_planner:nothing"), "has no attribute 'nothing'"),
        (("--agents", "stand_in_faults:Failing", "--episodes", "1"), "failed on maze2d-large-v1: KeyError"),
        (("--agents", "sb3:nowhere.zip"), "there is no file 'nowhere.zip'"),
        (("--env", "maze2d-eval-large", "--agents", "diffusion-forcing"), "'eval-large'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_users_mistake_is_one_sentence_and_writes_nothing(within, tmp_path, arguments, sentence):
    status, _, errors = within(*arguments)
    assert status == 2
    assert errors.startswith("error: ") and errors.count("\n") == 1 and sentence in errors
    assert list(tmp_path.iterdir()) == []


def test_an_address_may_follow_cluster_or_not():
    assert run.with_address(["--cluster"]) == ["--cluster", "local"]
    assert run.with_address(["--cluster", "--quick"]) == ["--cluster", "local", "--quick"]
    assert run.with_address(["--quick", "--cluster", "ray://head:10001"]) == ["--quick", "--cluster", "ray://head:10001"]


def test_plans_are_timed(command):
    done = command("plan_speed.py", "--env", "maze2d-umaze", "--agents", PLANNER, "--plans", 2)
    assert done.returncode == 0, done.stderr
    assert PLANNER in done.stdout and "MiB" in done.stdout
    refused = command("plan_speed.py", "--agents", "expert")
    assert refused.returncode == 2 and "does not plan" in refused.stderr
