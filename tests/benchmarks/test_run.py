import csv
import signal
from pathlib import Path

from PIL import Image

from dfplan.benchmarks import plan_speed, rows
from dfplan.benchmarks.protocol import evaluate, evaluation_seeds
from dfplan.benchmarks.results import Cell, Unfinished, cells_in, read, timings_in
from dfplan.envs.maze.expert import WaypointExpert
from dfplan.envs.registry import task

FAULTY = "stand_in_faults:Faulty"
UMAZE = ("--env", "maze2d-umaze", "--threads", 1)
PLANNER = "stand_in_planner:make"


def stamps(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in Path(folder).rglob("*.json")}


def test_a_run_writes_everything_and_the_next_one_uses_it_again(within, tmp_path, monkeypatch):
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
    assert cells["expert"].returns == alone.returns and cells["expert"].first_reach == alone.first_reach
    assert cells[PLANNER].seeds == tuple(evaluation_seeds(6)) and cells[PLANNER].card["seed"] == 0
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
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    status, shown, _ = within(*arguments, PLANNER, "expert", "random", "--open")
    assert opened == [(out / "paths.png").as_uri()] and "nothing here shows pictures" in shown
    assert status == 0 and "3 of 3 results are there and used again" in shown
    assert stamps(out) == before and (out / "paths.png").stat().st_mtime_ns == drawn
    assert within(*arguments, "expert", "--retime")[0] == 0
    changed = {path for path, stamp in stamps(out).items() if before[path] != stamp}
    assert changed == {Path("expert/timing.json")}
    assert not (out / "denoising.gif").exists()  # nobody planned, nothing stale is left


def test_a_row_that_cannot_play_an_environment_is_left_out_there(within, tmp_path):
    arguments = ("--episodes", 1, "--training-seeds", 0, "--quick", "--threads", 1, "--agents", "bc")
    status, shown, errors = within("--env", "maze2d-umaze", "multi2d-large", *arguments)
    assert status == 0, errors
    assert "bc is left out on multi2d-large-v1: it is not told the goal" in shown
    assert [(cell.env_id, cell.agent) for cell in cells_in(tmp_path / "results")] == [("maze2d-umaze-v1", "bc")]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["maze2d-umaze"]
    status, _, errors = within("--env", "multi2d-large", *arguments)
    assert status == 2 and errors.startswith("error: nothing is left to play: bc is left out on multi2d-large-v1")


def test_rows_without_weights_are_left_out(within, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "ROWS", {name: rows.ROWS[name] for name in ("expert", "diffusion-forcing")})
    monkeypatch.setattr(rows, "weights_file", lambda name, seed=0: None)
    arguments = ("--env", "maze2d-umaze", "multi2d-umaze", "--episodes", 3, "--quick", "--threads", 1, "--agents")
    for agents in (("all",), ("diffusion-forcing", "expert")):
        status, shown, errors = within(*arguments, *agents)
        assert status == 0, errors
        assert (
            shown.count("diffusion-forcing is left out on") == 2 and "benchmarks/train.py --env maze2d-umaze" in shown
        )
    for env in ("maze2d-umaze", "multi2d-umaze"):
        assert read(tmp_path / "results" / env / "expert" / "untrained.json", Cell).success == (True,) * 3


def begun(folder):
    return sorted(int(seed) for seed in (folder / "begun").read_text().split())


def test_a_run_that_was_ended_goes_on_where_it_stopped(command, within, tmp_path):
    """A batch is begun when the one before has come back, and kept before the next one has: of two, one for sure."""
    arguments = (*UMAZE, "--episodes", 20, "--quick", "--agents", FAULTY)
    (tmp_path / "fault").write_text("driver 100010")
    assert command("run.py", *arguments).returncode == -signal.SIGKILL
    (kept,) = (tmp_path / "results").rglob(".untrained.json")
    assert read(kept, Unfinished).batches and not cells_in(tmp_path / "results")

    (tmp_path / "fault").write_text("interrupt 100015")
    interrupted = command("run.py", *arguments)
    assert interrupted.returncode == 130
    sentence = "interrupted; what was played is kept, and the same command, without --fresh, goes on from there\n"
    assert interrupted.stderr == sentence
    assert begun(tmp_path).count(100_000) == 1 and begun(tmp_path).count(100_015) == 1

    status, _, errors = within(*arguments)
    assert status == 0, errors
    assert begun(tmp_path).count(100_000) == 1 + 3  # drawing and timing begin there too, with a decision to warm up
    (cell,) = cells_in(tmp_path / "results")
    alone = evaluate(rows.row("random").build(task("maze2d-umaze-v1")), "maze2d-umaze-v1", evaluation_seeds(20))
    assert cell.returns == alone.returns and cell.seeds == tuple(evaluation_seeds(20))
    assert not list((tmp_path / "results").rglob(".*"))


def test_plans_are_timed(capsys, monkeypatch):
    words = ["plan_speed.py", "--env", "maze2d-umaze", "--agents", PLANNER, "--plans", "2", "--threads", "1"]
    monkeypatch.setattr("sys.argv", words)
    assert plan_speed.main() == 0
    shown = capsys.readouterr().out
    assert PLANNER in shown and "MiB" in shown
