"""Playing on processes that may die: every batch, equal results, nothing lost."""

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from dfplan.benchmarks import play, recording, rows, run, speed, store
from dfplan.benchmarks.protocol import BATCH, evaluate, evaluation_seeds
from dfplan.benchmarks.results import read_cell, read_timing
from dfplan.envs.registry import task

UMAZE = task("maze2d-umaze-v1")
FAULTY = "stand_in_faults:Faulty"
ORIGIN = {"command": "none", "commit": None, "versions": {}, "hardware": {}}
BEGUN = [100_000, 100_005, 100_010]
"""First seeds of three batches."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def cells(*agents, episodes=3 * BATCH, tasks=(UMAZE,)):
    found, _ = run.wanted(tasks, agents, evaluation_seeds(episodes), run.Arguments())
    return found


def whole(cell):
    """The cell of what is wanted, if it is there and can be used."""
    found = store.look(Path("results"), cell)
    return None if isinstance(found, str) else found


def played(cells, processes=1):
    with play.workers(processes) as pool:
        found = play.play_all(pool, cells, play.describe_all(pool, cells), Path("results"), ORIGIN)
    assert list(found.values()) == [whole(one) for one in found]
    return [found[one] for one in cells]


def batch_of(cell, seeds):
    return store.Batch(evaluate(rows.row("random").build(UMAZE), UMAZE.env_id, seeds), store.key_of(cell), {})


def begun():
    return sorted(int(seed) for seed in Path("begun").read_text().split())


def numbers(cell):
    return {name: getattr(cell, name) for name in ("seeds", "returns", "success", "first_reach", "reward_curve")}


def test_two_processes_play_what_one_plain_loop_plays():
    asked = cells("expert", "random")
    expert, random = played(asked, processes=2)
    alone = evaluate(rows.row("random").build(UMAZE), UMAZE.env_id, evaluation_seeds(15))
    assert random.returns == list(alone.returns) and random.first_reach == list(alone.first_reach)
    assert np.allclose(random.reward_curve, alone.reward_curve, atol=1e-4)
    assert all(expert.success) and expert.seeds == list(evaluation_seeds(15))
    assert not list(Path("results").rglob(".*"))  # no batch and no partial file is left
    paths = recording.read_paths(store.paths_path("results", asked[1]), 15, 300)
    assert len(paths.executed) == BATCH and paths.planned == (None,) * BATCH
    assert np.ptp(paths.executed[0], axis=0).max() > 0.1


def test_the_batch_of_a_killed_process_is_played_again():
    (undisturbed,) = played(cells(FAULTY))
    assert begun() == BEGUN
    for processes in (1, 2):
        shutil.rmtree("results")
        Path("begun").unlink()
        Path("fault").write_text("worker 100005")
        (cell,) = played(cells(FAULTY), processes)
        assert {seed: begun().count(seed) for seed in BEGUN}[100_005] == 2 and set(begun()) == set(BEGUN)
        if processes == 1:
            assert begun() == sorted([*BEGUN, 100_005])  # with two, the one beside it may have been under way
        assert numbers(cell) == numbers(undisturbed)


def test_a_batch_that_kills_every_process_is_given_up_and_the_others_are_kept():
    for processes in (1, 2):
        Path("fault").write_text("always 100005")
        with pytest.raises(play.WorkersDiedError, match=r"3 worker processes died of batch 1 of stand_in_faults:Faulty on"):
            played(cells(FAULTY), processes)
        assert begun().count(100_005) == 3
        (one,) = cells(FAULTY)
        assert 0 in store.kept(Path("results"), one)
        Path("fault").unlink()
        Path("begun").unlink()
        (cell,) = played([one])
        assert cell.seeds == list(range(100_000, 100_015)) and 100_000 not in begun()
        shutil.rmtree("results")
        Path("begun").unlink()


def test_finished_batches_of_other_code_or_settings_are_not_used():
    (one,) = cells("random")
    store.keep(Path("results"), one, 0, batch_of(one, one.seeds[:BATCH]))
    assert list(store.kept(Path("results"), one)) == [0]
    for kind in ("code", "config", "weights", "protocol"):
        other = dataclasses.replace(one, key=dataclasses.replace(one.key, **{kind: "0" * 64}))
        assert store.kept(Path("results"), other) == {}
    torn = next(Path("results").rglob("batch-0000.json"))
    torn.write_text(torn.read_text()[:50])
    assert store.kept(Path("results"), one) == {}


def test_a_cell_is_reused_only_for_the_same_key_and_no_more_episodes():
    (ten,) = cells("random", episodes=10)
    (cell,) = played([ten])
    (fewer,), (more,) = cells("random", episodes=7), cells("random", episodes=11)
    assert whole(fewer) == cell and whole(more) is None
    other = dataclasses.replace(ten, key=dataclasses.replace(ten.key, code="0" * 64))
    assert store.look(Path("results"), other) == "its code changed"
    store.cell_path("results", UMAZE.env_id, "random", None).write_text("{")
    assert whole(ten) is None


def test_a_killed_run_that_had_all_batches_only_writes_the_cell():
    (one,) = cells("random", episodes=5)
    store.keep(Path("results"), one, 0, batch_of(one, one.seeds))
    (cell,) = played([one])
    assert read_cell(store.cell_path("results", UMAZE.env_id, "random", None)) == cell


def test_an_agent_that_fails_is_named_with_the_line():
    failing = r"'stand_in_faults:Failing' failed on maze2d-umaze-v1 with one observation \(4,\): KeyError: 'action' \(stand"
    with pytest.raises(ValueError, match=failing):
        played(cells("stand_in_faults:Failing"))


def test_whatever_is_wrong_with_an_agent_is_said_before_anything_is_played():
    with pytest.raises(ValueError, match="has no attribute 'nothing'"):
        played(cells(FAULTY, "stand_in_faults:nothing"))
    assert not Path("begun").exists() and not Path("results").exists()


def test_decisions_are_timed_once_for_each_group():
    hardware = {"cpu": "one"}
    (one,) = run.timings(cells("random", "expert")[:1], 20)
    with play.workers(1, threads=speed.THREADS) as pool:
        play.time_all(pool, [one], Path("results"), hardware, None)
    timing = read_timing(store.timing_path("results", UMAZE.env_id, "random"))
    assert timing.decisions == 20 and 0 < timing.median <= timing.p95 and timing.plan is None
    assert store.look_for_timing(Path("results"), one, hardware) == timing
    assert store.look_for_timing(Path("results"), one, {"cpu": "another"}) is None
    assert store.look_for_timing(Path("results"), dataclasses.replace(one, decisions=21), hardware) is None


def test_agents_whose_folders_would_be_the_same_are_refused(monkeypatch):
    monkeypatch.setitem(rows.ROWS, "stand_in_faults_Faulty", rows.ROWS["random"])
    with pytest.raises(ValueError, match="would share the folder"):
        cells(FAULTY, "stand_in_faults_Faulty")


def test_descriptions_say_how_an_agent_acts(monkeypatch):
    monkeypatch.delitem(sys.modules, "stand_in_planner", raising=False)  # as in a process that has not read it yet
    expert, planner = (play.describe(one) for one in cells("expert", "stand_in_planner:make"))
    assert expert["execution"] == "waypoints and a PD controller" and expert["card"] is None and expert["files"] == {}
    assert planner["execution"] == "waypoints" and planner["parameters"] == 7 and planner["card"]["seed"] == 0
    assert any(path.endswith("stand_in_planner.py") for path in planner["files"])
