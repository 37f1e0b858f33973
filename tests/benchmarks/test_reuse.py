"""What a second run uses again, what it plays again, and what it never replaces, by the command."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from dfplan.benchmarks import play, provenance, results, rows
from dfplan.benchmarks.protocol import BATCH, evaluate, evaluation_seeds
from dfplan.benchmarks.results import Cell, Unfinished, cells_in, read, timings_in
from dfplan.benchmarks.wanted import wanted
from dfplan.envs.registry import task

UMAZE = ("--env", "maze2d-umaze", "--threads", 1, "--quick")
RANDOM = (*UMAZE, "--agents", "random")
AGENTS = Path("results", "maze2d-umaze")
CELL = AGENTS / "random" / "untrained.json"
AGAIN = "1 of 1 results are there and used again; --fresh plays them anew"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plays(within):
    """Run the benchmark, which must succeed, and return what it shows."""

    def call(*arguments):
        status, shown, errors = within(*arguments)
        assert status == 0, errors
        return shown

    return call


def stamps():
    return {path: path.stat().st_mtime_ns for path in Path().rglob("[!.]*.json")}


def changed(before):
    after = stamps()
    assert after.keys() == before.keys()
    return {path for path in after if after[path] != before[path]}


MINE = """
import importlib, json
from pathlib import Path
import numpy as np
import helper
from dfplan.benchmarks.baselines import RandomAgent
from parts import inner

class Mine(RandomAgent):
    def __init__(self):
        super().__init__()
        importlib.import_module("late")
        self.pull = np.load("weights.npy")
        self.settings = json.loads(Path(__file__).with_name("settings.json").read_text())
"""


@pytest.fixture
def mine():
    """An agent that reads modules and files in many ways."""
    Path("parts").mkdir()
    texts = {"mine.py": MINE, "helper.py": "from nested import GAIN", "nested.py": "GAIN = 1", "late.py": "import numpy",
             "parts/__init__.py": "", "parts/inner.py": "from . import deeper", "parts/deeper.py": "x = 1",
             "settings.json": "{}", "unrelated.py": "", "unrelated.json": ""}  # fmt: skip
    for name, text in texts.items():
        Path(name).write_text(text)
    np.save("weights.npy", np.zeros(2))
    return (*UMAZE, "--episodes", 1, "--agents", "mine:Mine", "random")


CHANGES = {
    **dict.fromkeys(("helper.py", "mine.py"), lambda path: path.write_text(f"{path.read_text()}\nX = 1")),
    **dict.fromkeys(("nested.py", "late.py", "parts/deeper.py"), lambda path: path.write_text("GAIN = 2")),
    "settings.json": lambda path: path.write_text('{"a": 1}'),
    "weights.npy": lambda path: np.save(path, np.ones(2)),
}


def asked(agent, episodes):
    """What a run asks for that begins now."""
    (cell,), _ = wanted([task("maze2d-umaze-v1")], [agent], evaluation_seeds(episodes))
    return cell


def killed(cell, batches=1, files=()):
    """Leave so many batches of a random agent that read these files, as a run does that is killed."""
    agent, path = (
        rows.row("random").build(task(cell.env_id)),
        results.cell_path("results", cell.env_id, cell.name, None),
    )
    starts = range(0, batches * BATCH, BATCH)
    played = [evaluate(agent, cell.env_id, cell.seeds[start : start + BATCH]) for start in starts]
    unfinished = Unfinished(cell.key, {name: provenance.file_hash(name) for name in files}, played)
    results.write_file(path.with_name(f".{path.name}"), unfinished)


def looked():
    """The cell of mine that a run uses again which begins now, or why it does not."""
    said, cell = [], asked("mine:Mine", 1)
    return play.there([cell], Path("results"), said.append).get(cell) or said[0].partition("played again: ")[2]


def test_a_users_agent_plays_again_when_a_module_or_a_file_that_it_reads_changed(plays, mine):
    plays(*mine)
    (cell,) = (cell for cell in cells_in("results") if cell.agent == "mine:Mine")
    assert {*CHANGES, "parts/inner.py"} <= cell.files.keys()
    assert not [path for path in cell.files if "unrelated" in path or "site-packages" in path or path.startswith("/")]
    for name, change in CHANGES.items():
        path, text = Path(name), Path(name).read_bytes()
        change(path)
        assert isinstance(looked(), str), name
        path.unlink()
        if path.suffix != ".py":
            assert looked() == f"{name} changed"
        path.write_bytes(text)
        assert looked() == cell

    before = stamps()
    Path("unrelated.json").write_text("1")
    assert "2 of 2 results are there and used again; --fresh plays them anew" in plays(*mine)
    assert changed(before) == {Path("unrelated.json")}
    before = stamps()
    CHANGES["weights.npy"](Path("weights.npy"))
    assert "mine:Mine on maze2d-umaze-v1 (untrained) is played again: weights.npy changed" in plays(*mine)
    assert changed(before) == {AGENTS / "mine_Mine" / "untrained.json", AGENTS / "mine_Mine" / "timing.json"}


def test_finished_batches_of_a_users_agent_are_not_used_when_a_file_changed(plays):
    Path("own.py").write_text(
        "from pathlib import Path\nfrom stand_in_faults import Faulty\n"
        "class Own(Faulty):\n    def __init__(self):\n"
        "        super().__init__()\n        self.text = Path('weights.txt').read_text()\n"
    )
    arguments = (*UMAZE, "--episodes", 10, "--agents", "own:Own")
    for change, again in ((False, 0), (True, 1)):
        Path("weights.txt").write_text("1")
        killed(asked("own:Own", 10), files=["own.py", "weights.txt"])
        Path("weights.txt").write_text("2" if change else "1")
        plays(*arguments)
        assert begun("100000", "100005") == [again + 3, 1]  # timed and drawn from there too, with a decision to warm up
        shutil.rmtree("results")
        Path("begun").unlink()


def begun(*seeds):
    """How often the batches with these first seeds were begun."""
    return [Path("begun").read_text().split().count(seed) for seed in seeds]


def test_an_agent_that_writes_what_it_reads_still_ends(plays):
    Path("own.py").write_text(
        "from pathlib import Path\nfrom dfplan.benchmarks.baselines import RandomAgent\n"
        "class Own(RandomAgent):\n"
        "    def reset(self, goal=None, seed=None):\n        super().reset(goal, seed)\n"
        "        state = Path('state')\n"
        "        state.write_text(str(int(state.read_text()) + 1) if state.exists() else '0')\n"
    )
    for shown in ("results are in results", "own:Own on maze2d-umaze-v1 (untrained) is played again: state changed"):
        assert shown in plays(*UMAZE, "--episodes", 6, "--agents", "own:Own")


def test_fresh_plays_everything_again(plays):
    plays(*RANDOM, "--episodes", 2)
    before = stamps()
    plays(*RANDOM, "--episodes", 2, "--fresh")
    assert changed(before) == before.keys()


def test_fresh_costs_nothing_when_it_cannot_be_played(plays, within):
    plays(*RANDOM, "--episodes", 6)
    before = stamps()
    status, _, errors = within(*RANDOM, "--episodes", 6, "--fresh", "--device", "cuda:99")
    assert status == 2 and "cannot be used here" in errors and changed(before) == set()
    assert AGAIN in plays(*RANDOM, "--episodes", 6)


def test_an_interrupted_fresh_run_keeps_the_old_cell_and_goes_on(plays):
    plays(*RANDOM, "--episodes", 15)
    old = CELL.read_bytes()
    killed(asked("random", 15))
    assert AGAIN in plays(*RANDOM, "--episodes", 10)  # which does not go on
    assert CELL.read_bytes() == old
    before = stamps()
    assert "is played again: an interrupted --fresh goes on" in plays(*RANDOM, "--episodes", 15)
    assert CELL in changed(before) and read(CELL, Cell).returns == tuple(json.loads(old)["returns"])
    assert AGAIN in plays(*RANDOM, "--episodes", 15)


def test_other_episodes_have_a_folder_of_their_own(plays):
    plays(*RANDOM, "--episodes", 2, "--output", "out")
    (first,) = cells_in("out")
    plays(*RANDOM, "--episodes", 1, "--output", "out", "--seed", 3)
    plays(*RANDOM, "--episodes", 1, "--seed", 3)
    assert cells_in("out") == [first]
    for folder in ("out/block3", "results/block3"):
        assert [cell.seeds for cell in cells_in(folder)] == [(130_000,)]


def write(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({"schema": 3}, (), "is of schema 3: a newer dfplan wrote it"),
        ({"schema": 3}, ("--fresh",), "is of schema 3: a newer dfplan wrote it"),
        ({"device": "cuda", "key": dict.fromkeys(("code", "config", "weights", "protocol"), "a")}, ("--episodes", 1),
         "holds 2 episodes, which 1 new ones would replace"),
        ({}, ("--episodes", 1, "--fresh"), "holds 2 episodes, which 1 new ones would replace"),
    ],
)  # fmt: skip
def test_what_must_not_be_replaced_is_refused(plays, within, changes, options, sentence):
    plays(*RANDOM, "--episodes", 2)
    write(CELL, **changes)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    status, _, errors = within(*RANDOM, "--episodes", 2, *options)
    assert status == 2 and sentence in errors and "choose another --output" in errors and errors.count("\n") == 1
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_a_timing_of_a_newer_schema_is_not_replaced(plays):
    plays(*RANDOM, "--episodes", 1)
    timing = AGENTS / "random" / "timing.json"
    write(timing, schema=3)
    newer = timing.read_bytes()
    assert "is not timed: " in (shown := plays(*RANDOM, "--episodes", 1)) and "timing.json is of schema 3" in shown
    assert timing.read_bytes() == newer


@pytest.mark.parametrize("damage", ["[" * 200_000, '{"schema": 2, "key": 7}', "\x00\xff"])  # more: test_cells.py
def test_damaged_files_are_made_again(plays, damage):
    plays(*RANDOM, "--episodes", 1)
    cell, unfinished = read(CELL, Cell), CELL.with_name(f".{CELL.name}")
    for path in (CELL, unfinished, AGENTS / "random" / "timing.json"):
        path.write_text(damage)
    shown = plays(*RANDOM, "--episodes", 1)
    for name in (CELL.name, unfinished.name, "timing.json"):
        assert f"{AGENTS / 'random' / name} is not a whole" in shown
    assert read(CELL, Cell).returns == cell.returns and len(timings_in("results")) == 1
    assert AGAIN in plays(*RANDOM, "--episodes", 1)


def test_what_killed_runs_left_half_written_is_removed_and_links_are_not_followed(plays):
    Path("precious").write_text("mine")
    place = AGENTS / "random"
    place.mkdir(parents=True)
    for name in (".untrained.json.partial", ".timing.json.partial", "..untrained.json.partial"):
        (place / name).symlink_to(Path("precious").absolute())
    (AGENTS / ".table.md.0123456789abcdef.partial").write_text("torn")
    plays(*RANDOM, "--episodes", 1)
    assert Path("precious").read_text() == "mine"
    assert list(Path("results").rglob(".*")) == []


def test_an_agent_that_cannot_be_timed_or_drawn_still_has_its_table(plays):
    Path("own.py").write_text(
        "from dfplan.benchmarks.baselines import RandomAgent\n"
        "class Slow(RandomAgent):\n"
        "    decisions = 0\n"
        "    def act(self, observation):\n"
        "        self.decisions += observation.ndim == 1\n"
        "        if self.decisions > 1: raise RuntimeError('too many')\n"
        "        return super().act(observation)\n"
    )
    shown = plays(*UMAZE, "--episodes", 1, "--agents", "own:Slow", "random")
    assert "own:Slow on maze2d-umaze-v1 is not timed: the agent 'own:Slow' failed on maze2d-umaze-v1" in shown
    assert "own:Slow" in (AGENTS / "table.md").read_text() and "Decisions timed on" in (AGENTS / "table.md").read_text()
    assert [timing.agent for timing in timings_in("results")] == ["random"]


def test_a_plan_that_cannot_be_recorded_does_not_cost_the_table(plays):
    Path("own.py").write_text(
        "from stand_in_planner import StandInPlanner\n"
        "class Own(StandInPlanner):\n"
        "    def plan(self, observation): return super().plan(observation)\n"
    )
    shown = plays(*UMAZE, "--episodes", 1, "--agents", "own:Own")
    assert "own:Own is not drawn: " in shown and "unexpected keyword argument" in shown
    assert (AGENTS / "table.md").exists() and not (AGENTS / "denoising.gif").exists()


def test_two_runs_into_one_folder_do_not_harm_each_other_and_the_second_says_for_whom_it_waits(begin):
    """The first is stopped while it holds the lock, so that the second meets it whatever the machine does."""
    arguments = (*UMAZE, "--episodes", 5, "--agents", "stand_in_faults:Faulty")
    first = begin("run.py", *arguments)
    _until(lambda: Path("begun").exists())
    os.kill(first.pid, signal.SIGSTOP)
    second = begin("run.py", *arguments)
    said = second.stderr.readline()
    assert f"waiting for process {first.pid} on " in said and "which plays maze2d-umaze in results" in said
    os.kill(first.pid, signal.SIGCONT)
    for process in (first, second):
        shown, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert "results are in results" in shown
    assert AGAIN in shown and [cell.seeds for cell in cells_in("results")] == [tuple(range(100_000, 100_005))]
    assert not list(Path("results").rglob(".*"))


def _until(there):
    for _ in range(2000):
        if there():
            return
        time.sleep(0.05)
    raise TimeoutError
